r"""Measures engines in turn (A B A B) on one model, and prints the ratios pair by pair.

    python benchmarks/compare.py phi-3-mini-4k-q4_k_m.gguf --rounds 7 --json speeds.json \
        "candle-phi: python benchmarks/peer_candle_phi.py" \
        "llama.cpp: /where/it/is/installed/bin/python benchmarks/peer_llama_cpp.py"

Each engine is a process that stays alive with its model loaded (`worker.py`); it may be of another environment.
The first engine is the one that the others are held against. An engine that needs another file says so before the
colon: "openvino@DIRECTORY: python benchmarks/peer_openvino.py".

Figures, each measured once a round with every engine, one right after the other:

    prefill-N      tokens a second for a new prompt of N tokens
    forward-8      the same for 8 tokens, eight passes in a row: the size of a batch of sequences or of a
                   speculative check
    decode-N       tokens a second behind N tokens of context
    busy           the share of decode-0 that is left beside a busy loop pinned to one core
    open           a new process: load, and from opening to the first token of a prompt of 8; in the first round
                   also the anonymous memory behind 512 + 64 tokens, less the cache and what the process had before

Beside each figure the machine is measured, in the same seconds: how fast it reads memory and how many 8-bit
multiply-adds it does at best (``--machine-peak COMMAND``, which prints JSON). Before each measurement it waits
until the machine is quiet, for ``--wait-quiet`` seconds at most; a figure during which other programs took more
than a twentieth of the processors is measured again, with every engine, ``--retries`` times at most.
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

if TYPE_CHECKING:
    from collections.abc import Iterator

PEAK = "cargo run --quiet --release -p candle-phi-kernels --example machine_peak"
DISTURBED = 0.05  # the share of the processors that others may take
SPIN = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"


@dataclass
class Engine:
    """A worker process, started when it is needed."""

    name: str
    command: list[str]
    options: list[str]
    process: subprocess.Popen[str] | None = field(default=None, init=False)
    ready: dict[str, Any] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, text: str, model: Path, options: list[str]) -> Engine:
        """From "NAME: COMMAND" or "NAME@MODEL: COMMAND"."""
        name, colon, command = text.partition(": ")
        name, _, own_model = name.partition("@")
        if not colon or not name:
            raise SystemExit(f"an engine is 'NAME: COMMAND', got {text!r}")
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
            raise SystemExit(f"{self.name} has ended before it answered: {shlex.join(self.command)}")
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


def known_figure(text: str) -> str:
    """A figure's name, checked."""
    kind, dash, number = text.partition("-")
    counted = kind in {"prefill", "forward", "decode"} and dash and number.isdigit()
    if not counted and text not in {"busy", "open"}:
        raise argparse.ArgumentTypeError(f"no such figure: {text!r}")
    return text


def main() -> None:
    """Runs the comparison from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("engines", nargs="+", metavar="NAME: COMMAND")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--decode-tokens", type=int, default=16)
    parser.add_argument(
        "--figures",
        nargs="+",
        type=known_figure,
        default=[
            "decode-0",
            "prefill-64",
            "prefill-128",
            "prefill-512",
            "forward-8",
            "decode-1000",
            "decode-4000",
            "busy",
            "open",
        ],
    )
    parser.add_argument("--wait-quiet", type=float, default=20.0, metavar="SECONDS")
    parser.add_argument("--retries", type=int, default=2)
    parser.add_argument("--machine-peak", default=PEAK, metavar="COMMAND", help="'' for none")
    parser.add_argument("--json", type=Path, help="write everything there, for plot.py")
    # Engines come behind the options too.
    arguments = parser.parse_intermixed_args()
    depths = [figure.removeprefix("decode-") for figure in arguments.figures if figure.startswith("decode-")]
    options = ["--threads", str(arguments.threads), "--depths", *(depths or ["0"])]
    options += ["--room", str(max(64, arguments.decode_tokens) + 8)]
    engines = [Engine.of(text, arguments.model, options) for text in arguments.engines]
    comparison = Comparison(engines, arguments)
    try:
        comparison.run()
    except KeyboardInterrupt:
        print("interrupted; these are the rounds so far", file=sys.stderr)
    finally:
        for engine in engines:
            engine.stop()
    report = compare_report.make(
        arguments.model,
        {engine.name: engine.ready["version"] for engine in engines},
        comparison.values,
        {"peaks": comparison.peaks, "others": comparison.others},
        {"threads": arguments.threads, "decode_tokens": arguments.decode_tokens, "rounds": comparison.round},
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(compare_report.table(report))


if __name__ == "__main__":
    main()
