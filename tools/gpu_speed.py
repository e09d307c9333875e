"""Measures a GPU on a file in Phi-3-mini's shape: prefill, decode, two sessions at once, how soon it stops.

    python tools/gpu_speed.py [--device cuda:0] [--rounds 3] [FILE.gguf]

Without a file it writes one of random weights into a temporary folder, 2.4 GB. tools/gpu_check.sh calls it.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from candle_phi import GenerationConfig, Phi3Model, Phi3Session
from candle_phi.bench import bench

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import gguf

import synthetic


def main() -> None:
    """Measures, and prints as it goes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.file or Path(folder) / "phi-3-mini-q4_k_m.gguf"
        if options.file is None:
            started = time.monotonic()
            synthetic.write(path, "phi-3-mini-4k", "q4_k_m")
            print(f"wrote {path.stat().st_size / 1e9:.2f} GB in {time.monotonic() - started:.0f} s")
        speeds(path, options.device, options.rounds)
        model = Phi3Model(path, device=options.device)
        side_by_side(model)
        latency(model)


def weight_bytes_per_token(path: Path) -> int:
    """What a generated token reads at least: all weights but the embedding, of which it is one row."""
    tensors = gguf.GGUFReader(path).tensors
    return sum(tensor.n_bytes for tensor in tensors if tensor.name != "token_embd.weight")


def speeds(path: Path, device: str, rounds: int) -> None:
    """Prefill by the length of the prompt, decode by what is in the context."""
    weight_bytes = weight_bytes_per_token(path)
    report = bench(path, device=device, prefill=(64, 512, 2048), depth=(0, 1000, 3500), rounds=rounds)
    print(f"load {report.load_s.median:.1f} s, open to first token {report.open_to_first_token_s.median:.1f} s")
    for prefill in report.prefill:
        print(f"prefill of {prefill.tokens}: {prefill.tokens_per_second.median:.0f} tokens/s")
    for decode in report.decode:
        speed = decode.tokens_per_second
        bandwidth = speed.median * weight_bytes / 1e9
        print(
            f"decode at {decode.depth}: {speed.median:.1f} tokens/s ({speed.min:.1f} to {speed.max:.1f}), "
            f"{1000 / speed.median:.2f} ms each, {bandwidth:.0f} GB/s of weights"
        )


def prompt_of(tokens: int, seed: int) -> list[int]:
    """A prompt that has nothing in common with another."""
    generator = random.Random(seed)
    return [generator.randrange(3, 30_000) for _ in range(tokens)]


def side_by_side(model: Phi3Model) -> None:
    """Two threads, each with a session, against one."""
    config = GenerationConfig.greedy(max_tokens=100, ignore_eos=True)
    for n_threads in (1, 2):
        sessions = [Phi3Session(model=model) for _ in range(n_threads)]
        for number, session in enumerate(sessions):
            session.generate(prompt_of(50, number), max_tokens=2, temperature=0)
        threads = [
            threading.Thread(target=session.generate, args=(prompt_of(50, number), config))
            for number, session in enumerate(sessions)
        ]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed_s = time.perf_counter() - started
        print(f"{n_threads} threads: {100 * n_threads / elapsed_s:.1f} tokens/s together")
        for session in sessions:
            session.close()


def latency(model: Phi3Model) -> None:
    """How long a prompt goes on after it was cancelled."""
    late_s = []
    for number in range(5):
        prompt = prompt_of(4000, 100 + number)
        with Phi3Session(model=model, n_ctx=4096) as session:
            begins = threading.Event()
            stopped: list[float] = []

            def read(
                session: Phi3Session = session,
                prompt: list[int] = prompt,
                begins: threading.Event = begins,
                stopped: list[float] = stopped,
            ) -> None:
                begins.set()
                session.generate(prompt, max_tokens=1)
                stopped.append(time.perf_counter())

            thread = threading.Thread(target=read)
            thread.start()
            begins.wait()
            time.sleep(0.05 + 0.01 * number)
            cancelled = time.perf_counter()
            session.cancel()
            thread.join()
            late_s.append(stopped[0] - cancelled)
    median_ms, most_ms = 1000 * statistics.median(late_s), 1000 * max(late_s)
    print(f"a prompt stopped {median_ms:.0f} ms after it was cancelled, at most {most_ms:.0f} ms")


if __name__ == "__main__":
    main()
