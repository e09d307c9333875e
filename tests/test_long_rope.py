"""Sessions that come near and cross the boundary between LongRoPE's factors."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from candle_phi import GenerationConfig, InvalidOptionError, Phi3Model, Phi3Session, SessionConfig
from messages import mentions
from numpy_phi3 import NumpyPhi3
from tiny_gguf import TinyPhi3, random_ids, write

ORIGINAL = 64
LONG_ROPE = TinyPhi3(
    rope_factors_short=(1.0, 1.05, 1.1, 1.2, 1.4, 1.7, 2.0, 2.5),
    rope_factors_long=(1.0, 1.5, 2.0, 4.0, 8.0, 16.0, 24.0, 32.0),
    original_context_length=ORIGINAL,
    attn_factor=1.19,
)
TOLERANCE = 2e-4
"""Between two ways to the same logits, which spread over about ±6."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("long") / "long.gguf", LONG_ROPE)


@pytest.fixture(scope="module")
def long_model(path: Path) -> Phi3Model:
    return Phi3Model(path)


@pytest.fixture
def session(long_model: Phi3Model) -> Iterator[Phi3Session]:
    with Phi3Session(model=long_model, kv_dtype="f32") as session:
        yield session


def last_logits(path: Path, ids: list[int]) -> np.ndarray:
    logits: np.ndarray = NumpyPhi3(path).logits(ids)[-1]
    return logits


def fresh(model: Phi3Model, ids: list[int], **options: object) -> np.ndarray:
    config = SessionConfig(kv_dtype="f32").replace(**options)
    with Phi3Session(model=model, config=config) as session:
        return np.asarray(session.logits(ids))


@pytest.mark.parametrize("length", [1, ORIGINAL - 1, ORIGINAL, ORIGINAL + 1, ORIGINAL + 40])
@pytest.mark.parametrize("chunk", [1, 7, 64, 512])
def test_the_sequences_length_decides_however_the_prompt_is_cut(
    path: Path, long_model: Phi3Model, length: int, chunk: int
) -> None:
    ids = random_ids(length)
    np.testing.assert_allclose(fresh(long_model, ids, prefill_chunk=chunk), last_logits(path, ids), atol=TOLERANCE)


def test_the_two_sets_of_factors_can_be_told_apart(long_model: Phi3Model) -> None:
    ids = random_ids(ORIGINAL)
    short, long = (fresh(long_model, ids, rope_factors=factors) for factors in ("short", "long"))
    assert np.abs(short - long).max() > 100 * TOLERANCE
    np.testing.assert_array_equal(short, fresh(long_model, ids))


def test_a_generation_that_crosses_goes_on_as_a_fresh_one_would(path: Path, session: Phi3Session) -> None:
    prompt = random_ids(ORIGINAL - 3)
    config = GenerationConfig.greedy(max_tokens=12, ignore_eos=True)
    completion = session.generate(prompt, config)
    oracle, expected = NumpyPhi3(path), list(prompt)
    for _ in range(12):
        expected.append(int(oracle.logits(expected)[-1].argmax()))
    assert completion.tokens == expected[len(prompt) :]
    # All that was cached when the sequence came to 65 tokens: the prompt and three answers.
    assert completion.usage.recomputed_tokens == ORIGINAL
    assert completion.usage.cached_tokens == 0
    assert session.generate(prompt[:5], config).usage.recomputed_tokens == 5 - 1


def test_a_stream_that_crosses_gives_the_same(long_model: Phi3Model) -> None:
    prompt = random_ids(ORIGINAL - 3)
    config = GenerationConfig.greedy(max_tokens=12, ignore_eos=True)
    with (
        Phi3Session(model=long_model, prefill_chunk=5) as chunked,
        Phi3Session(model=long_model) as whole,
        chunked.stream(prompt, config) as stream,
    ):
        streamed = [chunk.token_id for chunk in stream if chunk.token_id is not None]
        assert streamed == whole.generate(prompt, config).tokens
        assert stream.result.usage.recomputed_tokens == ORIGINAL


def test_a_longer_prompt_and_then_a_shorter_one_cross_both_ways(path: Path, session: Phi3Session) -> None:
    ids = random_ids(ORIGINAL + 20)
    one = GenerationConfig.greedy(max_tokens=1)
    assert session.generate(ids[:50], one).usage.recomputed_tokens == 0
    beyond = session.generate(ids, one).usage
    assert (beyond.cached_tokens, beyond.recomputed_tokens) == (0, 50)
    np.testing.assert_allclose(session.logits(ids), last_logits(path, ids), atol=TOLERANCE)
    back = session.generate(ids[:60], one).usage
    assert (back.cached_tokens, back.recomputed_tokens) == (0, 59)
    np.testing.assert_allclose(session.logits(ids[:60]), last_logits(path, ids[:60]), atol=TOLERANCE)
    again = session.generate(ids[:62], one).usage
    assert (again.cached_tokens, again.recomputed_tokens) == (60, 0)


@pytest.mark.parametrize("factors", ["short", "long"])
def test_chosen_factors_are_never_changed(long_model: Phi3Model, factors: str) -> None:
    ids = random_ids(ORIGINAL - 3)
    config = GenerationConfig.greedy(max_tokens=12, ignore_eos=True)
    with Phi3Session(model=long_model, config=SessionConfig(rope_factors=factors)) as session:  # type: ignore[arg-type]
        completion = session.generate(ids, config)
        assert completion.usage.recomputed_tokens == 0
        assert session.generate([*ids, *completion.tokens], config).usage.recomputed_tokens == 0


def test_the_long_factors_are_exact_beyond_the_boundary(long_model: Phi3Model) -> None:
    ids = random_ids(ORIGINAL + 1)
    np.testing.assert_array_equal(fresh(long_model, ids, rope_factors="long"), fresh(long_model, ids))


@pytest.mark.parametrize("length", [ORIGINAL, ORIGINAL + 1, ORIGINAL + 30])
def test_score_is_one_forward_of_the_whole(path: Path, session: Phi3Session, length: int) -> None:
    ids = random_ids(length)
    rows = NumpyPhi3(path).logits(ids).astype(np.float64)
    rows -= np.log(np.exp(rows).sum(axis=-1, keepdims=True))
    expected = rows[np.arange(length - 1), ids[1:]]
    np.testing.assert_allclose(session.score(ids), expected, atol=TOLERANCE)


def test_a_crossing_that_is_stopped_leaves_the_session_right(path: Path, session: Phi3Session) -> None:
    ids = random_ids(ORIGINAL - 2)
    stream = session.stream(ids, GenerationConfig.greedy(max_tokens=20, ignore_eos=True))
    for _, _chunk in zip(range(4), stream, strict=False):
        pass
    stream.close()
    np.testing.assert_allclose(session.logits(ids[:20]), last_logits(path, ids[:20]), atol=TOLERANCE)


def test_the_whole_context_of_the_file_can_be_used(long_model: Phi3Model) -> None:
    with Phi3Session(model=long_model, n_ctx=512) as session:
        assert session.n_ctx == 512
    assert long_model.info.original_context_length == ORIGINAL


def test_a_model_without_factors_has_none_to_choose(tmp_path: Path) -> None:
    model = Phi3Model(write(tmp_path / "plain.gguf"))
    for wrong in ("long", "middle"):
        with pytest.raises(InvalidOptionError) as caught:
            Phi3Session(model=model, rope_factors=wrong)  # type: ignore[arg-type] # what a user may write
        assert caught.value.option == "rope_factors"
        mentions(caught.value, wrong, "auto")
