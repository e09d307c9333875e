"""Compares two builds of the package in one process, in alternation, on one model.

    python benchmarks/two_builds.py MODEL.gguf BEFORE AFTER --rounds 60

BEFORE and AFTER are folders that contain the package ``candle_phi`` with its extension module, such as the folder
``python`` of two checkouts after ``make build``. Each build loads the model once; both map the same file. A round
measures prefill and decode with one build and then with the other. The order changes from round to round, so that
a drift of the machine's speed affects both alike. The output is the median of the rounds' ratios AFTER / BEFORE of
speeds: above 1 is faster. The greedy token ids of both builds are compared first; a difference is an error.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
from pathlib import Path
from typing import Any

PROMPT_SEED, PROMPT_STEP, PROMPT_RANGE = 1, 37, 300


def load_package(folder: Path) -> Any:
    """Imports ``candle_phi`` from the folder, beside another build that was imported before."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "candle_phi"]:
        del sys.modules[name]
    sys.path.insert(0, str(folder.resolve()))
    try:
        package = importlib.import_module("candle_phi")
    finally:
        del sys.path[0]
    if not Path(str(package.__file__)).is_relative_to(folder.resolve()):
        raise SystemExit(f"{folder} has no package candle_phi: {package.__file__} was imported")
    return package


def prompt(tokens: int, shift: int) -> list[int]:
    """Valid token ids; a new shift is a new prompt, which shares no prefix with the others."""
    return [PROMPT_SEED + (shift + index * PROMPT_STEP) % PROMPT_RANGE for index in range(tokens)]


def measure(session: Any, tokens: int, new_tokens: int, shift: int) -> dict[str, float]:
    """Tokens per second of one prefill and of the decoding after it."""
    session.reset()
    completion = session.generate(prompt(tokens, shift), max_tokens=new_tokens, temperature=0.0, ignore_eos=True)
    timings = completion.timings
    return {"prefill": timings.prefill_tokens_per_second, "decode": timings.decode_tokens_per_second}


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--prefill", type=int, default=64, metavar="TOKENS")
    parser.add_argument("--decode", type=int, default=8, metavar="TOKENS")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round into this file")
    return parser.parse_args(argv)


def main() -> None:
    """Run the rounds, and print the ratios."""
    given = arguments()
    sessions = {}
    for name in ("before", "after"):
        package = load_package(getattr(given, name))
        sessions[name] = package.Phi3Session(given.model)
    greedy = {
        name: session.generate(prompt(16, 0), max_tokens=64, temperature=0.0, ignore_eos=True).tokens
        for name, session in sessions.items()
    }
    if list(greedy["before"]) != list(greedy["after"]):
        raise SystemExit(f"greedy tokens differ: before {greedy['before']}, after {greedy['after']}")
    print(f"greedy tokens: {len(greedy['before'])} equal")

    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(given.rounds):
        order = ("before", "after") if number % 2 == 0 else ("after", "before")
        rounds.append({name: measure(sessions[name], given.prefill, given.decode, shift=number) for name in order})
    for figure in ("prefill", "decode"):
        ratios = [round_["after"][figure] / round_["before"][figure] for round_ in rounds]
        middle = [statistics.median(round_[name][figure] for round_ in rounds) for name in ("before", "after")]
        print(
            f"{figure}: {middle[0]:.2f} -> {middle[1]:.2f} tokens/s, median of {len(ratios)} ratios "
            f"{statistics.median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}]"
        )
    if given.json is not None:
        given.json.write_text(json.dumps({"greedy_tokens": list(greedy["before"]), "rounds": rounds}))


if __name__ == "__main__":
    main()
