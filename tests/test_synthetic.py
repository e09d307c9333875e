"""The synthetic files that are measured have the tensors and the vocabularies of the real ones."""

import json
import sys
from collections import Counter
from pathlib import Path

import gguf
import numpy as np
import pytest

import candle_phi

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import synthetic
import synthetic_blocks
import synthetic_vocabulary


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        # Of published Q4_K_M files.
        ("phi-3-mini-4k", {"F32": 65, "Q4_K": 81, "Q5_K": 32, "Q6_K": 17}),
        ("phi-4-mini", {"F32": 67, "Q4_K": 80, "Q5_K": 32, "Q6_K": 17}),
        ("phi-4", {"F32": 81, "Q4_K": 101, "Q5_K": 40, "Q6_K": 21}),
    ],
)
def test_the_mixture_is_that_of_the_published_file(name, counts):
    shape = synthetic.MODELS[name]
    shapes = synthetic.tensor_shapes(shape).items()
    found = Counter(synthetic.tensor_type(tensor, size, shape, "q4_k_m").name for tensor, size in shapes)
    assert found == counts


def types(name, mixture, **options):
    """The types of a model's tensors by what the tensors are for, each with the layers that have it."""
    shape = synthetic.MODELS[name]
    found: dict[str, Counter[str]] = {}
    for tensor, size in synthetic.tensor_shapes(shape, **options).items():
        if len(size) == 2:
            use = tensor.split(".")[-2]
            found.setdefault(use, Counter())[synthetic.tensor_type(tensor, size, shape, mixture).name] += 1
    return {use: dict(counts) for use, counts in found.items()}


@pytest.mark.parametrize(
    ("mixture", "special"),
    [
        ("q4_0", {"output": {"Q6_K": 1}}),
        ("q8_0", {}),
        ("f16", {}),
        ("q6_k", {}),
        ("q5_k_s", {"output": {"Q6_K": 1}}),
        ("q4_k_s", {"output": {"Q6_K": 1}, "ffn_down": {"Q5_K": 4, "Q4_K": 28}}),
        (
            "q5_k_m",
            {"output": {"Q6_K": 1}, "attn_qkv": {"Q6_K": 32}, "ffn_down": {"Q6_K": 16, "Q5_K": 16}},
        ),
        ("iq4_xs", {"output": {"Q6_K": 1}, "ffn_down": {"Q5_K": 4, "IQ4_XS": 28}}),
        ("q2_k", {"output": {"Q6_K": 1}, "ffn_down": {"Q3_K": 32}, "attn_output": {"Q3_K": 32}}),
        (
            "q3_k_m",
            {
                "output": {"Q6_K": 1},
                "attn_qkv": {"Q4_K": 32},
                "attn_output": {"Q4_K": 32},
                "ffn_down": {"Q5_K": 2, "Q4_K": 30},
            },
        ),
    ],
)
def test_a_mixture_gives_some_tensors_more_bits(mixture, special):
    base = synthetic_blocks.MIXTURES[mixture].base.name
    expected = {use: {base: 1} for use in ("token_embd", "output")}
    expected |= {use: {base: 32} for use in ("attn_qkv", "attn_output", "ffn_up", "ffn_down")}
    assert types("phi-3-mini-4k", mixture) == expected | special


def test_values_of_their_own_get_more_bits():
    assert types("phi-3-mini-4k", "q4_k_m", split_qkv=True)["attn_v"] == {"Q6_K": 16, "Q4_K": 16}
    assert types("phi-3-mini-4k", "q4_k_s", split_qkv=True)["attn_v"] == {"Q5_K": 4, "Q4_K": 28}
    assert types("phi-4", "iq4_xs", split_qkv=True)["attn_v"] == {"Q5_K": 40}
    assert types("phi-3-mini-4k", "iq4_xs", split_qkv=True)["attn_v"] == {"IQ4_XS": 32}


@pytest.mark.parametrize("kind", sorted({mixture.base for mixture in synthetic_blocks.MIXTURES.values()}))
def test_random_weights_are_as_large_as_real_ones(kind):
    rng = np.random.default_rng(1)
    weights = gguf.dequantize(synthetic_blocks.random_rows(rng, kind, 64, 1024), kind)
    assert weights.shape == (64, 1024)
    assert np.isfinite(weights).all()
    assert weights.std() == pytest.approx(1 / 32, rel=0.1)
    # Not quite around zero: the numbers of Q4_0 go from -8 to 7.
    assert abs(weights.mean()) < 0.15 / 32


@pytest.mark.thread_unsafe(reason="it adds a model to the program's list, and takes it away again")
@pytest.mark.parametrize("mixture", ["bf16", "iq4_xs", "q2_k", "q5_0", "q5_k_m"])
def test_a_file_of_each_mixture_is_sound(mixture, tmp_path):
    path = tmp_path / "tiny.gguf"
    tiny = synthetic.Shape(
        block_count=2,
        embedding_length=256,
        head_count=4,
        head_count_kv=4,
        head_dim=64,
        feed_forward_length=256,
        vocabulary_size=32064,
        rope_dimension_count=64,
    )
    synthetic.MODELS["tiny"] = tiny
    try:
        synthetic.write(path, "tiny", mixture)
    finally:
        del synthetic.MODELS["tiny"]
    reader = gguf.GGUFReader(path)
    assert len(reader.tensors) == 2 * 6 + 3
    assert reader.fields["general.file_type"].contents() == int(synthetic_blocks.FILE_TYPES[mixture])
    info = candle_phi.inspect_model(path)
    assert info.block_count == 2
    assert info.quantization == mixture.upper()


@pytest.mark.parametrize("pre", ["phi-2", "dbrx", "gpt-4o"])
def test_a_byte_level_vocabulary_can_build_each_of_its_pieces(pre):
    shape = next(shape for shape in synthetic.MODELS.values() if shape.pre_tokenizer == pre)
    tokens, merges, types = synthetic_vocabulary.bpe_vocabulary(shape.vocabulary_size, pre)
    assert len(tokens) == len(types) == len(set(tokens)) == shape.vocabulary_size
    ids = {token: token_id for token_id, token in enumerate(tokens)}
    assert all(len(token) == 1 for token in tokens[:256])
    for rank, merge in enumerate(merges):
        left, right = merge.split(" ")
        assert ids[left + right] == 256 + rank > max(ids[left], ids[right])
    normal = types.count(int(gguf.TokenType.NORMAL))
    assert normal == 256 + len(merges)
    assert set(types[normal:]) <= {int(gguf.TokenType[kind]) for kind in ("CONTROL", "USER_DEFINED", "UNUSED")}


def test_control_tokens_have_their_real_ids():
    def token(pre, *ids):
        shape = next(shape for shape in synthetic.MODELS.values() if shape.pre_tokenizer == pre)
        tokens, _, types = synthetic_vocabulary.bpe_vocabulary(shape.vocabulary_size, pre)
        return [(tokens[token_id], gguf.TokenType(types[token_id]).name) for token_id in ids]

    assert token("gpt-4o", 199998, 199999, 200018, 200019, 200020, 200021, 200022, 200028, 200029, 200063) == [
        ("[PAD199998]", "UNUSED"),
        ("<|endoftext|>", "CONTROL"),
        ("<|endofprompt|>", "CONTROL"),
        ("<|assistant|>", "CONTROL"),
        ("<|end|>", "CONTROL"),
        ("<|user|>", "CONTROL"),
        ("<|system|>", "CONTROL"),
        ("<|tag|>", "CONTROL"),
        ("[PAD200029]", "UNUSED"),
        ("[PAD200063]", "UNUSED"),
    ]
    assert token("dbrx", 100256, 100257, 100265, 100276, 100277, 100349, 100351) == [
        ("<|dummy_0|>", "CONTROL"),
        ("<|endoftext|>", "CONTROL"),
        ("<|im_end|>", "CONTROL"),
        ("<|endofprompt|>", "CONTROL"),
        ("<|dummy_13|>", "CONTROL"),
        ("<|dummy_85|>", "CONTROL"),
        ("<|dummy_87|>", "CONTROL"),
    ]
    assert token("phi-2", 50256, 50257, 50286, 50287, 50294, 50295) == [
        ("<|endoftext|>", "CONTROL"),
        (" " * 31, "USER_DEFINED"),
        ("  ", "USER_DEFINED"),
        ("\t" * 9, "USER_DEFINED"),
        ("\t\t", "USER_DEFINED"),
        ("[PAD50295]", "UNUSED"),
    ]
    tokens, _, _ = synthetic_vocabulary.spm_vocabulary(32064)
    assert (tokens[32000], tokens[32005], tokens[32010]) == ("<|endoftext|>", "<|placeholder4|>", "<|user|>")


def test_rope_factors_are_those_that_are_given(tmp_path):
    given = tmp_path / "factors.json"
    factors = {"long_factor": [float(index) for index in range(48)], "short_factor": [2.0] * 48}
    given.write_text(json.dumps({"phi-4-mini-instruct": factors}), encoding="utf-8")
    found = synthetic.rope_factors("phi-4-mini", given)
    assert [list(values) for values in found.values()] == [factors["long_factor"], factors["short_factor"]]
    for name, shape in synthetic.MODELS.items():
        stand_ins = synthetic.rope_factors(name, None)
        assert len(stand_ins) == (2 if shape.original_context_length else 0)
        assert all(len(values) == shape.rope_dimension_count // 2 for values in stand_ins.values())
