"""Saving or loading that fails, is interrupted or dies leaves file and session as they were."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from candle_phi import GenerationConfig, InferenceError, Phi3Session

pytestmark = pytest.mark.thread_unsafe(reason="what stands beside the file is counted, and two would write to it")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits and memory are Linux's")


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "talk.phi"


CACHED_BYTES = 300 * 2 * 12 * 16 * 128 * 2
PRELUDE = """
import json, os, resource, signal, sys, threading
from pathlib import Path
from candle_phi import ConversationFileError, GenerationConfig, Phi3Session

model, file = sys.argv[1], Path(sys.argv[2])
ids = [1 + i for i in range(300)]
one = GenerationConfig.greedy(max_tokens=1)
session = Phi3Session(model, n_threads=1)

def resident_bytes():
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) * 1024

def is_being_written():
    return any(path.suffix == ".tmp" for path in file.parent.iterdir())

def wait_until(happens):
    while not happens():
        pass
"""


def run(script, *arguments, returncode=0):
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == returncode, done.stderr
    return json.loads(done.stdout) if done.stdout else None


@linux
def test_a_disk_that_is_full_leaves_the_old_file(wide_path, file):
    found = run(
        """
session.generate(ids[:4], one)
session.save(file)
old = file.read_bytes()
session.generate(ids, one)
resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, resource.RLIM_INFINITY))
try:
    session.save(file)
    error = None
except ConversationFileError as raised:
    error = str(raised)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
same = file.read_bytes() == old, len(list(file.parent.iterdir()))
session.save(file)
print(json.dumps([error, *same, session.generate(ids, one).usage.cached_tokens]))
""",
        wide_path,
        file,
    )
    error, is_old, files, cached_tokens = found
    assert str(file) in error
    assert (is_old, files, cached_tokens) == (True, 1, 299)


@linux
def test_a_process_that_dies_while_it_saves_leaves_the_old_file(wide_path, file):
    # The system kills it with a signal that Python ignores otherwise, at a byte in the middle of the file.
    run(
        """
session.generate(ids[:4], one)
session.save(file)
session.generate(ids, one)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, resource.RLIM_INFINITY))
session.save(file)
""",
        wide_path,
        file,
        returncode=-signal.SIGXFSZ,
    )
    with Phi3Session(wide_path) as session:
        session.load(file)
        usage = session.generate([1 + i for i in range(300)], GenerationConfig.greedy(max_tokens=1)).usage
        assert usage.cached_tokens == 4


@linux
@pytest.mark.parametrize("call", ["save", "load"])
def test_ctrl_c_stops_it_and_leaves_all_as_it_was(wide_path, file, call):
    found = run(
        f"""
session.generate(ids, one)
session.save(file)
whole = file.read_bytes()
session.generate(ids[:4], one)

def interrupt():
    # While the call is on its way: the file that it writes is there, or the one that it reads is open.
    descriptors = Path("/proc/self/fd")
    def is_open():
        return any(os.path.realpath(each) == str(file.resolve()) for each in descriptors.iterdir())
    wait_until(is_being_written if {call == "save"} else is_open)
    os.kill(os.getpid(), signal.SIGINT)

# It may be done before the signal arrives: then once more.
for attempt in range(50):
    thread = threading.Thread(target=interrupt, daemon=True)
    if {call == "save"}:
        session.generate(ids, one)
    try:
        thread.start()
        session.{call}(file)
        thread.join()
        interrupted = False
    except KeyboardInterrupt:
        thread.join()
        interrupted = True
        break
    session.generate(ids[:4], one)
files = sorted(path.name for path in file.parent.iterdir())
same = file.read_bytes() == whole
usable = session.generate(ids[:6], one).usage.cached_tokens
session.load(file)
print(json.dumps([interrupted, files, same, usable, session.generate(ids, one).usage.cached_tokens]))
""",
        wide_path,
        file,
    )
    interrupted, files, same, usable, cached_tokens = found
    assert interrupted
    assert files == [file.name]
    assert same
    assert usable == (5 if call == "save" else 4)
    assert cached_tokens == 299


@linux
def test_saving_goes_on_beside_other_threads_and_takes_little_memory(wide_path, file):
    found = run(
        """
session.generate(ids, one)
session.save(file)
before, seen = resident_bytes(), []

def watch():
    wait_until(is_being_written)
    while is_being_written():
        seen.append(resident_bytes() - before)

thread = threading.Thread(target=watch)
thread.start()
session.save(file)
thread.join()
print(json.dumps([len(seen), max(seen), file.stat().st_size]))
""",
        wide_path,
        file,
    )
    steps, grown_bytes, file_bytes = found
    print(found)
    assert steps > 0
    assert file_bytes > CACHED_BYTES
    # A few megabytes of buffers, and not the cache again.
    assert grown_bytes < CACHED_BYTES / 4


def again_and_again(call, file):
    while True:
        call(file)


def test_cancel_from_another_thread_stops_it(wide_path, file):
    with Phi3Session(wide_path) as session:
        session.generate([1 + i for i in range(300)], GenerationConfig.greedy(max_tokens=1))
        session.save(file)
        done = threading.Event()

        def cancel_until_done():
            while not done.is_set():
                session.cancel()

        thread = threading.Thread(target=cancel_until_done)
        thread.start()
        try:
            for call in (session.save, session.load):
                with pytest.raises(InferenceError):
                    again_and_again(call, file)
        finally:
            done.set()
            thread.join()
        session.load(file)
