"""Measures this package on one file: load, prefill, decode, memory.

    python benchmarks/package.py MODEL.gguf --prefill 64 --decode 8

Prints one ``name value`` a line, as ``rust/engine/examples/plain_candle.rs`` does for Candle alone.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from candle_phi import Phi3Session


def memory_mb() -> dict[str, float]:
    """Resident memory now and at its peak, in MB; empty where there is no /proc."""
    rollup, status = Path("/proc/self/smaps_rollup"), Path("/proc/self/status")
    if not rollup.exists():
        return {}
    fields = {}
    for line in (rollup.read_text() + status.read_text()).splitlines():
        name, _, value = line.partition(":")
        if value.strip().endswith("kB"):
            fields[name] = int(value.split()[0]) / 1e3
    return {
        "peak_rss_mb": fields["VmHWM"],
        "rss_anon_mb": fields["Anonymous"],
        "rss_file_mb": fields["Rss"] - fields["Anonymous"],
    }


def main() -> None:
    """Measures, and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--prefill", type=int, default=64, metavar="TOKENS")
    parser.add_argument("--decode", type=int, default=8, metavar="TOKENS")
    arguments = parser.parse_args()

    start = time.perf_counter()
    session = Phi3Session(arguments.model)
    print(f"load_s {time.perf_counter() - start:.2f}")
    prompt = [1 + index * 37 % 300 for index in range(arguments.prefill)]  # any valid ids cost the same
    # The first call pays for what is set up or read late; the second shows the steady rate.
    first = session.generate(prompt, max_tokens=1, temperature=0, ignore_eos=True)
    session.reset()
    second = session.generate(prompt, max_tokens=arguments.decode + 1, temperature=0, ignore_eos=True)
    print(f"first_prefill_tokens_per_second {first.timings.prefill_tokens_per_second:.2f}")
    print(f"prefill_tokens_per_second {second.timings.prefill_tokens_per_second:.2f}")
    print(f"decode_tokens_per_second {second.timings.decode_tokens_per_second:.2f}")
    for name, megabytes in memory_mb().items():
        print(f"{name} {megabytes:.0f}")


if __name__ == "__main__":
    main()
