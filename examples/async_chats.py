"""Several conversations at once under asyncio, as a server has them: one model, a bound, a time for each.

python examples/async_chats.py --demo            # the embedded toy model, as without an option
python examples/async_chats.py --model PATH      # a GGUF file
"""

import argparse
import asyncio
from pathlib import Path

from candle_phi import Phi3Model, Phi3Session

CONVERSATIONS = {
    "ann": ["My word is lantern.", "What was my word?"],
    "bob": ["Write a haiku about snow", "Write a haiku about ice hockey"],
    "cat": ["Count from 3 to 7", "hello"],
}
AT_ONCE = 2
TIMEOUT_S = 30.0


async def converse(name: str, lines: list[str], model: Phi3Model, turns: asyncio.Semaphore) -> None:
    """Holds one conversation. Each turn waits until the machine has room for it."""
    with Phi3Session(model=model) as session:
        for line in lines:
            async with turns:
                try:
                    # The time is for the computing. When it is up the session is free, and the turn not said.
                    async with asyncio.timeout(TIMEOUT_S):
                        completion = await session.achat(line)
                except TimeoutError:
                    print(f"{name}: (no answer to {line!r} in {TIMEOUT_S:.0f} s)")
                    continue
            text = completion.text.replace("\n", " / ")
            print(f"{name}: {line} -> {text} ({completion.usage.cached_tokens} tokens were there)")


async def run(model: Phi3Model) -> int:
    """Holds all conversations, and counts how often the event loop was free meanwhile."""
    free = 0

    async def beat() -> None:
        nonlocal free
        while True:
            await asyncio.sleep(0.001)
            free += 1

    heart = asyncio.create_task(beat())
    turns = asyncio.Semaphore(AT_ONCE)
    await asyncio.gather(*(converse(name, lines, model, turns) for name, lines in CONVERSATIONS.items()))
    heart.cancel()
    return free


def main() -> None:
    """Loads the model once, and talks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--model", type=Path, help="a GGUF file")
    source.add_argument("--demo", action="store_true", help="the embedded toy model, which is the default")
    arguments = parser.parse_args()
    model = Phi3Model(arguments.model) if arguments.model else Phi3Model.demo()
    print(f"the event loop was free {asyncio.run(run(model))} times meanwhile")


if __name__ == "__main__":
    main()
