"""A haiku about ice hockey from Phi-3-mini, with the parameters of the Rust tutorial that this package ports.

python examples/ice_hockey_haiku.py                  # downloads 2.4 GB the first time
python examples/ice_hockey_haiku.py --model PATH     # a GGUF file that is here already
python examples/ice_hockey_haiku.py --demo           # the embedded toy model
"""

import argparse
from pathlib import Path

from candle_phi import GenerationConfig, Phi3Session

# A raw prompt: its control tokens count, and no template is applied.
PROMPT = "<|user|>\nWrite a haiku about ice hockey<|end|>\n<|assistant|>"

REPOSITORY = "microsoft/Phi-3-mini-4k-instruct-gguf"
FILE = "Phi-3-mini-4k-instruct-q4.gguf"
REVISION = "main"


def open_session(model: Path | None, *, demo: bool) -> Phi3Session:
    """The model from the file, the embedded one, or the tutorial's from the hub."""
    if demo:
        return Phi3Session.demo()
    if model is not None:
        return Phi3Session(model)
    # The tokenizer comes with it: tokenizer.json of microsoft/Phi-3-mini-4k-instruct.
    return Phi3Session.from_pretrained(REPOSITORY, FILE, revision=REVISION)


def main() -> None:
    """Streams the haiku, and says at the end how fast it was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--model", type=Path, help="a GGUF file")
    source.add_argument("--demo", action="store_true", help="the embedded toy model")
    arguments = parser.parse_args()

    with open_session(arguments.model, demo=arguments.demo) as session:
        # 100 tokens, temperature 1.0, repetition penalty 1.2 over the last 64 tokens, a random seed.
        stream = session.stream(PROMPT, GenerationConfig.tutorial())
        for chunk in stream:
            print(chunk, end="", flush=True)
        print()
        completion = stream.result
        print(
            f"\n{completion.usage.completion_tokens} tokens, "
            f"{completion.timings.decode_tokens_per_second:.1f} tokens/s, seed {completion.seed}"
        )


if __name__ == "__main__":
    main()
