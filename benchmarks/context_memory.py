"""Compare memory with the context: the cache must take what its tokens need, not what ``n_ctx`` allows.

    python benchmarks/context_memory.py MODEL.gguf --n-ctx 512 4096 --json context-memory.json

For each ``n_ctx``, in a process of its own: load, read a prompt of 64 tokens, generate 8. ``grown`` is the
anonymous memory that the process took for these tokens, ``cache`` what their keys and values need, and
``full cache`` what those of ``n_ctx`` tokens would need. The weights are not in it: a token computed before makes
Candle's copy of them.
"""

from __future__ import annotations

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import record
import worker
from candle_phi import Phi3Session


def measure(model: Path, n_ctx: int, prompt_tokens: int, new_tokens: int) -> dict[str, int]:
    """Measure one context length, in bytes. The process must not have loaded a model before."""
    with Phi3Session(model, n_ctx=n_ctx) as session:
        session.generate([1, 2], max_tokens=2, temperature=0, ignore_eos=True)
        session.reset()
        before = worker.memory()
        prompt = [1 + index * 37 % 300 for index in range(prompt_tokens)]  # any valid ids cost the same
        session.generate(prompt, max_tokens=new_tokens, temperature=0, ignore_eos=True)
        after = worker.memory()
        info = session.model.info
    return {
        "before_anonymous": before["anonymous"],
        "before_file_backed": before["file_backed"],
        "grown": after["anonymous"] - before["anonymous"],
        "grown_file_backed": after["file_backed"] - before["file_backed"],
        "resident": after["resident"],
        "cache": info.kv_cache_bytes(prompt_tokens + new_tokens, "f16"),
        "full_cache": info.kv_cache_bytes(n_ctx, "f16"),
    }


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--n-ctx", type=int, nargs="+", default=[512, 4096])
    parser.add_argument("--prefill", type=int, default=64, metavar="TOKENS")
    parser.add_argument("--decode", type=int, default=8, metavar="TOKENS")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return parser.parse_args(argv)


def main() -> None:
    """Measure in a new process for each context length and round, and print."""
    given = arguments()
    results: dict[str, list[dict[str, int]]] = {str(n_ctx): [] for n_ctx in given.n_ctx}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn, max_tasks_per_child=1) as processes:
        for number in range(1, given.rounds + 1):
            for n_ctx in given.n_ctx:
                found = processes.submit(measure, given.model, n_ctx, given.prefill, given.decode).result()
                results[str(n_ctx)].append(found)
                sizes = ", ".join(f"{name.replace('_', ' ')} {size / 1e6:.1f} MB" for name, size in found.items())
                print(f"round {number}, n_ctx {n_ctx}: {sizes}", flush=True)
    if given.json:
        settings = {"prompt_tokens": given.prefill, "new_tokens": given.decode, "kv_dtype": "f16"}
        record.write(
            given.json,
            record.make("context_memory", given.model, settings=settings, rounds=given.rounds, results=results),
        )


if __name__ == "__main__":
    main()
