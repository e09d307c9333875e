r"""Measure engines in turn (A B A B) on one model, and print the ratios pair by pair.

    python benchmarks/compare.py phi-3-mini-4k-q4_k_m.gguf --rounds 7 --json speeds.json \
        "candle-phi: python benchmarks/peer_candle_phi.py" \
        "llama.cpp: llama/bin/python benchmarks/peer_llama_cpp.py"

Each engine is a process that stays alive with its model loaded (`worker.py`). It may run in another environment.
The first engine is the one that the others are compared with. For an engine that needs another file, give the file
before the colon: "openvino@DIRECTORY: python benchmarks/peer_openvino.py".

Figures, each measured once a round with every engine, one right after the other. `--figures` takes a list with
commas, and may be repeated:

    prefill-N      tokens a second for a new prompt of N tokens
    forward-8      the same for 8 tokens, eight passes in a row: the size of a batch of sequences or of a
                   speculative check
    decode-N       tokens a second after N tokens of context
    busy           the share of decode-0 that is left beside a busy loop pinned to one core
    open           a new process: load, and from opening to the first token of a prompt of 8; in the first round
                   also the anonymous memory after 512 + 64 tokens, less the cache and what the process had before

After each figure the machine is measured, in the same seconds: how fast it reads memory and how many 8-bit
multiply-adds it does at best (``--machine-peak COMMAND``, which prints JSON). Before each measurement the program
waits until the machine is quiet, for ``--wait-quiet`` seconds at most. If other programs took more than a
twentieth of the processors during a figure, it is measured again with every engine, ``--retries`` times at most.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import compare_report
import quiet
import record
from compare_report import DISTURBED

if TYPE_CHECKING:
    from collections.abc import Iterator

PEAK = "cargo run --quiet --release --workspace --example machine_peak"
FIGURES = [
    "decode-0",
    "prefill-64",
    "prefill-128",
    "prefill-512",
    "forward-8",
    "decode-1000",
    "decode-4000",
    "busy",
    "open",
]
SPIN = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"


@dataclass
class Engine:
    """A worker process, started when it is needed."""

    name: str
    command: list[str]
    options: list[str]
    process: subprocess.Popen[str] | None = field(default=None, init=False)
    ready: dict[str, Any] = field(default_factory=dict, init=False)

    @staticmethod
    def is_well_formed(text: str) -> bool:
        """Whether this is "NAME: COMMAND" or "NAME@MODEL: COMMAND"."""
        name, colon, command = text.partition(": ")
        return bool(name.partition("@")[0] and colon and command.strip())

    @classmethod
    def of(cls, text: str, model: Path, options: list[str]) -> Engine:
        """From "NAME: COMMAND" or "NAME@MODEL: COMMAND"."""
        name, _, command = text.partition(": ")
        name, _, own_model = name.partition("@")
        return cls(name.strip(), [*shlex.split(command), own_model or str(model)], options)

    def start(self) -> None:
        """Starts the process, which says what it is and loads nothing yet."""
        self.process = subprocess.Popen(
            [*self.command, *self.options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.ready = self.read()

    def read(self) -> dict[str, Any]:
        """The next answer."""
        line = self.process.stdout.readline() if self.process and self.process.stdout else ""
        if not line:
            code = self.process.wait() if self.process else None
            raise SystemExit(
                f"{self.name} has ended before it answered, exit code {code}: {shlex.join(self.command)}"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, command: str, wait_s: float = 0.0) -> dict[str, Any]:
        """Lets it measure; what it cannot do has the key "error", and what others took of the machine "others"."""
        if self.process is None or self.process.stdin is None:
            raise RuntimeError(f"{self.name} was not started")
        quiet.wait(wait_s)
        watch = quiet.Watch(self.process.pid)
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        answer = self.read()
        return answer | {"others": watch.others()}

    def stop(self) -> None:
        """Ends the process, and waits until its memory is free."""
        if self.process is not None:
            self.process.communicate("quit\n")
            self.process = None

    @contextlib.contextmanager
    def anew(self) -> Iterator[Engine]:
        """A second process of the same engine."""
        other = Engine(self.name, self.command, self.options)
        other.start()
        try:
            yield other
        finally:
            other.stop()


@contextlib.contextmanager
def busy_core(core: int) -> Iterator[None]:
    """A loop that takes all it can get of one core."""
    process = subprocess.Popen([sys.executable, "-c", SPIN, str(core)])
    try:
        time.sleep(0.5)
        yield
    finally:
        process.kill()
        process.wait()


class Comparison:
    """The rounds and what they gave: values by figure and engine, a list of one for each round."""

    def __init__(self, engines: list[Engine], arguments: argparse.Namespace) -> None:
        self.engines = engines
        self.arguments = arguments
        self.values: dict[str, dict[str, list[float | None]]] = {}
        self.peaks: list[dict[str, Any]] = []
        self.others: list[dict[str, Any]] = []
        self.round = 0

    def note(self, figure: str, engine: Engine, value: float | None) -> None:
        """Keeps a value; None where an engine cannot give it."""
        self.values.setdefault(figure, {}).setdefault(engine.name, []).append(value)
        shown = "-" if value is None else f"{value:.4g}"
        print(f"round {self.round}, {figure}, {engine.name}: {shown}", file=sys.stderr, flush=True)

    def peak(self, figure: str) -> None:
        """What the machine can do at this moment."""
        if not self.arguments.machine_peak:
            return
        output = subprocess.run(
            shlex.split(self.arguments.machine_peak), check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        peak = {"round": self.round, "figure": figure, **json.loads(output)}
        self.peaks.append(peak)
        print(f"round {self.round}, machine: {output.strip()}", file=sys.stderr, flush=True)

    def measure(self, figure: str, command: str, key: str = "tokens_per_second") -> None:
        """One figure, one engine after the other."""
        for attempt in range(self.arguments.retries + 1):
            answers = [engine.ask(command, self.arguments.wait_quiet) for engine in self.engines]
            others = max(answer["others"] for answer in answers)
            if others < DISTURBED:
                break
            print(f"{figure}, attempt {attempt + 1}: others took {others:.0%} of the machine", file=sys.stderr)
        for engine, answer in zip(self.engines, answers, strict=True):
            self.note(figure, engine, answer.get(key))
        self.others.append({"round": self.round, "figure": figure, "others": round(others, 3)})
        self.peak(figure)

    def busy(self) -> None:
        """Decode alone and beside a busy loop, back to back; the core changes from round to round."""
        command = f"decode 0 {self.arguments.decode_tokens}"
        cores = sorted(os.sched_getaffinity(0))
        for engine in self.engines:
            idle = engine.ask(command, self.arguments.wait_quiet).get("tokens_per_second")
            with busy_core(cores[self.round % len(cores)]):
                busy = engine.ask(command).get("tokens_per_second")
            self.note("busy", engine, busy / idle if busy and idle else None)

    def open(self) -> None:
        """What a new process takes until it can answer, and, once, what it keeps."""
        for engine in self.engines:
            with engine.anew() as fresh:
                answer = fresh.ask("open", self.arguments.wait_quiet)
                for key in ("load_s", "open_to_first_token_s"):
                    self.note(key, engine, answer.get(key))
                if self.round > 1:
                    continue
                completed = fresh.ask("complete 512 64")
                found = fresh.ask("memory")
                cache = completed.get("cache_bytes")
                grown = None
                if cache is not None and "anonymous" in found:
                    grown = (found["anonymous"] - fresh.ready["anonymous"] - cache) / 1e6
                    self.note("file_backed_mb", engine, found["file_backed"] / 1e6)
                self.note("anonymous_beyond_cache_mb", engine, grown)

    def prepare(self) -> None:
        """Starts and warms the engines up; for new processes alone there is nothing to keep."""
        figures = self.arguments.figures
        for engine in self.engines:
            if figures == ["open"]:
                with engine.anew() as fresh:
                    engine.ready = fresh.ready
                continue
            engine.start()
            print(f"{engine.name}: {engine.ready['version']}", file=sys.stderr, flush=True)
            for command in ("open", *warm_up(figures)):
                if "error" in (answer := engine.ask(command)):
                    print(f"{engine.name}, {command}: {answer['error']}", file=sys.stderr)

    def run(self) -> None:
        """All rounds."""
        self.prepare()
        for number in range(1, self.arguments.rounds + 1):
            self.round = number
            for figure in self.arguments.figures:
                kind, _, tokens = figure.partition("-")
                if kind in {"prefill", "forward"}:
                    self.measure(figure, f"prefill {tokens}")
                elif kind == "decode":
                    self.measure(figure, f"decode {tokens} {self.arguments.decode_tokens}")
                elif kind == "busy":
                    self.busy()
                else:
                    self.open()


def warm_up(figures: list[str]) -> list[str]:
    """What the first round should not pay for: late set-up, and the texts of the depths."""
    depths = [figure.partition("-")[2] for figure in figures if figure.startswith("decode-")]
    return ["prefill 64", *(f"decode {depth} 2" for depth in (depths or ["0"]))]


def is_figure(text: str) -> bool:
    """Whether there is a figure of this name."""
    kind, dash, number = text.partition("-")
    counted = kind in {"prefill", "forward", "decode"} and bool(dash) and number.isdigit()
    return counted or text in {"busy", "open"}


def figures_of(text: str) -> list[str]:
    """The figures of a list with commas, checked."""
    figures = [figure.strip() for figure in text.split(",") if figure.strip()]
    for figure in figures:
        if not is_figure(figure):
            known = "prefill-N, forward-N, decode-N, busy, open"
            raise argparse.ArgumentTypeError(f"a figure is one of {known}, got {figure!r}")
    return figures


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line, and check it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("engines", nargs="+", metavar="NAME: COMMAND")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--decode-tokens", type=int, default=16)
    parser.add_argument(
        "--figures",
        type=figures_of,
        action="extend",
        metavar="FIGURE,FIGURE,...",
        help=f"default: {','.join(FIGURES)}",
    )
    parser.add_argument("--wait-quiet", type=float, default=20.0, metavar="SECONDS")
    parser.add_argument("--retries", type=int, default=2)
    parser.add_argument("--machine-peak", default=PEAK, metavar="COMMAND", help="'' for none")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write everything there, for figures.py and plot.py"
    )
    # Engines may stand after the options too.
    found = parser.parse_intermixed_args(argv)
    if stray := [text for text in found.engines if is_figure(text)]:
        together = ",".join([*(found.figures or []), *stray])
        parser.error(f"figures are separated by commas, got {' '.join(stray)!r}: write --figures {together}")
    for text in found.engines:
        if not Engine.is_well_formed(text):
            parser.error(f"an engine is 'NAME: COMMAND' or 'NAME@MODEL: COMMAND', got {text!r}")
    found.figures = found.figures or list(FIGURES)
    return found


def main() -> None:
    """Run the comparison from the command line."""
    given = arguments()
    depths = [figure.removeprefix("decode-") for figure in given.figures if figure.startswith("decode-")]
    options = ["--threads", str(given.threads), "--depths", *(depths or ["0"])]
    options += ["--room", str(max(64, given.decode_tokens) + 8)]
    engines = [Engine.of(text, given.model, options) for text in given.engines]
    comparison = Comparison(engines, given)
    try:
        comparison.run()
    except KeyboardInterrupt:
        print("interrupted; these are the rounds so far", file=sys.stderr)
    finally:
        for engine in engines:
            engine.stop()
    need = compare_report.work(given.model)
    found = record.make(
        "compare",
        given.model,
        versions={engine.name: engine.ready["version"] for engine in engines},
        settings={"threads": given.threads, "decode_tokens": given.decode_tokens},
        rounds=comparison.round,
        results=compare_report.make(need, comparison.values, comparison.peaks, comparison.others),
    )
    if given.json:
        record.write(given.json, found)
    print(compare_report.table(found))


if __name__ == "__main__":
    main()
