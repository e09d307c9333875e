"""Memory does not grow with what was done and is over: measured in a process of its own."""

import subprocess
import sys

import pytest

SCRIPT = """
import gc
from pathlib import Path
from candle_phi import Phi3Model, Phi3Session

def resident_mb():
    gc.collect()
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024

session = Phi3Session.demo(n_threads=1)
session.chat("Hello", max_tokens=8, seed=1)
{work}
for _ in range({first}):
    once()
before = resident_mb()
for _ in range({then}):
    once()
print(resident_mb() - before)
"""
WORK = {
    "short generations": ("def once(): session.generate('hello', max_tokens=4, ignore_eos=True)", 200, 1000),
    "forks": ("def once():\n    fork = session.fork()\n    fork.chat('Hello', max_tokens=2)", 40, 200),
    "loads": ("def once(): Phi3Session.demo(n_threads=1).generate('hello', max_tokens=2)", 10, 50),
    "turns that are taken back": (
        "def once():\n    session.chat('Hello', max_tokens=4)\n    session.rewind()",
        100,
        400,
    ),
    "streams that are left": ("def once(): next(session.stream('hello', ignore_eos=True))", 100, 500),
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the memory is read from /proc")
@pytest.mark.parametrize("what", WORK)
def test_memory_does_not_grow(what):
    work, first, then = WORK[what]
    script = SCRIPT.format(work=work, first=first, then=then)
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=300)
    grown_mb = float(done.stdout)
    print(f"{then} {what}: {grown_mb:+.2f} MB")
    # A cache that was lost each time would be some hundred kilobytes each; allocators keep a little.
    assert grown_mb < 8
