"""Measures how long Ctrl-C takes during the prefill of a long prompt.

python benchmarks/interrupt.py MODEL.gguf --prefill 512 --rounds 5
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import threading
import time
from pathlib import Path

from candle_phi import Phi3Session


def main() -> None:
    """Interrupts prefills at different moments, and prints how late each one stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--prefill", type=int, default=512, metavar="TOKENS")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    session = Phi3Session(arguments.model)
    prompt = [1 + index * 37 % 300 for index in range(arguments.prefill)]
    session.logits(prompt[:8])  # what is set up late is set up now
    latencies = []
    for index in range(arguments.rounds):
        sent = 0.0

        def interrupt(wait: float = 1.5 + 0.37 * index) -> None:
            nonlocal sent
            time.sleep(wait)
            sent = time.perf_counter()
            os.kill(os.getpid(), signal.SIGINT)

        session.reset()
        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            session.logits(prompt)
        except KeyboardInterrupt:
            latencies.append(time.perf_counter() - sent)
        else:
            raise SystemExit("the prompt was done before it was interrupted; give a longer one")
        thread.join()
    session.logits(prompt[:8])  # still usable
    print(f"interrupted_after_s median {statistics.median(latencies):.3f}, largest {max(latencies):.3f}")


if __name__ == "__main__":
    main()
