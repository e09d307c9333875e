"""The engine's arithmetic against an independent numpy forward pass, on tiny random F32 files."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest

from candle_phi import Phi3Session
from numpy_phi3 import NumpyPhi3, log_softmax_rows
from tiny_gguf import OPTIONAL_KEYS, TinyPhi3, random_ids, write

if TYPE_CHECKING:
    from pathlib import Path

    from candle_phi.config import Executor

TOLERANCE = 1e-4
"""Largest difference between two log-probabilities or logits, which spread over several units."""

VARIANTS = {
    "plain": TinyPhi3(),
    "gqa": TinyPhi3(head_count_kv=2),
    "mqa": TinyPhi3(head_count_kv=1),
    "split_qkv": TinyPhi3(head_count_kv=2, split_qkv=True),
    "partial_rotary": TinyPhi3(rope_dimension_count=12),
    "freq_base_250000": TinyPhi3(freq_base=250_000.0),
    "tied_output": TinyPhi3(tied_output=True),
    "window_4": TinyPhi3(sliding_window=4),
    "window_of_one": TinyPhi3(sliding_window=1),
    "large_epsilon": TinyPhi3(rms_epsilon=1e-2),
    "heads_wider_than_the_embedding": TinyPhi3(
        head_count=6,
        head_count_kv=3,
        width=40,
        metadata={"phi3.attention.key_length": 16, "phi3.attention.value_length": 16},
    ),
    "long_rope_within_the_original_context": TinyPhi3(
        rope_factors_short=(1.0, 1.05, 1.1, 1.2, 1.4, 1.7, 2.0, 2.5),
        rope_factors_long=(1.0, 1.5, 2.0, 4.0, 8.0, 16.0, 24.0, 32.0),
        original_context_length=256,
        attn_factor=1.0607,
    ),
    "official_header": TinyPhi3(
        drop_keys=frozenset(
            {
                "phi3.rope.freq_base",
                "phi3.rope.scaling.original_context_length",
                "phi3.attention.sliding_window",
            }
        )
    ),
    # The shape of Phi-4-mini and a window on top: everything at once, in sizes that are no powers of two.
    "all_at_once": TinyPhi3(
        block_count=3,
        head_count=6,
        head_count_kv=2,
        head_dim=20,
        feed_forward_length=100,
        rope_dimension_count=14,
        freq_base=500_000.0,
        sliding_window=7,
        tied_output=True,
    ),
}


def open_session(
    path: Path,
    kv_dtype: Literal["f16", "f32"] = "f32",
    *,
    mmap: bool = True,
    executor: Executor = "auto",
) -> Phi3Session:
    return Phi3Session(path, kv_dtype=kv_dtype, mmap=mmap, executor=executor)


def difference(found: object, expected: object) -> float:
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    return float(np.abs(found - expected).max(initial=0.0))


@pytest.fixture(scope="module", params=["kernels", "candle"])
def executor(request: pytest.FixtureRequest) -> Executor:
    found: Executor = request.param
    return found


@pytest.fixture(scope="module", params=VARIANTS)
def variant(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, executor: Executor
) -> tuple[Path, TinyPhi3, Executor]:
    """A tiny file's path, its options, and what computes it."""
    options = VARIANTS[request.param]
    return write(tmp_path_factory.mktemp("score") / f"{request.param}.gguf", options), options, executor


def test_score_equals_numpy(variant: tuple[Path, TinyPhi3, Executor]) -> None:
    path, options, executor = variant
    oracle = NumpyPhi3(path)
    with open_session(path, executor=executor) as session:
        for count in (2, 3, 33, 200):
            ids = random_ids(count, options, seed=count)
            worst = difference(session.score(ids), oracle.log_probabilities(ids))
            print(f"{path.stem}, {count} tokens: largest difference {worst:.1e}")
            assert worst < TOLERANCE


def test_logits_of_a_prompt_equal_numpy(variant: tuple[Path, TinyPhi3, Executor]) -> None:
    path, options, executor = variant
    oracle = NumpyPhi3(path)
    with open_session(path, executor=executor) as session:
        for count in (1, 2, 40):
            ids = random_ids(count, options, seed=count)
            assert difference(session.logits(ids), oracle.logits(ids)[-1]) < TOLERANCE


def test_token_by_token_equals_numpy(variant: tuple[Path, TinyPhi3, Executor]) -> None:
    """Each call finds all but the last token in the cache: one decode step a token."""
    path, options, executor = variant
    ids = random_ids(60, options)
    expected = NumpyPhi3(path).logits(ids)
    with open_session(path, executor=executor) as session:
        found = [session.logits(ids[: count + 1]) for count in range(len(ids))]
    assert difference(found, expected) < TOLERANCE


def test_greedy_generation_equals_numpy(variant: tuple[Path, TinyPhi3, Executor]) -> None:
    path, options, executor = variant
    prompt = random_ids(20, options)
    with open_session(path, executor=executor) as session:
        completion = session.generate(prompt, max_tokens=40, temperature=0, logprobs=3, ignore_eos=True)
    assert completion.logprobs is not None
    assert len(completion.tokens) == 40
    rows = log_softmax_rows(NumpyPhi3(path).logits(prompt + list(completion.tokens)))[len(prompt) - 1 : -1]
    for row, token, logprob in zip(rows, completion.tokens, completion.logprobs, strict=True):
        # Where two are as good within the tolerance, either is right.
        assert row[token] > row.max() - 2 * TOLERANCE
        assert abs(logprob.logprob - row[token]) < TOLERANCE
        best = np.sort(row)[::-1][:3]
        assert difference([value for _, value in logprob.top], best) < TOLERANCE


@pytest.mark.parametrize("name", ["plain", "gqa", "window_4", "all_at_once"])
def test_a_long_prompt_is_the_same_in_one_call_in_pieces_and_token_by_token(tmp_path: Path, name: str) -> None:
    options = replace(VARIANTS[name], context_length=1024)
    path = write(tmp_path / "long.gguf", options)
    ids = random_ids(700, options)
    expected = NumpyPhi3(path).logits(ids)[-1]
    pieces = (1, 2, 255, 256, 257, 511, 640, len(ids))
    with open_session(path) as whole, open_session(path) as parts, open_session(path) as single:
        at_once = whole.logits(ids)
        for end in pieces:
            in_pieces = parts.logits(ids[:end])
        for end in range(1, len(ids) + 1):
            one_by_one = single.logits(ids[:end])
    worst = [difference(found, expected) for found in (at_once, in_pieces, one_by_one)]
    print(f"{name}, 700 tokens: at once {worst[0]:.1e}, in pieces {worst[1]:.1e}, one by one {worst[2]:.1e}")
    assert max(worst) < TOLERANCE


def test_a_cached_prefix_equals_a_fresh_session(variant: tuple[Path, TinyPhi3, Executor]) -> None:
    path, options, executor = variant
    oracle = NumpyPhi3(path)
    first, second = random_ids(50, options, seed=1), random_ids(50, options, seed=2)
    prompts = [
        first,
        first[:30] + second[30:],  # goes back and takes another way
        first[:10],  # goes back
        first,  # takes the first way again
        first,  # nothing is new
        second,  # only BOS is shared
    ]
    with open_session(path, executor=executor) as session:
        for prompt in prompts:
            assert difference(session.logits(prompt), oracle.logits(prompt)[-1]) < TOLERANCE


def test_generation_reuses_a_cached_prefix_and_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf")
    ids = random_ids(40)
    with open_session(path) as session, open_session(path) as fresh:
        first = session.generate(ids[:30], max_tokens=1, temperature=0)
        second = session.generate(ids, max_tokens=8, temperature=0, ignore_eos=True)
        expected = fresh.generate(ids, max_tokens=8, temperature=0, ignore_eos=True)
    assert first.usage.cached_tokens == 0
    assert second.usage.cached_tokens == 30
    assert expected.usage.cached_tokens == 0
    assert second.tokens == expected.tokens


def test_score_and_logits_leave_what_follows_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf")
    ids, others = random_ids(20, seed=1), random_ids(35, seed=2)
    with open_session(path) as session, open_session(path) as fresh:
        expected = fresh.generate(ids, max_tokens=16, temperature=0, ignore_eos=True)
        session.score(others)
        assert session.generate(ids, max_tokens=16, temperature=0, ignore_eos=True).tokens == expected.tokens
        session.logits(others)
        session.score(ids)
        assert session.generate(ids, max_tokens=16, temperature=0, ignore_eos=True).tokens == expected.tokens


@pytest.mark.parametrize("window", [1, 2, 5])
def test_the_window_ends_exactly_where_it_should(tmp_path: Path, window: int) -> None:
    """With one block, a token just outside the window changes nothing, and the oldest inside changes something."""
    options = TinyPhi3(block_count=1, sliding_window=window)
    path = write(tmp_path / "window.gguf", options)
    ids = random_ids(20, options)

    def with_changed(position: int) -> list[int]:
        changed = list(ids)
        changed[position] = changed[position] % 300 + 5
        return changed

    outside, inside = with_changed(len(ids) - 1 - window), with_changed(len(ids) - window)
    for prefill in (True, False):
        found = []
        for prompt in (ids, outside, inside):
            with open_session(path) as session:
                if not prefill:
                    for end in range(1, len(prompt)):
                        session.logits(prompt[:end])
                found.append(session.logits(prompt))
        assert difference(found[1], found[0]) < 1e-6
        assert difference(found[2], found[0]) > 1e-2


@pytest.mark.parametrize("dropped", [*sorted(OPTIONAL_KEYS), "all of them"])
def test_an_optional_key_may_be_missing(tmp_path: Path, dropped: str) -> None:
    keys = OPTIONAL_KEYS if dropped == "all of them" else frozenset({dropped})
    options = TinyPhi3(drop_keys=keys)
    path = write(tmp_path / "tiny.gguf", options)
    ids = random_ids(30, options)
    with open_session(path) as session:
        assert difference(session.score(ids), NumpyPhi3(path).log_probabilities(ids)) < TOLERANCE


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int32", "uint64", "int64"])
def test_a_count_may_have_any_integer_type(tmp_path: Path, kind: str) -> None:
    counts = (
        ("block_count", 2),
        ("attention.head_count", 4),
        ("embedding_length", 64),
        ("rope.dimension_count", 16),
    )
    options = TinyPhi3(metadata={f"phi3.{name}": (kind, value) for name, value in counts})
    path = write(tmp_path / "tiny.gguf", options)
    ids = random_ids(10, options)
    with open_session(path) as session:
        assert difference(session.score(ids), NumpyPhi3(path).log_probabilities(ids)) < TOLERANCE


@pytest.mark.parametrize("mmap", [True, False])
def test_mapped_and_read_files_are_the_same(tmp_path: Path, mmap: bool) -> None:
    path = write(tmp_path / "tiny.gguf")
    ids = random_ids(30)
    with open_session(path, mmap=mmap) as session:
        assert difference(session.score(ids), NumpyPhi3(path).log_probabilities(ids)) < TOLERANCE


def test_f16_weights_are_computed_exactly(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf", TinyPhi3(tensor_type="F16"))
    ids = random_ids(100)
    with open_session(path) as session:
        assert difference(session.score(ids), NumpyPhi3(path).log_probabilities(ids)) < TOLERANCE


@pytest.mark.parametrize("executor", ["kernels", "candle"])
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "IQ4_NL", "IQ4_XS"])
def test_quantized_weights_differ_only_by_the_rounding_of_activations(
    tmp_path: Path, kind: str, executor: Literal["kernels", "candle"]
) -> None:
    """The oracle multiplies with the same weights, but does not round activations to eight bits."""
    options = TinyPhi3(tensor_type=kind, head_dim=64, head_count_kv=2, feed_forward_length=256)
    path = write(tmp_path / "tiny.gguf", options)
    ids = random_ids(100, options)
    expected = NumpyPhi3(path).logits(ids)
    with Phi3Session(path, kv_dtype="f32", executor=executor) as session:
        found = np.array([session.logits(ids[: count + 1]) for count in range(len(ids))])
    error = float(((found - expected) ** 2).mean() / (expected**2).mean())
    print(f"{kind}, {executor}: normalised mean square error {error:.1e}")
    assert error < 2e-3


def test_a_half_precision_cache_is_close(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf", TinyPhi3(head_count_kv=2))
    ids = random_ids(200)
    with open_session(path, kv_dtype="f16") as session:
        worst = difference(session.score(ids), NumpyPhi3(path).log_probabilities(ids))
    print(f"f16 cache: largest difference {worst:.1e}")
    assert worst < 0.05
