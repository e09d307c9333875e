"""Measure how long Ctrl-C takes, during the prefill of a long prompt and while tokens are generated.

    python benchmarks/interrupt.py MODEL.gguf --prefill 512 --rounds 5 --json interrupt.json

The signal is sent at different moments; a figure is the time from sending it to ``KeyboardInterrupt`` in Python.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import quiet
import record
from candle_phi import Phi3Session

if TYPE_CHECKING:
    from collections.abc import Callable


# How often a signal that came too late is sent earlier.
HALVINGS = 6


def latency(work: Callable[[], object], wait_s: float) -> float:
    """How long after the signal the work ended."""
    sent = 0.0

    def interrupt() -> None:
        nonlocal sent
        time.sleep(wait_s)
        sent = time.perf_counter()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        work()
        thread.join()
        time.sleep(1)  # the signal arrives here
    except KeyboardInterrupt:
        late_s = time.perf_counter() - sent
    else:
        raise SystemExit("the signal did not arrive")
    thread.join()
    return late_s


def measure(session: Phi3Session, prompt_tokens: int, rounds: int) -> dict[str, list[float]]:
    """Interrupt both phases at different moments.

    Returns:
        The seconds from each signal to the exception, by phase: "prefill" and "decode".
    """
    prompt = [3 + index * 37 % 300 for index in range(prompt_tokens)]  # any valid ids cost the same
    session.logits(prompt)  # what is read or set up late is now
    session.reset()
    start = time.perf_counter()
    session.logits(prompt)
    prefill_s = time.perf_counter() - start

    is_done = False

    def prefill() -> None:
        nonlocal is_done
        session.logits(prompt)
        is_done = True

    def decode() -> None:
        nonlocal is_done
        session.generate(prompt[:8], temperature=0, ignore_eos=True)
        is_done = True

    found: dict[str, list[float]] = {}
    for name, work, longest_s in (("prefill", prefill, 0.8 * prefill_s), ("decode", decode, 2.0)):
        found[name] = []
        for number in range(1, rounds + 1):
            # On a machine whose speed varies the work can end before the signal: send it earlier then.
            for wait_s in (longest_s * number / rounds / 2**halvings for halvings in range(HALVINGS)):
                session.reset()
                is_done = False
                late_s = latency(work, wait_s)
                if not is_done:
                    found[name].append(late_s)
                    break
            else:
                raise SystemExit("the work ended before it was interrupted; give a longer prompt")
        session.logits(prompt[:8])  # still usable
    return found


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--prefill", type=int, default=512, metavar="TOKENS")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--executor", choices=("auto", "kernels", "candle"), default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return parser.parse_args(argv)


def main() -> None:
    """Measure, and print how late each phase stopped."""
    given = arguments()
    session = Phi3Session(given.model, executor=given.executor)
    watch = quiet.Watch(os.getpid())
    found = measure(session, given.prefill, given.rounds)
    others = watch.others()
    for name, latencies_s in found.items():
        median_ms, largest_ms = 1e3 * statistics.median(latencies_s), 1e3 * max(latencies_s)
        print(f"{name} interrupted after: median {median_ms:.0f} ms, largest {largest_ms:.0f} ms")
    if given.json:
        settings = {"prefill_tokens": given.prefill, "threads": session.n_threads, "executor": given.executor}
        results = {f"{name}_s": latencies_s for name, latencies_s in found.items()}
        made = record.make(
            "interrupt", given.model, settings=settings, rounds=given.rounds, results=results, others=others
        )
        record.write(given.json, made)


if __name__ == "__main__":
    main()
