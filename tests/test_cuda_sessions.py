"""Sessions on a CUDA GPU: conversations, threads, memory, what stops them, and what is refused."""

import asyncio
import json
import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import cuda
import tiny_gguf
from candle_phi import DeviceError, GenerationConfig, InvalidOptionError, Phi3Model, Phi3Session
from candle_phi.doctor import diagnose
from candle_phi.types import KvDtype
from tiny_gguf import TinyPhi3, random_ids

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import synthetic

cuda.skip_without_cuda()

GREEDY = GenerationConfig.greedy(max_tokens=40, ignore_eos=True)
MIB = 1 << 20


@pytest.fixture(scope="module")
def gpu() -> Phi3Model:
    return Phi3Model.demo(device=cuda.DEVICE)


@pytest.fixture(scope="module")
def cpu() -> Phi3Model:
    return Phi3Model.demo(device="cpu", executor="candle")


@pytest.fixture(scope="module")
def large_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of Phi-3-mini's size: large enough to be seen in the GPU's memory."""
    path = tmp_path_factory.mktemp("large") / "large.gguf"
    synthetic.write(path, "phi-3-mini-4k", "q4_k_m", layers=2)
    return path


# --- which device ---


def test_auto_takes_the_gpu_and_says_which_and_why(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="candle_phi"):
        model = Phi3Model.demo(device="auto")
    assert (model.device, model.executor) == (cuda.DEVICE, "candle")
    assert "compute capability" in model.device_reason
    assert model.device_reason != Phi3Model.demo(device=cuda.DEVICE).device_reason
    assert any(
        model.device in record.message and "compute capability" in record.message for record in caplog.records
    )


def test_a_gpu_that_is_named_is_asked_for_and_the_cpu_can_be() -> None:
    assert Phi3Model.demo(device="cuda").device == "cuda:0"
    assert "compute capability" in Phi3Model.demo(device="cuda:0").device_reason
    assert Phi3Model.demo(device="cpu").executor == "kernels"


def test_the_doctor_tests_the_gpu_too() -> None:
    found = diagnose(seconds=0)
    assert found.agrees
    assert found.problems == ()
    assert found.device == cuda.DEVICE
    assert "compute capability" in found.device_reason


def test_a_gpu_that_is_not_there_is_an_error_and_harms_nothing(gpu: Phi3Model) -> None:
    for ordinal in (7, 99):
        try:
            Phi3Model.demo(device=f"cuda:{ordinal}")
        except DeviceError as error:
            assert f"cuda:{ordinal}" in str(error)  # noqa: PT017 # a machine may have eight
    with pytest.raises(DeviceError, match="cuda:99"):
        Phi3Model.demo(device="cuda:99")
    with Phi3Session(model=gpu) as session:
        assert len(session.generate("hello", GREEDY).tokens) == 40


def test_what_is_for_the_cpu_alone_is_refused(gpu: Phi3Model) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        Phi3Model.demo(device=cuda.DEVICE, executor="kernels")
    assert caught.value.option == "executor"
    with pytest.raises(InvalidOptionError) as caught:
        Phi3Session(model=gpu, kv_dtype="q8_0")
    assert caught.value.option == "kv_dtype"


# --- conversations ---


def test_a_chat_goes_on_as_on_the_cpu(gpu: Phi3Model, cpu: Phi3Model) -> None:
    """What was said is not computed again, turns can be taken back, and a fork goes its own way."""
    told = []
    with Phi3Session(model=gpu) as session:
        told.append((session.chat("Write a haiku about ice hockey", GREEDY), session.tokens))
        second = session.chat("Write a haiku about snow", GREEDY)
        told.append((second, session.tokens))
        with session.fork() as fork:
            told.append((fork.chat("Count from 3 to 7", GREEDY), fork.tokens))
        told.append((session.chat("Write a haiku about rain", GREEDY), session.tokens))
        session.rewind(2)
        again = session.chat("Write a haiku about snow", GREEDY)
    assert second.usage.cached_tokens > 0
    assert again.tokens == second.tokens
    for completion, tokens in told:
        behind = cuda.behind_the_likeliest(cpu, tokens, len(completion.tokens))
        print(f"{completion.text!r}: at most {behind:.2e} behind the CPU's likeliest")
        assert behind < cuda.UNDECIDED


def test_a_fork_and_its_parent_do_not_see_each_other(gpu: Phi3Model) -> None:
    ids = random_ids(100)
    with Phi3Session(model=gpu, kv_dtype="f32") as parent, Phi3Session(model=gpu, kv_dtype="f32") as fresh:
        parent.logits(ids[:60])
        with parent.fork() as fork:
            fork.logits([*ids[:60], *reversed(ids[60:])])
            np.testing.assert_allclose(parent.logits(ids), fresh.logits(ids), atol=1e-3)


@pytest.mark.parametrize("kv_dtype", ["f16", "f32"])
def test_a_conversation_is_saved_and_goes_on_here_and_on_the_cpu(
    gpu: Phi3Model, cpu: Phi3Model, tmp_path: Path, kv_dtype: KvDtype
) -> None:
    """Without computing anything again: the keys and values travel."""
    saved = tmp_path / "saved.phi"
    with Phi3Session(model=gpu, kv_dtype=kv_dtype) as session:
        session.chat("Write a haiku about ice hockey", GREEDY)
        session.save(saved)
        expected = session.chat("Write a haiku about snow", GREEDY)
    for model in (gpu, cpu):
        with Phi3Session(model=model, kv_dtype=kv_dtype) as session:
            session.load(saved)
            found = session.chat("Write a haiku about snow", GREEDY)
            tokens = session.tokens
        assert found.usage.cached_tokens == expected.usage.cached_tokens > 0
        if model is gpu:
            assert found.tokens == expected.tokens
        assert cuda.behind_the_likeliest(cpu, tokens, len(found.tokens)) < cuda.UNDECIDED


def test_asyncio_moves_a_session_from_thread_to_thread(gpu: Phi3Model) -> None:
    async def streamed() -> list[int | None]:
        with Phi3Session(model=gpu) as session:
            return [chunk.token_id async for chunk in session.astream("The night is cold", GREEDY)]

    with Phi3Session(model=gpu) as session:
        expected = session.generate("The night is cold", GREEDY).tokens
    assert [token for token in asyncio.run(streamed()) if token is not None] == expected


# --- threads ---


def test_threads_with_sessions_on_one_gpu_get_what_they_get_alone(gpu: Phi3Model, large_path: Path) -> None:
    """Prompts and generations of two models side by side: buffers that are shared in secret would show."""
    large = Phi3Model(large_path, device=cuda.DEVICE)
    prompts = [random_ids(300 + 40 * number, seed=number) for number in range(4)]

    def work(number: int) -> tuple[list[int], np.ndarray]:
        with Phi3Session(model=gpu) as small, Phi3Session(model=large) as session:
            tokens = small.generate(prompts[number][:50], GREEDY).tokens
            return tokens, np.asarray(session.logits(prompts[number]))

    alone = [work(number) for number in range(4)]
    for n_threads in (2, 4):
        with ThreadPoolExecutor(n_threads) as threads:
            together = list(threads.map(work, list(range(4)) * 3))
        for (tokens, logits), (expected_tokens, expected) in zip(together, alone * 3, strict=True):
            assert tokens == expected_tokens
            np.testing.assert_allclose(logits, expected, atol=1e-3)


def test_many_sessions_come_and_go_on_many_threads(gpu: Phi3Model) -> None:
    with Phi3Session(model=gpu) as session:
        expected = session.generate("hello", GREEDY).tokens

    def work(_: int) -> list[int]:
        with Phi3Session(model=gpu) as session, session.fork() as fork:
            return fork.generate("hello", GREEDY).tokens

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(32))) == [expected] * 32


# --- what stops them ---


@pytest.fixture(scope="module")
def slow(slow_path: Path) -> Phi3Model:
    return Phi3Model(slow_path, device=cuda.DEVICE)


def test_cancelling_from_another_thread_ends_a_generation(slow: Phi3Model) -> None:
    with (
        Phi3Session(model=slow, n_ctx=8192) as session,
        session.stream([1, 2], temperature=0, ignore_eos=True) as stream,
    ):
        next(stream)
        threading.Thread(target=session.cancel).start()
        for _ in stream:
            pass
        assert stream.result.finish_reason == "cancelled"
        assert len(session.generate([1, 5, 9], GREEDY).tokens) == 40


INTERRUPTED = """
import json, os, signal, sys, threading, time
from candle_phi import GenerationConfig, Phi3Model, Phi3Session

GREEDY = GenerationConfig.greedy(max_tokens=8, ignore_eos=True)
model = Phi3Model(sys.argv[1], device="cuda:0")
session = Phi3Session(model=model, n_ctx=8192)
expected = session.generate([1, 5, 9], GREEDY).tokens
session.reset()

def prompts():
    while True:
        session.reset()
        session.generate([1] * 8000, GREEDY)

def decode():
    session.generate([1, 2], temperature=0, ignore_eos=True)

late = []
for work in (prompts, decode):
    sent = []
    def send():
        time.sleep(0.5)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
    thread = threading.Thread(target=send)
    thread.start()
    try:
        work()
    except KeyboardInterrupt:
        late.append(time.monotonic() - sent[0])
    thread.join()
    late.append(session.generate([1, 5, 9], GREEDY).tokens == expected)
print(json.dumps(late))
"""


def test_ctrl_c_stops_a_prompt_and_a_generation_and_leaves_the_session_usable(slow_path: Path) -> None:
    run = [sys.executable, "-c", INTERRUPTED, str(slow_path)]
    done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    print(f"seconds from the signal to the exception: {found[0]:.3f} in a prompt, {found[2]:.3f} in a generation")
    assert found[1::2] == [True, True]


FORKED = """
import os
from candle_phi import InferenceError, Phi3Session

with Phi3Session.demo(device="cuda:0") as session:
    child = os.fork()
    if child == 0:
        try:
            session.generate("hello", max_tokens=2)
        except InferenceError as error:
            os._exit(0 if "spawn" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert session.generate("hello", max_tokens=2).tokens
"""


def test_a_forked_process_gets_an_error_and_its_parent_goes_on() -> None:
    run = [sys.executable, "-W", "ignore", "-c", FORKED]
    done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


# --- memory ---


def test_closing_gives_the_gpus_memory_back(large_path: Path) -> None:
    def used_by_a_session() -> list[int]:
        """What is free: before, with the model, with a long context, with that closed, without the model."""
        free = [cuda.free_bytes()]
        model = Phi3Model(large_path, device=cuda.DEVICE)
        free.append(cuda.free_bytes())
        session = Phi3Session(model=model, n_ctx=4096)
        session.logits(random_ids(3000))
        free.append(cuda.free_bytes())
        session.close()
        free.append(cuda.free_bytes())
        del session, model
        return [*free, cuda.free_bytes()]

    used_by_a_session()  # Candle's own buffers to work in are taken the first time, and kept.
    before, loaded, full, closed, after = used_by_a_session()
    print(f"weights {(before - loaded) / MIB:.0f} MiB, context {(loaded - full) / MIB:.0f} MiB")
    assert before - loaded > 100 * MIB
    assert loaded - full > 50 * MIB
    assert loaded - closed < 40 * MIB
    assert before - after < 40 * MIB


def test_a_model_that_does_not_fit_is_an_error_of_the_device_and_fits_later(
    large_path: Path, gpu: Phi3Model
) -> None:
    with cuda.all_but(100 * MIB), pytest.raises(DeviceError, match="n_ctx"):
        Phi3Model(large_path, device=cuda.DEVICE)
    with Phi3Session(large_path, device=cuda.DEVICE) as session:
        assert len(session.generate(random_ids(20), GREEDY).tokens) == 40
    with Phi3Session(model=gpu) as session:
        assert len(session.generate("hello", GREEDY).tokens) == 40


def test_a_context_that_outgrows_the_memory_is_an_error_and_the_session_goes_on(large_path: Path) -> None:
    ids = random_ids(4000)
    with Phi3Session(large_path, device=cuda.DEVICE, n_ctx=4096) as session:
        before = session.generate(ids[:20], GREEDY).tokens
        with cuda.all_but(200 * MIB):
            with pytest.raises(DeviceError, match="n_ctx"):
                session.generate(ids, GREEDY)
            assert session.generate(ids[:20], GREEDY).tokens == before
        assert len(session.generate(ids, GREEDY).tokens) == 40


def test_a_model_is_written_over_by_nothing(tmp_path: Path) -> None:
    """Loading and dropping others leaves a model what it was."""
    path = tiny_gguf.write(tmp_path / "tiny.gguf", TinyPhi3())
    ids = random_ids(80)
    with Phi3Session(path, device=cuda.DEVICE) as session:
        expected = np.asarray(session.logits(ids))
        for _ in range(5):
            Phi3Session.demo(device=cuda.DEVICE).close()
        session.reset()
        np.testing.assert_allclose(session.logits(ids), expected, atol=1e-3)
