"""A trace is a file that viewers read: whole at any time, its spans one within the other, and nothing left out."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

import candle_phi
from candle_phi import GenerationConfig, InvalidOptionError, Phi3Model, Phi3Session
from messages import mentions

pytestmark = pytest.mark.thread_unsafe(reason="a process writes one trace at a time")

GREEDY = GenerationConfig.greedy(max_tokens=8, ignore_eos=True)
OPERATIONS = ("attn_norm", "attn_qkv", "attention", "attn_output", "ffn_norm", "ffn_up", "ffn_down")


def events(path, kind="X"):
    return [event for event in json.loads(path.read_text())["traceEvents"] if event["ph"] == kind]


def end(event):
    return event["ts"] + event["dur"]


def within(outer, spans):
    """What happens on the same thread while a span lasts, itself left out."""
    beside = [span for span in spans if span["tid"] == outer["tid"] and span is not outer]
    return [span for span in beside if outer["ts"] <= span["ts"] and end(span) <= end(outer)]


@pytest.fixture
def traced(tmp_path):
    """The spans of loading, of a chat's answer of eight tokens, and what the answer said of itself."""
    path = tmp_path / "trace.json"
    with candle_phi.trace(path), Phi3Session.demo(prefill_chunk=8) as session:
        completion = session.chat("Write a haiku about ice hockey", GREEDY)
    return events(path), completion, session.model.info


def named(spans, name):
    return [span for span in spans if span["name"] == name]


def test_the_spans_of_a_thread_are_one_within_the_other(traced):
    spans, _, _ = traced
    for thread in {span["tid"] for span in spans}:
        open_spans = []
        for span in sorted((s for s in spans if s["tid"] == thread), key=lambda s: (s["ts"], -s["dur"])):
            while open_spans and end(open_spans[-1]) <= span["ts"]:
                open_spans.pop()
            assert not open_spans or end(span) <= end(open_spans[-1])
            open_spans.append(span)


def test_it_covers_a_generation(traced):
    spans, completion, info = traced
    (load,) = named(spans, "load")
    assert load["args"]["path"].endswith("candle-phi-demo.gguf")
    assert {"open", "tokenizer", "chat_template", "weights"} <= {span["name"] for span in within(load, spans)}
    (prompt,) = named(spans, "chat_prompt")
    assert named(within(prompt, spans), "tokenize")
    (prefill,) = named(spans, "prefill")
    chunks = [span["args"]["tokens"] for span in named(within(prefill, spans), "forward")]
    assert len(chunks) > 1
    assert sum(chunks) == completion.usage.prompt_tokens
    steps = [prefill, *named(spans, "decode")]
    assert len(steps) == completion.usage.completion_tokens
    assert [load, prompt, *steps] == sorted([load, prompt, *steps], key=lambda span: span["ts"])
    for step in steps:
        inner = Counter(span["name"] for span in within(step, spans))
        assert inner["sample"] == inner["detokenize"] == 1
        assert inner["layer"] == info.block_count * inner["forward"]
    for layer in named(spans, "layer"):
        assert [span["name"] for span in sorted(within(layer, spans), key=lambda s: s["ts"])] == list(OPERATIONS)
    assert {layer["args"]["layer"] for layer in named(spans, "layer")} == set(range(info.block_count))


def test_its_times_are_those_that_the_completion_tells(traced):
    spans, completion, _ = traced
    computed_s = sum(span["dur"] for span in spans if span["name"] in {"prefill", "decode"}) / 1e6
    assert computed_s >= completion.timings.prefill_s + completion.timings.decode_s


def test_both_executors_are_traced(tmp_path):
    path = tmp_path / "trace.json"
    with candle_phi.trace(path), Phi3Session.demo(executor="candle") as session:
        session.generate("Hello", GREEDY)
    assert {"layer", *OPERATIONS} <= {span["name"] for span in events(path)}


def test_threads_have_rows_of_their_own_and_names(tmp_path, model):
    def work():
        with Phi3Session(model=model) as session:
            session.generate("Hello", GREEDY)
            barrier.wait()

    path, barrier = tmp_path / "trace.json", threading.Barrier(2)
    threads = [threading.Thread(target=work) for _ in range(2)]
    with candle_phi.trace(path):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    rows = {span["tid"] for span in named(events(path), "prefill")}
    assert len(rows) == 2
    names = {event["tid"]: event["args"]["name"] for event in events(path, "M") if event["name"] == "thread_name"}
    assert rows <= names.keys()


def test_work_on_a_new_thread_each_time_is_one_row(tmp_path, slow_path):
    path = tmp_path / "trace.json"
    with Phi3Session(slow_path) as session, candle_phi.trace(path):
        # Each of these is handed from the main thread to one that looks after it.
        for _ in range(4):
            session.generate("Hello", max_tokens=2)
    assert len({span["tid"] for span in named(events(path), "prefill")}) == 1


def test_without_a_trace_nothing_is_recorded(tmp_path, model):
    path = tmp_path / "trace.json"
    with Phi3Session(model=model) as session:
        with candle_phi.trace(path):
            session.generate("Hello", GREEDY)
        size = path.stat().st_size
        session.generate("Hello", GREEDY)
        assert path.stat().st_size == size
        with candle_phi.trace(path):
            session.generate("Hello", max_tokens=1)
    assert len(named(events(path), "decode")) == 0


def test_a_span_that_is_open_at_the_end_is_shown_as_unfinished(tmp_path, slow_path):
    path = tmp_path / "trace.json"
    with Phi3Session(slow_path, n_ctx=8192, prefill_chunk=1) as session:
        stream = session.stream("the " * 8000)
        thread = threading.Thread(target=lambda: next(stream, None))
        with candle_phi.trace(path):
            thread.start()
            while '"layer"' not in path.read_text():
                thread.join(0.01)
                assert thread.is_alive()
        session.cancel()
        thread.join()
    assert [span["name"] for span in events(path) if span["args"].get("unfinished")].count("prefill") == 1
    assert named(events(path), "layer")


def test_an_exception_leaves_the_file_whole(tmp_path, model):
    path = tmp_path / "trace.json"

    def interrupted():
        with candle_phi.trace(path), Phi3Session(model=model) as session:
            for _ in session.stream("Hello", GREEDY):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(named(events(path), "prefill")) == 1


def test_a_process_that_is_killed_leaves_json(tmp_path):
    path = tmp_path / "trace.json"
    script = f"""
import candle_phi, os, signal
with candle_phi.trace({str(path)!r}), candle_phi.Phi3Session.demo() as session:
    while os.path.getsize({str(path)!r}) < 300_000:
        session.generate("Hello", max_tokens=20, ignore_eos=True)
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", script], check=False)
    assert len(named(events(path), "layer")) > 100


def test_one_trace_at_a_time(tmp_path, model):
    path, other = tmp_path / "trace.json", tmp_path / "other.json"
    with candle_phi.trace(path):
        with pytest.raises(InvalidOptionError, match="trace\\.json"), candle_phi.trace(other):
            pass
        with Phi3Session(model=model) as session:
            session.generate("Hello", GREEDY)
    assert not other.exists()
    assert named(events(path), "prefill")


@pytest.mark.parametrize(("path", "error"), [("missing/trace.json", FileNotFoundError), (".", IsADirectoryError)])
def test_a_file_that_cannot_be_written(tmp_path, path, error):
    with pytest.raises(error) as caught, candle_phi.trace(tmp_path / path):
        pass
    assert caught.value.errno
    mentions(caught.value, tmp_path / path)
    if error is FileNotFoundError:
        # The folder that is missing, apart from the path that begins with it.
        mentions(str(caught.value).replace(str(tmp_path / path), ""), tmp_path / "missing")
    with candle_phi.trace(tmp_path / "trace.json"):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told_and_stops_nothing(model):
    with pytest.raises(OSError, match="/dev/full"), candle_phi.trace("/dev/full"):
        pass
    with Phi3Session(model=model) as session:
        assert session.generate("Hello", GREEDY).tokens


def test_a_trace_shows_its_path():
    assert repr(candle_phi.trace("some.json")) == "<trace to 'some.json'>"


def test_what_is_no_path(tmp_path):
    for wrong in (None, 3, ""):
        with pytest.raises((TypeError, InvalidOptionError), match="path"), candle_phi.trace(wrong):
            pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_leaves_the_file_alone(tmp_path):
    path = tmp_path / "trace.json"
    model = Phi3Model.demo()

    def child():
        # More than waits in memory for the next write.
        with Phi3Session(model=model) as session:
            session.generate("Hello", max_tokens=200, ignore_eos=True)

    with candle_phi.trace(path):
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join()
        assert process.exitcode == 0
        with Phi3Session(model=model) as session:
            session.generate("Hello", max_tokens=1)
    assert len(named(events(path), "prefill")) == 1
    assert {event["pid"] for event in events(path)} == {os.getpid()}


def test_what_is_chosen_is_the_same(tmp_path, model):
    with Phi3Session(model=model) as session:
        expected = session.generate("Hello", GREEDY).tokens
        session.reset()
        with candle_phi.trace(tmp_path / "trace.json"):
            assert session.generate("Hello", GREEDY).tokens == expected


def test_spans_follow_each_other_without_overlap_in_a_step(traced):
    spans, _, _ = traced
    for step in named(spans, "decode"):
        inside = sorted(
            (span for span in within(step, spans) if span["name"] in {"forward", "sample", "detokenize"}),
            key=lambda span: span["ts"],
        )
        assert [span["name"] for span in inside] == ["forward", "sample", "detokenize"]
        assert all(end(first) <= second["ts"] for first, second in pairwise(inside))


def test_a_trace_can_be_entered_again_and_decorate(tmp_path):
    path = tmp_path / "trace.json"
    trace = candle_phi.trace(path)
    for _ in range(2):
        path.unlink(missing_ok=True)
        with trace:
            pass
        assert json.loads(path.read_text()) is not None
    path.unlink()
    assert trace(lambda: "done")() == "done"
    assert path.exists()
