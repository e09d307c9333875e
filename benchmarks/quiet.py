"""Whether other programs are at work on the machine, by the system's own counts of processor time (Linux)."""

from __future__ import annotations

import os
import time
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def _busy_s() -> float | None:
    """Processor seconds that were used since the start, of all cores, with what other guests of the host took."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _idle, _wait, irq, soft_irq, steal = map(int, fields[:8])
    return (user + nice + system + irq + soft_irq + steal) / _TICKS_PER_S


def _own_s(pid: int) -> float:
    """Processor seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


class Watch:
    """What share of the machine others took while a process worked: 0 for none, 1 for all of it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.start = time.perf_counter()
        self.busy = _busy_s()
        self.own = 0.0 if self.busy is None else _own_s(pid)

    def others(self) -> float:
        """The share since the watch was made; 0 where the system does not say."""
        busy = _busy_s()
        if self.busy is None or busy is None:
            return 0.0
        used = busy - self.busy - (_own_s(self.pid) - self.own)
        return max(0.0, used / ((time.perf_counter() - self.start) * (os.cpu_count() or 1)))


def wait(at_most_s: float, share: float = 0.05) -> float:
    """Waits until the machine does next to nothing, and says how long that was; not longer than `at_most_s`."""
    start = time.perf_counter()
    while True:
        watch = Watch(os.getpid())
        time.sleep(0.3)
        waited = time.perf_counter() - start
        if watch.others() < share or waited >= at_most_s:
            return waited
