"""Runs two or more measuring commands in turn and prints medians and ratios.

    python benchmarks/compare.py --rounds 3 \
        "package: python benchmarks/package.py MODEL.gguf" \
        "candle: target/release/examples/plain_candle MODEL.gguf 64 8"

Each command prints ``name value`` lines. They run A B A B, never at once, so that a machine that slows down slows
all of them; a ratio is the median of the ratios within one round, against the last command.
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import statistics
import subprocess
import sys
import time


def run(command: list[str]) -> dict[str, float]:
    """The values that a command prints, and the time of the processor that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    values = {}
    for line in output.splitlines():
        name, _, value = line.partition(" ")
        values[name] = float(value)
    values["wall_s"] = wall
    values["user_s"] = after.ru_utime - before.ru_utime
    values["system_s"] = after.ru_stime - before.ru_stime
    return values


def main() -> None:
    """Runs the rounds and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="+", metavar="NAME: COMMAND")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    commands = {}
    for text in arguments.commands:
        name, _, command = text.partition(":")
        commands[name] = shlex.split(command)

    results: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for index in range(arguments.rounds):
        for name, command in commands.items():
            load = os.getloadavg()[0]
            values = run(command)
            results[name].append(values)
            shown = ", ".join(f"{key} {value:.4g}" for key, value in values.items())
            print(f"round {index + 1}, load average {load:.1f}, {name}: {shown}", file=sys.stderr)

    names = list(commands)
    base = results[names[-1]]
    print("| median of " + f"{arguments.rounds} | " + " | ".join(names) + f" | ratio to {names[-1]} |")
    print("|---|" + "---|" * (len(names) + 1))
    for key in base[0]:
        cells = [f"{statistics.median(values[key] for values in results[name]):.4g}" for name in names]
        ratios = [
            statistics.median(ours[key] / other[key] for ours, other in zip(results[name], base, strict=True))
            for name in names[:-1]
            if all(values[key] for values in base)
        ]
        print(f"| {key} | " + " | ".join(cells) + " | " + ", ".join(f"{ratio:.2f}" for ratio in ratios) + " |")


if __name__ == "__main__":
    main()
