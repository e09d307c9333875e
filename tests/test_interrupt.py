"""Ctrl-C. Each script runs in a process of its own, which interrupts itself from a second thread."""

import json
import subprocess
import sys

import pytest

PRELUDE = """
import itertools, json, os, signal, sys, threading, time
from candle_phi import GenerationConfig, Phi3Model, Phi3Session

GREEDY = GenerationConfig.greedy(max_tokens=8, ignore_eos=True)

def interrupted(work, after_s):
    '''The seconds from the signal to the exception, or None if the work was done before.'''
    sent = []
    def send():
        time.sleep(after_s)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
    thread = threading.Thread(target=send)
    try:
        thread.start()
        work()
        thread.join()  # the signal comes here if the work was quick
        time.sleep(0.1)
    except KeyboardInterrupt:
        late = time.monotonic() - sent[0]
        thread.join()
        return late
    return None

path = sys.argv[1]
"""


def run(script, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    print(found)
    return found


WORK = {
    "generate, reading the prompt": "session.generate([1] * 8000, GREEDY)",
    "stream, reading the prompt": "list(session.stream([1] * 8000, GREEDY))",
    "chat, reading the prompt": "session.chat('hello ' * 1500, GREEDY)",
    "generate, decoding": "session.generate([1, 2], temperature=0, ignore_eos=True, max_tokens=8000)",
    "stream, decoding": "list(session.stream([1, 2], temperature=0, ignore_eos=True, max_tokens=8000))",
    "score": "session.score([1] * 8000)",
    "logits": "session.logits([1] * 8000)",
}


@pytest.mark.parametrize("work", WORK)
def test_ctrl_c_stops_the_work_and_leaves_the_session_usable(slow_path, work):
    script = f"""
session = Phi3Session(path, n_ctx=8192)
latency_s = interrupted(lambda: {WORK[work]}, 0.5)
after = session.generate([1, 5, 9], GREEDY).tokens
chatted = session.chat("hello", GREEDY).tokens
fresh = Phi3Session(model=session.model, n_ctx=8192)
expected = [fresh.generate([1, 5, 9], GREEDY).tokens, fresh.chat("hello", GREEDY).tokens]
print(json.dumps({{"latency_s": latency_s, "same": [after, chatted] == expected}}))
"""
    found = run(script, slow_path)
    assert found["latency_s"] is not None, "the work was done before the signal"
    assert found["latency_s"] < 10
    assert found["same"]


def test_ctrl_c_stops_loading(slow_path):
    script = """
load = lambda: Phi3Model(path, mmap=False)
started = time.monotonic()
load()
took_s = time.monotonic() - started
latency_s = None
for attempt in range(40):  # loading is quick: the signal has to meet it
    latency_s = interrupted(load, took_s * (0.1 + 0.02 * attempt))
    if latency_s is not None and latency_s < took_s:
        break
works = len(Phi3Session(path).score([1, 2]))
print(json.dumps({"took_s": took_s, "latency_s": latency_s, "works": works}))
"""
    found = run(script, slow_path)
    assert found["latency_s"] is not None
    assert found["works"] == 1


def test_what_was_streamed_before_ctrl_c_is_kept(slow_path):
    script = """
session = Phi3Session(path, n_ctx=8192)
stream = session.stream([1, 2], temperature=0, ignore_eos=True, max_tokens=8000)
chunks = []
def read():
    for chunk in stream:
        chunks.append(chunk)
latency_s = interrupted(read, 0.5)
result = stream.result
print(json.dumps({
    "latency_s": latency_s,
    "reason": result.finish_reason,
    "chunks": [chunk.token_id for chunk in chunks],
    "tokens": result.tokens,
    "rest": [str(chunk) for chunk in itertools.islice(stream, 3)],
    "usable": len(session.generate([1, 2], GREEDY).tokens),
}))
"""
    found = run(script, slow_path)
    assert found["latency_s"] is not None
    assert found["reason"] == "cancelled"
    assert found["chunks"]
    assert found["tokens"][: len(found["chunks"])] == found["chunks"]
    # The one that was computed when the signal came.
    assert len(found["tokens"]) - len(found["chunks"]) <= 1
    assert found["rest"] == []
    assert found["usable"] == 8


def test_an_interrupted_chat_turn_is_taken_back(slow_path):
    script = """
session = Phi3Session(path, n_ctx=8192)
fresh = Phi3Session(model=session.model, n_ctx=8192)
for each in (session, fresh):
    each.chat("hello", GREEDY)
latency_s = interrupted(lambda: session.chat("count", temperature=0, ignore_eos=True, max_tokens=8000), 0.5)
answers = [each.chat("again", GREEDY).usage.prompt_tokens for each in (session, fresh)]
print(json.dumps({"latency_s": latency_s, "answers": answers}))
"""
    found = run(script, slow_path)
    assert found["latency_s"] is not None
    assert found["answers"][0] == found["answers"][1]


def test_a_signal_handler_that_does_not_raise_does_not_stop_the_work(slow_path):
    script = """
session = Phi3Session(path, n_ctx=8192)
handled = []
signal.signal(signal.SIGALRM, lambda *_: handled.append(time.monotonic()))
signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
started = time.monotonic()
scores = session.score([1] * 1000)
ended = time.monotonic()
signal.setitimer(signal.ITIMER_REAL, 0)
during = sum(moment < ended - 0.05 for moment in handled)
print(json.dumps({"scores": len(scores), "during": during, "took_s": ended - started}))
"""
    found = run(script, slow_path)
    assert found["scores"] == 999
    assert found["during"] >= 1


def test_a_signal_handlers_own_exception_comes_out(slow_path):
    script = """
class Alarm(Exception): pass
def handler(*_): raise Alarm
session = Phi3Session(path, n_ctx=8192)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    session.score([1] * 8000)
    name = None
except Alarm:
    name = "Alarm"
print(json.dumps({"name": name, "usable": len(session.score([1, 2]))}))
"""
    assert run(script, slow_path) == {"name": "Alarm", "usable": 1}


def test_a_signal_handler_may_close_the_session_that_is_at_work(slow_path):
    script = """
session = Phi3Session(path, n_ctx=8192)
signal.signal(signal.SIGALRM, lambda *_: session.close())
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    session.score([1] * 8000)
    name = None
except Exception as error:
    name = type(error).__name__
print(json.dumps({"name": name}))
"""
    assert run(script, slow_path) == {"name": "SessionClosedError"}
