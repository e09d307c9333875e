import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from candle_phi import (
    GenerationConfig,
    InferenceError,
    Phi3Model,
    Phi3Session,
    SessionBusyError,
    SessionClosedError,
)

GREEDY = GenerationConfig.greedy(max_tokens=24)
PROMPTS = ["one two", "Write a haiku about ice hockey", "hello", "say puck", "count to five", "winter"]


class Counter:
    """Counts in a thread while the test does something else."""

    def __enter__(self):
        self.count = 0
        self.longest_pause_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        while self.count == 0:
            time.sleep(0.001)
        return self

    def _run(self):
        last = time.monotonic()
        while not self._stop.is_set():
            self.count += 1
            now = time.monotonic()
            self.longest_pause_s = max(self.longest_pause_s, now - last)
            last = now
            time.sleep(0.001)

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


@pytest.mark.parametrize("work", ["load", "score", "logits", "generate", "stream"])
def test_another_thread_goes_on_while_the_session_works(slow_path, work):
    with Phi3Session(slow_path, n_ctx=8192) as session, Counter() as counter:
        started, before = time.monotonic(), counter.count
        if work == "load":
            for _ in range(5):
                Phi3Model(slow_path, mmap=False)
        elif work == "score":
            session.score([1] * 1000)
        elif work == "logits":
            session.logits([1] * 1500)
        elif work == "generate":
            session.generate([1] * 1000, max_tokens=5, ignore_eos=True)
        else:
            list(session.stream([1] * 1000, max_tokens=5, ignore_eos=True))
        wall_s, counted = time.monotonic() - started, counter.count - before
    print(f"{work}: {counted} counted in {wall_s:.2f} s, longest pause {counter.longest_pause_s * 1000:.0f} ms")
    # One that held the interpreter would let the other count a handful of times.
    assert counted >= 10 * wall_s


def test_sessions_on_one_model_run_side_by_side(model):
    def answer(prompt):
        with Phi3Session(model=model) as session:
            return [session.generate(prompt, GREEDY).tokens, session.chat(prompt, GREEDY).tokens]

    expected = [answer(prompt) for prompt in PROMPTS]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(answer, PROMPTS * 3)) == expected * 3
    finally:
        sys.setswitchinterval(interval)


def test_one_session_in_two_threads_is_busy_in_one(slow_path):
    with Phi3Session(slow_path, n_ctx=8192) as session, ThreadPoolExecutor(1) as threads:
        running = threads.submit(session.score, [1] * 1500)
        time.sleep(0.2)
        assert not running.done()
        for call in (lambda: session.score([1, 2]), lambda: session.generate([1]), session.reset):
            with pytest.raises(SessionBusyError, match="another thread"):
                call()
        assert len(running.result()) == 1499
        assert len(session.score([1, 2])) == 1


def test_a_stream_is_not_disturbed_by_calls_that_are_refused(session, model):
    with Phi3Session(model=model) as other:
        expected = other.generate("hello", temperature=0, ignore_eos=True, max_tokens=100).tokens
    stop, refused = threading.Event(), []

    def call():
        while not stop.is_set():
            try:
                session.score([1, 2, 3])
            except SessionBusyError as error:
                refused.append(error)

    stream = session.stream("hello", temperature=0, ignore_eos=True, max_tokens=100)
    next(stream)
    thread = threading.Thread(target=call)
    thread.start()
    try:
        while not refused:
            time.sleep(0.001)
        for _ in range(98):
            next(stream)
    finally:
        stop.set()
        thread.join()
    list(stream)
    assert stream.result.tokens == expected
    assert refused


def test_a_stream_can_wander_between_threads(session):
    expected = session.generate("hello", GREEDY, ignore_eos=True).tokens
    stream = session.stream("hello", GREEDY, ignore_eos=True)
    tokens = []
    with ThreadPoolExecutor(1) as threads:
        while (chunk := threads.submit(next, stream, None).result()) is not None:
            tokens.append(chunk.token_id)
            if (chunk := next(stream, None)) is not None:
                tokens.append(chunk.token_id)
    assert [token for token in tokens if token is not None] == expected


def test_closing_from_another_thread_stops_the_work(slow_path):
    for call in ("score", "generate"):
        session = Phi3Session(slow_path, n_ctx=8192)
        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(getattr(session, call), [1] * 8000)
            time.sleep(0.3)
            assert not running.done()
            started = time.monotonic()
            session.close()
            print(f"{call}: closed within {(time.monotonic() - started) * 1000:.0f} ms")
            with pytest.raises(SessionClosedError):
                running.result()


def test_a_session_that_fails_in_a_thread_fails_there(model):
    def fail():
        with Phi3Session(model=model, n_ctx=4) as session:
            session.score([1] * 5)

    with ThreadPoolExecutor(1) as threads, pytest.raises(ValueError, match="context") as caught:
        threads.submit(fail).result()
    assert not isinstance(caught.value, InferenceError)


def test_daemon_threads_at_work_do_not_keep_the_process_from_its_end(tmp_path, slow_path):
    import subprocess

    script = f"""
import threading, time
from candle_phi import Phi3Session
session = Phi3Session({str(slow_path)!r}, n_ctx=8192)
threading.Thread(target=session.score, args=([1] * 8000,), daemon=True).start()
time.sleep(0.3)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


FORK = """
import os, sys, threading
from candle_phi import GenerationConfig, InferenceError, Phi3Session

GREEDY = GenerationConfig.greedy(max_tokens=24, ignore_eos=True)
PROMPTS = ["Write a haiku about ice hockey", "Count from 3 to 7"]
"""
FORKED = {
    "goes on": """
session = Phi3Session.demo(n_threads=3)
expected = [session.generate(prompt, GREEDY).tokens for prompt in PROMPTS]
def child():
    return [session.generate(prompt, GREEDY).tokens for prompt in PROMPTS] == expected
""",
    "goes on with a prompt that is half cached": """
session = Phi3Session.demo(n_threads=2)
expected = session.generate(PROMPTS[0] + " and one about snow", GREEDY).tokens
session.generate(PROMPTS[0], GREEDY)
def child():
    return session.generate(PROMPTS[0] + " and one about snow", GREEDY).tokens == expected
""",
    "goes on with a stream": """
session = Phi3Session.demo(n_threads=2)
expected = session.generate(PROMPTS[0], GREEDY).tokens
stream = session.stream(PROMPTS[0], GREEDY)
first = [next(stream).token_id for _ in range(5)]
def child():
    tokens = first + [chunk.token_id for chunk in stream]
    return [token for token in tokens if token is not None] == expected
""",
    "opens a session of its own": """
session = Phi3Session.demo(n_threads=4)
expected = session.generate(PROMPTS[0], GREEDY).tokens
def child():
    return all(
        own.generate(PROMPTS[0], GREEDY).tokens == expected
        for own in [Phi3Session(model=session.model, n_threads=4), Phi3Session.demo(n_threads=2)]
    )
""",
    "computes in threads": """
from concurrent.futures import ThreadPoolExecutor
session = Phi3Session.demo(n_threads=2)
expected = [session.generate(prompt, GREEDY).tokens for prompt in PROMPTS]
def answer(prompt):
    return Phi3Session(model=session.model, n_threads=2).generate(prompt, GREEDY).tokens
def child():
    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(answer, PROMPTS)) == expected
""",
    "forks again": """
session = Phi3Session.demo(n_threads=2)
expected = session.generate(PROMPTS[0], GREEDY).tokens
def child():
    grandchild = os.fork()
    same = session.generate(PROMPTS[0], GREEDY).tokens == expected
    if grandchild == 0:
        os._exit(0 if same else 4)
    return same and os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) == 0
""",
    "is forked while another thread computes": """
session, other = Phi3Session.demo(n_threads=2), Phi3Session.demo(n_threads=2)
expected = session.generate(PROMPTS[0], GREEDY).tokens
stop = threading.Event()
def busy():
    while not stop.is_set():
        other.score(list(range(3, 200)))
thread = threading.Thread(target=busy)
thread.start()
def child():
    return session.generate(PROMPTS[0], GREEDY).tokens == expected
""",
    "is told so by Candle": """
session = Phi3Session.demo(executor="candle")
session.generate("hello", max_tokens=1)
def child():
    try:
        session.generate("hello", max_tokens=1)
    except InferenceError as error:
        return "spawn" in str(error) and "kernels" in str(error)
    return False
""",
    "uses the kernels beside Candle": """
session = Phi3Session.demo(executor="candle")
expected = session.generate(PROMPTS[0], GREEDY).tokens
def child():
    return Phi3Session.demo(executor="kernels").generate(PROMPTS[0], GREEDY).tokens == expected
""",
}
AND_THEN = """
for _ in range(REPEAT):
    process = os.fork()
    if process == 0:
        code = 3
        try:
            code = 0 if child() else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
if "stop" in globals():
    stop.set()
    thread.join()
if "stream" in globals():
    stream.close()
session.generate("hello", max_tokens=1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("forked", FORKED)
def test_a_process_that_was_forked(forked):
    """It computes the same, or says why it can't, and it never hangs; the one that forked goes on."""
    times = 10 if "another thread" in forked else 1
    script = FORK + FORKED[forked] + AND_THEN.replace("REPEAT", str(times))
    # From Python 3.12 on, to fork beside threads is a warning.
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script],
        check=False,
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
