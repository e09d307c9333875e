"""What a session takes is told before, and what the machine cannot give is refused with the numbers."""

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from candle_phi import (
    InsufficientMemoryError,
    InvalidModelError,
    InvalidOptionError,
    ModelNotFoundError,
    Phi3Session,
    estimate_memory,
    inspect_model,
)
from messages import mentions
from test_split import split
from tiny_gguf import TinyPhi3, write

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import synthetic

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read and limited as Linux does")

MB = 1 << 20
RELATIVE_TOLERANCE = 0.25
TOLERANCE_BYTES = 4 * MB
"""Between the estimate and what a session takes: allocators keep some of what was used."""

PRELUDE = """
import json, re, resource, sys, threading
from pathlib import Path
from candle_phi import *

def resident_bytes(kind="RssAnon"):
    return int(Path("/proc/self/status").read_text().split(f"{kind}:")[1].split()[0]) * 1024

model = sys.argv[1]
one = GenerationConfig.greedy(max_tokens=1)
def ids(count): return [5 + i * 37 % 300 for i in range(count)]
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
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Two layers of Phi-3-mini in its real shape, with a vocabulary of its size: a sixth of a gigabyte."""
    path = tmp_path_factory.mktemp("real") / "mini.gguf"
    synthetic.write(path, "phi-3-mini-4k", "q4_0", layers=2)
    return path


@linux
@pytest.mark.parametrize(("n_ctx", "kv_dtype"), [(64, "f16"), (700, "f16"), (700, "q8_0"), (1100, "f32")])
def test_a_full_session_takes_what_was_estimated(real, n_ctx, kv_dtype):
    script = """
kinds = ("RssAnon", "RssFile")
before, most, done = {kind: resident_bytes(kind) for kind in kinds}, dict.fromkeys(kinds, 0), threading.Event()

def look():
    for kind in kinds:
        most[kind] = max(most[kind], resident_bytes(kind) - before[kind])

def watch():
    while not done.wait(0.001):
        look()

watching = threading.Thread(target=watch)
watching.start()
session = Phi3Session(model, n_ctx=int(sys.argv[2]), kv_dtype=sys.argv[3], n_threads=1)
session.generate(ids(session.n_ctx), one)
look()
done.set()
watching.join()
print(json.dumps(most))
"""
    taken = run(script, real, n_ctx, kv_dtype)
    estimate = estimate_memory(real, n_ctx=n_ctx, kv_dtype=kv_dtype)
    print(taken, estimate)
    expected = estimate.anonymous_bytes
    assert taken["RssAnon"] == pytest.approx(expected, rel=RELATIVE_TOLERANCE, abs=TOLERANCE_BYTES)
    # All weights were read but the rows of the embedding, which are looked up.
    assert 0.5 * estimate.weights_bytes < taken["RssFile"] < estimate.weights_bytes + 16 * MB


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A megabyte of keys and values for 256 tokens."""
    options = TinyPhi3(block_count=4, head_count=8, head_dim=64, context_length=65_536)
    return write(tmp_path_factory.mktemp("tiny") / "tiny.gguf", options)


def test_the_parts_add_up(tiny):
    estimate = estimate_memory(tiny, n_ctx=1000, kv_dtype="f32")
    info = inspect_model(tiny)
    assert (estimate.n_ctx, estimate.kv_dtype) == (1000, "f32")
    assert estimate.weights_bytes == estimate.droppable_bytes == info.weights_bytes
    # Pages of 32 tokens.
    assert estimate.kv_cache_bytes == info.kv_cache_bytes(1024, "f32")
    assert estimate.anonymous_bytes == estimate.kv_cache_bytes + estimate.working_bytes
    assert estimate.total_bytes == estimate.weights_bytes + estimate.anonymous_bytes
    assert estimate.working_bytes > 0
    with pytest.raises(FrozenInstanceError):
        estimate.n_ctx = 5


def test_a_narrower_cache_takes_less(tiny):
    sizes = [estimate_memory(tiny, kv_dtype=kv_dtype).kv_cache_bytes for kv_dtype in ("f32", "f16", "q8_0")]
    assert sizes[0] == 2 * sizes[1]
    assert sizes[2] * 32 == sizes[1] * 17


def test_the_context_is_a_sessions_if_nothing_is_said(tiny):
    with Phi3Session(tiny) as session:
        assert estimate_memory(tiny).n_ctx == session.n_ctx == 4096


@linux
def test_a_window_bounds_what_is_kept(tmp_path):
    path = write(tmp_path / "windowed.gguf", TinyPhi3(sliding_window=512, context_length=60_000))
    short, long = (estimate_memory(path, n_ctx=n_ctx).kv_cache_bytes for n_ctx in (512, 60_000))
    assert short < long < 3 * short
    script = """
session = Phi3Session(model, n_ctx=20_000, n_threads=1)
session.generate(ids(600), one)
before = resident_bytes()
session.generate(ids(6000), one)
print(resident_bytes() - before)
"""
    assert run(script, path) < long + TOLERANCE_BYTES


def test_a_split_file_takes_what_the_whole_one_does(tiny, tmp_path):
    expected = estimate_memory(tiny)
    for part in split(tiny, tmp_path / "tiny.gguf"):
        assert estimate_memory(part) == expected


def test_a_file_without_a_vocabulary_can_be_estimated(tmp_path):
    path = write(tmp_path / "bare.gguf", vocabulary=False)
    assert estimate_memory(path).working_bytes > 0


def test_what_cannot_be_estimated_says_why(tiny, tmp_path):
    with pytest.raises(ModelNotFoundError):
        estimate_memory(tmp_path / "missing.gguf")
    (tmp_path / "other.gguf").write_bytes(b"other")
    with pytest.raises(InvalidModelError):
        estimate_memory(tmp_path / "other.gguf")
    with pytest.raises(InvalidOptionError) as caught:
        estimate_memory(tiny, n_ctx=65_537)
    assert caught.value.option == "n_ctx"
    mentions(caught.value, 65_536, 65_537)
    for options in ({"n_ctx": 0}, {"kv_dtype": "q4_0"}):
        with pytest.raises(InvalidOptionError):
            estimate_memory(tiny, **options)
    for options in ({"n_ctx": "many"}, {"kv_dtype": 5}):
        with pytest.raises(TypeError):
            estimate_memory(tiny, **options)
    narrow = write(tmp_path / "narrow.gguf", head_dim=16)
    with pytest.raises(InvalidOptionError) as caught:
        estimate_memory(narrow, kv_dtype="q8_0")
    assert caught.value.option == "kv_dtype"
    mentions(caught.value, 16, 32, "q8_0")


# What does not fit.

LIMIT = f"""
def limit(more_bytes):
    resource.setrlimit(resource.RLIMIT_AS, (resident_bytes("VmSize") + more_bytes, resource.RLIM_INFINITY))

MB = {MB}
"""


@linux
def test_a_context_that_cannot_be_held_is_refused_with_the_numbers_and_what_to_do(tiny):
    script = """
loaded = Phi3Model(model)
Phi3Session(model=loaded, n_ctx=64).generate(ids(8), one)
limit(150 * MB)
try:
    Phi3Session(model=loaded, n_ctx=60_000)
    raised = None
except MemoryError as error:
    raised = error
fitting = int(re.search(r"\\bn_ctx\\b\\D+(\\d+)", str(raised))[1])
session = Phi3Session(model=loaded, n_ctx=fitting)
narrower = Phi3Session(model=loaded, n_ctx=fitting, kv_dtype="q8_0")
default = Phi3Session(model=loaded)
print(json.dumps([
    type(raised).__name__, str(raised), raised.needed_bytes, raised.available_bytes, fitting,
    len(session.generate(ids(8), one).tokens), len(default.generate(ids(8), one).tokens),
]))
"""
    name, message, needed_bytes, available_bytes, fitting, *answers = run(LIMIT + script, tiny)
    print(message)
    assert name == "InsufficientMemoryError"
    estimate = estimate_memory(tiny, n_ctx=60_000)
    assert estimate.kv_cache_bytes < needed_bytes <= estimate.anonymous_bytes
    assert 50 * MB < available_bytes <= 150 * MB < needed_bytes
    for value in (
        "60000",
        f"{needed_bytes / 1e6:.2f} MB",
        f"{available_bytes / 1e6:.2f} MB",
        "kv_dtype",
        '"q8_0"',
    ):
        assert value in message
    assert 1000 < fitting < 60_000
    assert answers == [1, 1]


@linux
@pytest.mark.parametrize("executor", ["kernels", "candle"])
def test_a_cache_that_cannot_grow_is_an_error_and_leaves_the_session_usable(wide_path, executor):
    script = """
loaded = Phi3Model(model, executor=sys.argv[2])
# The context is the default, which is not held against the memory before it is used.
session = Phi3Session(model=loaded, kv_dtype="f32", prefill_chunk=128)
session.generate(ids(300), one)
def refused(call):
    try:
        call()
    except InsufficientMemoryError as error:
        return [str(error), error.needed_bytes, error.available_bytes]
import numpy  # which logits() takes, and which takes memory of its own
limit(20 * MB)
first = refused(lambda: session.generate(ids(4000), one))
again = refused(lambda: session.logits(ids(4000)))
other = refused(lambda: session.score(ids(4000)))
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
answer = session.generate(ids(600), one)
fresh = Phi3Session(model=loaded, kv_dtype="f32", prefill_chunk=128).generate(ids(600), one)
print(json.dumps([first, again, other, answer.tokens == fresh.tokens, answer.usage.cached_tokens]))
"""
    first, again, other, same, cached_tokens = run(LIMIT + script, wide_path, executor)
    for message, needed_bytes, available_bytes in (first, again, other):
        assert 0 < available_bytes < needed_bytes
        assert f"{needed_bytes / 1e6:.2f} MB" in message
        assert "n_ctx" in message
    assert same
    # What there was before, and what could be added.
    assert cached_tokens >= 300


@linux
def test_a_stream_that_finds_no_memory_ends_with_the_error(wide_path):
    script = """
# On another thread than the main one, calls start none of their own, whose stack the limit would not allow.
session = Phi3Session(model, kv_dtype="f32", n_threads=1)
session.generate(ids(40), one)
limited, found = threading.Event(), []

def work():
    limited.wait()
    try:
        for chunk in session.stream(ids(40), temperature=0, ignore_eos=True):
            found.append(chunk.token_id)
    except InsufficientMemoryError as error:
        found.append(type(error).__name__)

worker = threading.Thread(target=work)
worker.start()
limit(8 * MB)
limited.set()
worker.join()
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(json.dumps([found, session.generate(ids(40), one).usage.cached_tokens]))
"""
    (*tokens, name), cached_tokens = run(LIMIT + script, wide_path)
    assert name == "InsufficientMemoryError"
    # Up to the next page or two, each of 6 MB in all layers.
    assert len(tokens) > 0
    assert cached_tokens == 39


@linux
@pytest.mark.parametrize("options", [{"mmap": False}, {"executor": "candle"}], ids=str)
def test_weights_that_are_copied_must_fit(real, options):
    script = f"""
session = Phi3Session.demo()
session.generate(ids(4), one)
# The file can be mapped, and not be in memory once more beside it.
limit(int({1.0 if "mmap" in options else 1.5} * Path(model).stat().st_size) - 20 * MB * {"mmap" in options})
try:
    Phi3Model(model, **{options!r})
    name, message = None, ""
except InsufficientMemoryError as error:
    name, message = type(error).__name__, str(error)
except Phi3Error as error:
    name, message = type(error).__name__, str(error)
print(json.dumps([name, message, len(session.generate(ids(4), one).tokens)]))
"""
    name, message, answers = run(LIMIT + script, real)
    assert name == "InsufficientMemoryError", message
    assert ("mmap" if "mmap" in options else "executor") in message
    assert answers == 1


@linux
def test_a_saved_conversation_that_has_no_place_in_memory_is_refused(tiny, tmp_path):
    script = """
file = sys.argv[2]
saved = Phi3Session(model, kv_dtype="f32", n_threads=1)
saved.generate(ids(2000), one)
saved.save(file)
loaded = Phi3Session(model=saved.model, kv_dtype="f32", n_threads=1)
loaded.chat("hello", one)
limit(12 * MB)
try:
    loaded.load(file)
    name = None
except MemoryError as error:
    name = type(error).__name__
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
messages = len(loaded.messages)
loaded.load(file)
print(json.dumps([name, messages, loaded.generate(ids(2000), one).usage.cached_tokens]))
"""
    assert run(LIMIT + script, tiny, tmp_path / "talk") == ["InsufficientMemoryError", 2, 1999]


def test_the_error_is_pythons_own_too():
    error = InsufficientMemoryError("what", 7, 5)
    assert isinstance(error, MemoryError)
    assert (error.needed_bytes, error.available_bytes) == (7, 5)
