"""Shows that a program goes on while a model computes: an asyncio task and a thread beat every few milliseconds.

    python benchmarks/heartbeat.py MODEL.gguf --prefill 512 --interval-ms 5

For each way to compute it says how many beats there was time for, how many there were, and the longest gap
between two. A machine that does nothing misses beats too, so some seconds of sleep come first.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import threading
import time
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import quiet
import record
from candle_phi import Phi3Model, Phi3Session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@dataclass
class Heart:
    """Beats that were due at multiples of an interval, and when they came."""

    interval_s: float
    beats_s: list[float] = field(default_factory=list)
    is_over: bool = False

    def pause_s(self) -> float:
        """Beats, and says how long it is until the next one is due. What was missed is not made up for."""
        now = time.perf_counter()
        self.beats_s.append(now)
        pause_s = self.interval_s - now % self.interval_s
        # One that came a moment early is not beaten twice.
        return pause_s if pause_s > self.interval_s / 10 else pause_s + self.interval_s

    async def in_a_task(self) -> None:
        """Beats in the event loop."""
        while not self.is_over:  # noqa: ASYNC110 # it is the sleeping that is measured
            await asyncio.sleep(self.pause_s())

    def in_a_thread(self) -> None:
        """Beats in a thread."""
        while not self.is_over:
            time.sleep(self.pause_s())


@dataclass(frozen=True)
class Pulse:
    """What became of a heart while something else went on.

    Attributes:
        while_: What went on.
        heart: What beat: "task" or "thread".
        seconds: How long it took.
        expected: Beats that there was time for.
        had: Beats that there were.
        longest_gap_s: The longest time without a beat, those at both ends included.
    """

    while_: str
    heart: str
    seconds: float
    expected: int
    had: int
    longest_gap_s: float

    @classmethod
    def of(cls, while_: str, heart: str, beating: Heart, start_s: float, end_s: float) -> Pulse:
        """The pulse between two moments."""
        beats = [beat for beat in beating.beats_s if start_s <= beat <= end_s]
        edges = [start_s, *beats, end_s]
        gaps = [later - earlier for earlier, later in pairwise(edges)]
        expected = int(end_s / beating.interval_s) - int(start_s / beating.interval_s)
        return cls(while_, heart, end_s - start_s, expected, len(beats), max(gaps))


async def pulses(name: str, work: Callable[[], Awaitable[object]], interval_s: float) -> list[Pulse]:
    """Lets both hearts beat while some work is waited for."""
    task_heart, thread_heart = Heart(interval_s), Heart(interval_s)
    thread = threading.Thread(target=thread_heart.in_a_thread)
    thread.start()
    task = asyncio.create_task(task_heart.in_a_task())
    await asyncio.sleep(20 * interval_s)  # both beat
    start_s = time.perf_counter()
    try:
        await work()
    finally:
        end_s = time.perf_counter()
        task_heart.is_over = thread_heart.is_over = True
        await task
        thread.join()
    return [
        Pulse.of(name, "task", task_heart, start_s, end_s),
        Pulse.of(name, "thread", thread_heart, start_s, end_s),
    ]


def text_of(session: Phi3Session, tokens: int) -> str:
    """A text that is about so many tokens of a chat."""
    words = ["hello"]
    while session.count_tokens(" ".join(words)) < tokens:
        words += words
    low, high = 1, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        fits = session.count_tokens(" ".join(words[:middle])) <= tokens
        low, high = (middle, high) if fits else (low, middle - 1)
    return " ".join(words[:low])


async def measure(
    model: Phi3Model, prefill_tokens: int, interval_s: float, options: dict[str, Any]
) -> list[Pulse]:
    """Every way to compute, one after the other, each from an empty context."""
    session = Phi3Session(model=model, n_ctx=prefill_tokens + 64, **options)
    prompt = [3 + index * 37 % 300 for index in range(prefill_tokens)]  # any valid ids cost the same
    text = text_of(session, prefill_tokens)
    start_s = time.perf_counter()
    session.generate(prompt, max_tokens=1, ignore_eos=True)  # what is read or set up late is now
    computing_s = time.perf_counter() - start_s

    async def agenerate() -> None:
        await session.agenerate(prompt, max_tokens=1, ignore_eos=True)

    async def achat_stream() -> None:
        async with session.achat_stream(text, max_tokens=1, ignore_eos=True) as stream:
            async for _ in stream:
                pass

    async def in_a_thread() -> None:
        await asyncio.to_thread(session.generate, prompt, max_tokens=1, ignore_eos=True)

    found = await pulses("nothing", lambda: asyncio.sleep(min(computing_s, 10.0)), interval_s)
    for name, work in (
        ("agenerate", agenerate),
        ("achat_stream", achat_stream),
        ("generate in a thread", in_a_thread),
    ):
        session.reset()
        found += await pulses(name, work, interval_s)
    session.close()
    return found


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--prefill", type=int, default=512, metavar="TOKENS")
    parser.add_argument("--interval-ms", type=float, default=5.0)
    parser.add_argument("--n-threads", type=int)
    parser.add_argument("--executor", choices=("auto", "kernels", "candle"), default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return parser.parse_args(argv)


def main() -> None:
    """Measure, and print a table."""
    given = arguments()
    model = Phi3Model(given.model, executor=given.executor)
    options = {"n_threads": given.n_threads} if given.n_threads else {}
    watch = quiet.Watch(os.getpid())
    found = asyncio.run(measure(model, given.prefill, given.interval_ms / 1e3, options))
    others = watch.others()
    print(f"{'while':22}{'heart':8}{'seconds':>9}{'expected':>10}{'had':>7}{'share':>8}{'longest gap':>14}")
    for pulse in found:
        share = pulse.had / pulse.expected if pulse.expected else 0.0
        print(
            f"{pulse.while_:22}{pulse.heart:8}{pulse.seconds:9.2f}{pulse.expected:10}{pulse.had:7}{share:8.1%}"
            f"{1e3 * pulse.longest_gap_s:11.1f} ms"
        )
    if given.json:
        settings = {
            "prefill_tokens": given.prefill,
            "interval_ms": given.interval_ms,
            "threads": given.n_threads,
            "executor": given.executor,
        }
        results = [asdict(pulse) for pulse in found]
        made = record.make("heartbeat", given.model, settings=settings, rounds=1, results=results, others=others)
        record.write(given.json, made)


if __name__ == "__main__":
    main()
