"""Holds memory against the context: the cache must take what its tokens need, not what ``n_ctx`` allows.

    python benchmarks/context_memory.py MODEL.gguf --n-ctx 512 4096

For each ``n_ctx``, in a process of its own: loads, reads a prompt of 64 tokens, generates 8, and prints one
``name value`` a line. ``grown_mb`` is the memory that the process took for these tokens, ``cache_mb`` what the
cache of the tokens that are there needs, and ``full_cache_mb`` what one of ``n_ctx`` tokens would. The weights are
not in it: a token computed before makes Candle's copy of them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import worker
from candle_phi import Phi3Session


def measure(model: Path, n_ctx: int, prompt_tokens: int, new_tokens: int) -> None:
    """Measures one context length, and prints."""
    start = time.perf_counter()
    session = Phi3Session(model, n_ctx=n_ctx)
    print(f"load_s {time.perf_counter() - start:.2f}")
    session.generate([1, 2], max_tokens=2, temperature=0, ignore_eos=True)
    session.reset()
    before = worker.memory()
    prompt = [1 + index * 37 % 300 for index in range(prompt_tokens)]  # any valid ids cost the same
    completion = session.generate(prompt, max_tokens=new_tokens, temperature=0, ignore_eos=True)
    done = worker.memory()
    info = session.model.info
    values = {
        "tokens": prompt_tokens + len(completion.tokens),
        "prefill_tokens_per_second": completion.timings.prefill_tokens_per_second,
        "decode_tokens_per_second": completion.timings.decode_tokens_per_second,
        "before_anonymous_mb": before["anonymous"] / 1e6,
        "before_file_backed_mb": before["file_backed"] / 1e6,
        "grown_mb": (done["anonymous"] - before["anonymous"]) / 1e6,
        "grown_file_backed_mb": (done["file_backed"] - before["file_backed"]) / 1e6,
        "cache_mb": info.kv_cache_bytes(prompt_tokens + new_tokens, "f16") / 1e6,
        "full_cache_mb": info.kv_cache_bytes(n_ctx, "f16") / 1e6,
        "resident_mb": done["resident"] / 1e6,
    }
    for name, value in values.items():
        print(f"{name} {value:.1f}")


def main() -> None:
    """Starts a process for each context length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--n-ctx", type=int, nargs="+", default=[512, 4096])
    parser.add_argument("--prefill", type=int, default=64, metavar="TOKENS")
    parser.add_argument("--decode", type=int, default=8, metavar="TOKENS")
    arguments = parser.parse_args()
    if len(arguments.n_ctx) == 1:
        measure(arguments.model, arguments.n_ctx[0], arguments.prefill, arguments.decode)
        return
    for n_ctx in arguments.n_ctx:
        print(f"n_ctx {n_ctx}", flush=True)
        rest = ["--prefill", str(arguments.prefill), "--decode", str(arguments.decode)]
        subprocess.run([sys.executable, __file__, str(arguments.model), "--n-ctx", str(n_ctx), *rest], check=True)


if __name__ == "__main__":
    main()
