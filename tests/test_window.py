"""The sliding window: what a position sees, what the cache keeps, and going back."""

from pathlib import Path

import numpy as np
import pytest

from candle_phi import GenerationConfig, InvalidOptionError, Phi3Model, Phi3Session
from candle_phi.config import Executor
from messages import mentions
from numpy_phi3 import NumpyPhi3, log_softmax_rows
from tiny_gguf import TinyPhi3, random_ids, write

TOLERANCE = 2e-4
WINDOW = 24
ONE = GenerationConfig.greedy(max_tokens=1)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(
        tmp_path_factory.mktemp("window") / "window.gguf",
        TinyPhi3(sliding_window=WINDOW, context_length=2048),
    )


def test_a_long_generation_sees_the_window_and_no_more(path: Path) -> None:
    """Long enough that the cache has let go of the beginning."""
    prompt = random_ids(300)
    config = GenerationConfig.greedy(max_tokens=600, ignore_eos=True)
    with Phi3Session(path, kv_dtype="f32", prefill_chunk=64) as session:
        ids = [*prompt, *session.generate(prompt, config).tokens]
        expected = NumpyPhi3(path).logits(ids[:-1])[len(prompt) - 1 :]
        chosen = np.take_along_axis(expected, np.array(ids[len(prompt) :])[:, None], axis=-1)[:, 0]
        # Each token is the likeliest, or as good as.
        assert (expected.max(axis=-1) - chosen).max() < TOLERANCE


@pytest.mark.parametrize("window", [WINDOW - 1, WINDOW + 1, 0, 1])
def test_another_window_can_be_set(tmp_path: Path, path: Path, window: int) -> None:
    ids = random_ids(80)
    other = write(tmp_path / "other.gguf", TinyPhi3(sliding_window=window, context_length=2048))
    model = Phi3Model(path, sliding_window=window)
    assert model.info.sliding_window == (window or None)
    with Phi3Session(model=model, kv_dtype="f32") as session:
        logits = np.asarray(session.logits(ids))
        np.testing.assert_allclose(logits, NumpyPhi3(other).logits(ids)[-1], atol=TOLERANCE)
        assert np.abs(logits - NumpyPhi3(path).logits(ids)[-1]).max() > 10 * TOLERANCE


def test_going_back_to_what_was_dropped_computes_again_and_says_so(path: Path) -> None:
    ids = random_ids(1200)
    with Phi3Session(path, kv_dtype="f32", prefill_chunk=32) as session:
        assert session.generate(ids, ONE).usage.recomputed_tokens == 0
        near = session.generate([*ids[:1190], 7], ONE).usage
        assert (near.cached_tokens, near.recomputed_tokens) == (1190, 0)
        far = session.generate([*ids[:600], 9], ONE).usage
        assert (far.cached_tokens, far.recomputed_tokens) == (0, 600)
        np.testing.assert_allclose(
            session.logits([*ids[:600], 9]), NumpyPhi3(path).logits([*ids[:600], 9])[-1], atol=TOLERANCE
        )


def test_only_the_4k_models_get_a_window_that_the_file_does_not_name(tmp_path: Path) -> None:
    def written(name: str, **options: object) -> Phi3Model:
        small = {"head_count": 1, "head_count_kv": 1, "head_dim": 8, "feed_forward_length": 8}
        drop = frozenset({"phi3.attention.sliding_window"})
        return Phi3Model(write(tmp_path / name, TinyPhi3(drop_keys=drop, **small, **options)))  # type: ignore[arg-type]

    mini = written("mini.gguf", block_count=32, context_length=4096)
    assert mini.info.sliding_window == 2047
    assert written("medium.gguf", block_count=40, context_length=4096).info.sliding_window == 2047
    assert written("phi4.gguf", block_count=40, context_length=16384).info.sliding_window is None
    assert Phi3Model(mini.path, sliding_window=0).info.sliding_window is None
    assert Phi3Model(mini.path, sliding_window=262144).info.sliding_window == 262144


@pytest.mark.parametrize("window", [-1, 2**64])
def test_a_window_that_is_none(path: Path, window: int) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        Phi3Model(path, sliding_window=window)
    assert caught.value.option == "sliding_window"
    mentions(caught.value, window)
    with pytest.raises(TypeError, match="sliding_window"):
        Phi3Model(path, sliding_window="auto")  # type: ignore[arg-type] # what a user may write


@pytest.mark.parametrize(("executor", "lengths"), [("kernels", range(430, 446)), ("candle", range(450, 490, 2))])
def test_going_back_to_what_would_see_dropped_positions(path: Path, executor: Executor, lengths: range) -> None:
    """What a session goes back to may be there itself, while a part of what it sees is not.

    Of 700 positions the kernels keep those from 416 on, whole pages with at least 256 that nobody sees.
    """
    ids, numpy_model, model = random_ids(700), NumpyPhi3(path), Phi3Model(path, executor=executor)
    config = GenerationConfig.greedy(max_tokens=1, logprobs=1, ignore_eos=True)
    recomputed = []
    for length in lengths:
        back = [*ids[:length], 7]
        with Phi3Session(model=model, kv_dtype="f32", prefill_chunk=32) as session:
            session.logits(ids)
            completion = session.generate(back, config)
        recomputed.append(completion.usage.recomputed_tokens > 0)
        assert completion.logprobs is not None
        expected = log_softmax_rows(numpy_model.logits(back)[-1:])[0, completion.tokens[0]]
        assert abs(completion.logprobs[0].logprob - expected) < TOLERANCE
    assert recomputed == sorted(recomputed, reverse=True)
    assert set(recomputed) == {False, True}
    if executor == "kernels":
        # The first of those that see nothing that was dropped.
        assert lengths[recomputed.index(False)] == 416 + WINDOW - 1
