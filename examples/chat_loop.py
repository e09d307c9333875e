"""A chat in the terminal. An empty line leaves it; Ctrl-C ends an answer and nothing else.

python examples/chat_loop.py --demo              # the embedded toy model, as without an option
python examples/chat_loop.py --model PATH        # a GGUF file
python examples/chat_loop.py --system "You answer in verse."

What is typed after a slash is for the program: /again has another answer, /back takes the last turn back.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from candle_phi import ContextLengthError, GenerationConfig, Message, Phi3Session
from candle_phi.types import MessageLike


def answer(session: Phi3Session, said: str | Sequence[MessageLike], config: GenerationConfig) -> None:
    """Says something, and shows the answer as it comes."""
    try:
        with session.chat_stream(said, config) as stream:
            for chunk in stream:
                print(chunk, end="", flush=True)
        print()
    except KeyboardInterrupt:
        # The turn is taken back: what was not answered was not said.
        print(" (taken back)")
    except ContextLengthError as error:
        print(
            f"(that would be {error.prompt_tokens} tokens, and {error.context_length} are all: take a turn /back)"
        )


def respond(session: Phi3Session, line: str, system: str | None, config: GenerationConfig) -> None:
    """Does what a line asks for."""
    if line in {"/again", "/back"}:
        if not session.messages:
            print("(nothing was said yet)")
            return
        back = session.rewind()
        if line == "/again":
            # A first turn with a system message is several messages, without the answer.
            said = [message for message in back if message.role != "assistant"]
            answer(session, said if len(said) > 1 else said[0].content, config)
    elif system is not None and not session.messages:
        answer(session, [Message.system(system), Message.user(line)], config)
    else:
        answer(session, line, config)


def main() -> None:
    """Asks and answers until there is nothing more to say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--model", type=Path, help="a GGUF file")
    source.add_argument("--demo", action="store_true", help="the embedded toy model, which is the default")
    parser.add_argument("--system", help="a system message before the conversation")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 takes the likeliest token each time")
    arguments = parser.parse_args()
    config = GenerationConfig(temperature=arguments.temperature)

    with Phi3Session(arguments.model) if arguments.model else Phi3Session.demo() as session:
        while True:
            try:
                line = input("> ").strip()
            except (EOFError, KeyboardInterrupt):
                print()
                return
            if not line:
                return
            respond(session, line, arguments.system, config)


if __name__ == "__main__":
    main()
