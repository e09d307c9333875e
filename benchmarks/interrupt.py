"""Measures how long Ctrl-C takes, during the prefill of a long prompt and while tokens are generated.

    python benchmarks/interrupt.py MODEL.gguf --prefill 512 --rounds 5

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
from typing import TYPE_CHECKING, Any

from candle_phi import Phi3Session

if TYPE_CHECKING:
    from collections.abc import Callable


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
    except KeyboardInterrupt:
        return time.perf_counter() - sent
    finally:
        thread.join()
    raise SystemExit("the work was done before it was interrupted; give a longer prompt")


def main() -> None:
    """Interrupts both phases at different moments, and prints how late each one stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--prefill", type=int, default=512, metavar="TOKENS")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--executor", choices=("auto", "kernels", "candle"))
    arguments = parser.parse_args()
    options: dict[str, Any] = {"executor": arguments.executor} if arguments.executor else {}
    session = Phi3Session(arguments.model, **options)
    prompt = [3 + index * 37 % 300 for index in range(arguments.prefill)]  # any valid ids cost the same
    session.logits(prompt)  # what is read or set up late is now
    session.reset()
    start = time.perf_counter()
    session.logits(prompt)
    prefill_s = time.perf_counter() - start

    def prefill() -> None:
        session.logits(prompt)

    def decode() -> None:
        session.generate(prompt[:8], temperature=0, ignore_eos=True)

    for name, work, longest_s in (("prefill", prefill, 0.8 * prefill_s), ("decode", decode, 2.0)):
        latencies = []
        for number in range(1, arguments.rounds + 1):
            session.reset()
            latencies.append(latency(work, longest_s * number / arguments.rounds))
        session.logits(prompt[:8])  # still usable
        median, largest = statistics.median(latencies), max(latencies)
        print(f"{name} interrupted after: median {1e3 * median:.0f} ms, largest {1e3 * largest:.0f} ms")


if __name__ == "__main__":
    main()
