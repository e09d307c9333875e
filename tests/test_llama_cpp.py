"""The engine against llama.cpp, where llama-cpp-python is installed, in what llama.cpp has right.

What it has not is shown apart: the sliding window, which it switches off for these models, and LongRoPE in a
context that is longer than the original one while the sequence is shorter. There the numpy model is right.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_llama
import tiny_phi2
from candle_phi import Phi3Session
from numpy_phi3 import NumpyPhi3
from tiny_gguf import TinyPhi3, random_ids, write
from tiny_phi2 import TinyPhi2

llama_cpp: Any = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

TOLERANCE = 1e-4
"""Of a natural-log probability: F32 weights and an F32 cache on both sides, sums in another order.

Measured with llama-cpp-python 0.3.36 on x86-64: at most 3.1e-5, for the longest sequence.
"""

GELU_TOLERANCE = 5e-3
"""The same for phi2: llama.cpp looks GELU up in a table of half-precision numbers. Measured: at most 1.9e-3."""

LONG_ROPE = TinyPhi3(
    rope_factors_short=(1.0, 1.05, 1.1, 1.2, 1.4, 1.7, 2.0, 2.5),
    rope_factors_long=(1.0, 1.5, 2.0, 4.0, 8.0, 16.0, 24.0, 32.0),
    original_context_length=256,
    attn_factor=1.0607,
    head_dim=16,
)
MODELS = {
    "plain": (TinyPhi3(), 200, 256),
    "grouped_base_250000": (TinyPhi3(head_count_kv=2, freq_base=250_000.0, seed=1), 200, 256),
    "partial_rotary": (TinyPhi3(rope_dimension_count=12, seed=2), 200, 256),
    "tied_output": (TinyPhi3(tied_output=True, seed=3), 200, 256),
    "long_rope_short": (LONG_ROPE, 256, 256),
    "long_rope_long": (LONG_ROPE, 400, 512),
    "phi2_fused": (TinyPhi2(vocabulary_size=277), 200, 256),
    "phi2_split": (TinyPhi2(vocabulary_size=277, split_qkv=True, seed=6), 200, 256),
}


def log_probabilities(path: Path, ids: list[int], n_ctx: int) -> np.ndarray:
    """What llama.cpp says of each token but the first."""
    model = llama_cpp.Llama(
        str(path),
        n_ctx=n_ctx,
        n_batch=n_ctx,
        n_ubatch=n_ctx,
        n_threads=1,
        logits_all=True,
        flash_attn=False,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        verbose=False,
    )
    model.eval(ids)
    logits = np.array(model.scores[: len(ids)], dtype=np.float64)
    model.close()
    logits -= logits.max(axis=-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    scores: np.ndarray = logits[np.arange(len(ids) - 1), ids[1:]]
    return scores


def compare(path: Path, ids: list[int], n_ctx: int, tolerance: float = TOLERANCE) -> None:
    with Phi3Session(path, kv_dtype="f32") as session:
        found = np.array(session.score(ids))
    expected = log_probabilities(path, ids, n_ctx)
    print(f"largest difference {np.abs(found - expected).max():.1e}")
    np.testing.assert_allclose(found, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_log_probabilities_equal_llama_cpp(tmp_path: Path, name: str) -> None:
    model, length, n_ctx = MODELS[name]
    path = tmp_path / f"{name}.gguf"
    ids = [token % model.vocabulary_size for token in random_ids(length)]
    if isinstance(model, TinyPhi2):
        compare(tiny_phi2.write(path, model), ids, n_ctx, GELU_TOLERANCE)
    else:
        compare(write(path, model), ids, n_ctx)


LLAMAS = {
    "plain": (TinyPhi3(seed=4), 200, 256),
    "grouped": (TinyPhi3(head_count_kv=2, seed=4), 200, 256),
    "one_key_head_base_250000": (
        TinyPhi3(head_count_kv=1, freq_base=250_000.0, tied_output=True, seed=5),
        200,
        256,
    ),
}


@pytest.mark.parametrize("name", LLAMAS)
def test_a_file_converted_as_llama_equals_llama_cpp(tmp_path: Path, name: str) -> None:
    model, length, n_ctx = LLAMAS[name]
    compare(tiny_llama.write(tmp_path / f"{name}.gguf", model), random_ids(length, model), n_ctx)


OTHERS = {
    "window": (TinyPhi3(sliding_window=24), 200, 256, ("sliding_window", 0)),
    "long_rope_by_the_context": (LONG_ROPE, 200, 512, ("original_context_length", 0)),
}
"""With what the numpy model must be told to say what llama.cpp says."""


@pytest.mark.parametrize("name", OTHERS)
def test_where_llama_cpp_computes_something_else(tmp_path: Path, name: str) -> None:
    model, length, n_ctx, (attribute, value) = OTHERS[name]
    path = write(tmp_path / f"{name}.gguf", model)
    ids = random_ids(length, model)
    with Phi3Session(path, kv_dtype="f32") as session:
        found = np.array(session.score(ids))
    oracle = NumpyPhi3(path)
    np.testing.assert_allclose(found, oracle.log_probabilities(ids), atol=TOLERANCE, rtol=0)
    other = log_probabilities(path, ids, n_ctx)
    apart = np.abs(found - other).max()
    if apart < TOLERANCE:
        pytest.skip("this llama.cpp computes it as the published model does")
    assert apart > 1e3 * TOLERANCE
    setattr(oracle, attribute, value)
    explained = np.abs(oracle.log_probabilities(ids) - other).max()
    print(f"{name}: largest difference {apart:.1e}, with {attribute} {value} {explained:.1e}")
    assert explained < TOLERANCE
