"""Files whose metadata and tensors say different things: refused, with both values in the message."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_llama
from candle_phi import InferenceError, InvalidModelError, Phi3Session, UnsupportedModelError, inspect_model
from messages import mentions
from tiny_gguf import TinyPhi3, weights, write

FACTORS = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7)
LONG_ROPE: dict[str, Any] = {
    "rope_factors_short": FACTORS,
    "rope_factors_long": FACTORS,
    "context_length": 131072,
    "original_context_length": 4096,
}


def refused(path: Path, *texts: str, error: type[Exception] = InvalidModelError) -> None:
    with pytest.raises(error) as caught:
        Phi3Session(path)
    mentions(caught.value, path, *texts)


def test_head_counts(tmp_path: Path) -> None:
    grouped = TinyPhi3(head_count=4, head_count_kv=2, metadata={"phi3.attention.head_count_kv": 4})
    # 4 + 2 + 2 heads of 16 are there, 4 + 4 + 4 are named.
    refused(write(tmp_path / "kv.gguf", grouped), "blk.0.attn_qkv.weight", "128", "192")
    wide = TinyPhi3(metadata={"phi3.attention.head_count": 8})
    refused(write(tmp_path / "q.gguf", wide), "phi3.rope.dimension_count", "8", "16")


def test_feed_forward_length(tmp_path: Path) -> None:
    path = write(tmp_path / "ffn.gguf", TinyPhi3(metadata={"phi3.feed_forward_length": 64}))
    refused(path, "blk.0.ffn_up.weight", "192", "128")


def test_rope_dimension(tmp_path: Path) -> None:
    halved = TinyPhi3(**LONG_ROPE, metadata={"phi3.rope.dimension_count": 8})
    refused(write(tmp_path / "rope.gguf", halved), "rope_factors_short.weight", "[8]", "[4]")


@pytest.mark.parametrize("blocks", [1, 3])
def test_block_count(tmp_path: Path, blocks: int) -> None:
    path = write(tmp_path / "blocks.gguf", TinyPhi3(metadata={"phi3.block_count": blocks}))
    refused(path, "block_count", str(blocks), "2")


@pytest.mark.parametrize("rows", [318, 330])
def test_vocabulary_length(tmp_path: Path, rows: int) -> None:
    matrix = np.zeros((rows, 64), np.float32)
    changed = {"token_embd.weight": matrix, "output.weight": matrix}
    refused(write(tmp_path / "rows.gguf", TinyPhi3(tensors=changed)), "tokenizer.ggml.tokens", "320", str(rows))
    named = TinyPhi3(metadata={"phi3.vocab_size": rows})
    refused(write(tmp_path / "named.gguf", named), "phi3.vocab_size", "320", str(rows))


@pytest.mark.parametrize("missing", ["short", "long"])
def test_one_set_of_factors_without_the_other(tmp_path: Path, missing: str) -> None:
    options = LONG_ROPE | {f"rope_factors_{missing}": None}
    refused(write(tmp_path / "half.gguf", **options), f"rope_factors_{missing}.weight", "131072", "4096")


@pytest.mark.parametrize("names_the_original", [True, False])
def test_an_extended_context_without_factors(tmp_path: Path, names_the_original: bool) -> None:
    dropped = () if names_the_original else ("phi3.rope.scaling.original_context_length",)
    bare = LONG_ROPE | {"rope_factors_short": None, "rope_factors_long": None, "drop_keys": frozenset(dropped)}
    refused(write(tmp_path / "none.gguf", **bare), "rope_factors_long.weight", "131072", "4096")


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_a_factor_that_cannot_be(tmp_path: Path, factor: float) -> None:
    options = LONG_ROPE | {"rope_factors_long": (*FACTORS[:-1], factor)}
    refused(write(tmp_path / "factor.gguf", **options), "rope_factors_long.weight")


def test_rotary_frequencies_of_another_family(tmp_path: Path) -> None:
    llama3 = TinyPhi3(tensors={"rope_freqs.weight": np.ones(8, np.float32)})
    refused(write(tmp_path / "freqs.gguf", llama3), "rope_freqs.weight", error=UnsupportedModelError)


@pytest.mark.parametrize("name", ["Phi 3 Small 8k Instruct", "phi-3-small-128k-instruct", "Phi3-Small"])
def test_a_name_refuses_nothing(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "small.gguf", TinyPhi3(metadata={"general.name": name}))
    assert inspect_model(path).name == name


@pytest.mark.parametrize("architecture", ["phi3small", "phi3-small"])
def test_phi_3_small_is_refused_by_its_architecture(tmp_path: Path, architecture: str) -> None:
    small = TinyPhi3(metadata={"general.architecture": architecture})
    refused(write(tmp_path / "small.gguf", small), "Phi-3-small", error=UnsupportedModelError)


def test_phi_3_5_moe_is_refused_by_its_architecture(tmp_path: Path) -> None:
    moe = TinyPhi3(metadata={"general.architecture": "phimoe"})
    refused(write(tmp_path / "moe.gguf", moe), "Phi-3.5-MoE", error=UnsupportedModelError)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope.scaling.type", "linear"),
        ("rope.scaling.type", "yarn"),
        ("rope.scale_linear", 4.5),
        ("rope.scaling.factor", 2.5),
    ],
)
def test_positions_that_are_stretched_in_another_way(tmp_path: Path, key: str, value: object) -> None:
    stretched = TinyPhi3(metadata={f"phi3.{key}": value})
    refused(write(tmp_path / "stretched.gguf", stretched), f"phi3.{key}", str(value), error=UnsupportedModelError)


@pytest.mark.parametrize("kind", ["none", "longrope"])
def test_the_names_of_the_family_s_own_scaling_are_taken(tmp_path: Path, kind: str) -> None:
    factors = LONG_ROPE if kind == "longrope" else {}
    named = TinyPhi3(**factors, metadata={"phi3.rope.scaling.type": kind})
    Phi3Session(write(tmp_path / "named.gguf", named)).close()


def test_a_llama_that_turns_a_part_of_its_heads(tmp_path: Path) -> None:
    path = tiny_llama.write(tmp_path / "part.gguf", TinyPhi3(metadata={"phi3.rope.dimension_count": 8}))
    refused(path, "llama.rope.dimension_count", "16", "8")


def test_long_rope_that_is_named_and_not_there(tmp_path: Path) -> None:
    named = TinyPhi3(metadata={"phi3.rope.scaling.type": "longrope"})
    refused(write(tmp_path / "named.gguf", named), "rope_factors_long.weight")


@pytest.mark.parametrize("factor", [0.0, -1.0, 1e38])
def test_an_attention_factor_that_cannot_be(tmp_path: Path, factor: float) -> None:
    path = write(tmp_path / "factor.gguf", TinyPhi3(metadata={"phi3.rope.scaling.attn_factor": factor}))
    refused(path, "phi3.rope.scaling.attn_factor")


def test_frequencies_that_overflow(tmp_path: Path) -> None:
    refused(write(tmp_path / "base.gguf", TinyPhi3(freq_base=1e-44)), "rope.freq_base")
    refused(write(tmp_path / "factors.gguf", **LONG_ROPE | {"rope_factors_long": (1e-44,) * 8}), "rope.freq_base")


@pytest.mark.parametrize("name", ["blk.0.attn_norm.bias", "blk.0.attn_q_norm.weight", "blk.0.ffn_gate_inp.weight"])
def test_a_tensor_that_nothing_computes_with(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "more.gguf", TinyPhi3(tensors={name: np.ones(16, np.float32)}))
    refused(path, name, error=UnsupportedModelError)


def test_weights_that_are_no_numbers_are_an_error_and_no_result(tmp_path: Path) -> None:
    output = weights(TinyPhi3())["output.weight"].copy()
    output[300] = np.nan
    path = write(tmp_path / "nan.gguf", TinyPhi3(tensors={"output.weight": output}))
    with Phi3Session(path) as session:
        for compute in (session.score, session.logits, session.generate):
            with pytest.raises(InferenceError, match="NaN"):
                compute([1, 5, 9])
