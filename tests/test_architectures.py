"""The same model under other names: converted as Llama, with split tensors; and phi2, which is another."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tiny_byte_level
import tiny_llama
import tiny_phi2
from candle_phi import InvalidModelError, Phi3Session, UnsupportedModelError, inspect_model
from numpy_phi3 import NumpyPhi3
from tiny_gguf import CONTROL_TOKENS, TinyPhi3, random_ids, vocabulary, weights, write
from tiny_phi2 import TinyPhi2

TOLERANCE = 5e-5
"""Of a natural-log probability, between two orders of the same F32 sums; they spread over about ten."""

LONG_ROPE = TinyPhi3(
    rope_factors_short=(1.0, 1.05, 1.1, 1.2, 1.4, 1.7, 2.0, 2.5),
    rope_factors_long=(1.0, 1.5, 2.0, 4.0, 8.0, 16.0, 24.0, 32.0),
    original_context_length=100,
    attn_factor=1.19,
)
LLAMAS = {
    "plain": TinyPhi3(),
    "grouped": TinyPhi3(head_count_kv=2, seed=1),
    "one_key_head": TinyPhi3(head_count_kv=1, seed=2),
    "base_250000": TinyPhi3(freq_base=250_000.0, seed=3),
    "phi_4": TinyPhi3(head_count_kv=2, freq_base=250_000.0, seed=7),
    "odd_sizes": TinyPhi3(head_count=6, head_count_kv=2, head_dim=20, tied_output=True),
    "long_rope": LONG_ROPE,
}


def scores(path: Path, ids: list[int]) -> np.ndarray:
    with Phi3Session(path, kv_dtype="f32") as session:
        return np.array(session.score(ids))


def largest_difference(found: object, expected: object) -> float:
    return float(np.abs(np.asarray(found) - np.asarray(expected)).max())


@pytest.mark.parametrize("name", LLAMAS)
def test_a_file_converted_as_llama_is_the_same_model(tmp_path: Path, name: str) -> None:
    options = LLAMAS[name]
    phi3 = write(tmp_path / "phi3.gguf", options)
    llama = tiny_llama.write(tmp_path / "llama.gguf", options)
    unsorted = tiny_llama.write(tmp_path / "unsorted.gguf", options, permute=False)
    assert inspect_model(llama).architecture == "llama"
    for length in (2, 90, 150):
        ids = random_ids(length, options, seed=length)
        found = scores(llama, ids)
        differences = [
            largest_difference(found, scores(phi3, ids)),
            largest_difference(found, NumpyPhi3(phi3).log_probabilities(ids)),
        ]
        print(f"{name}, {length} tokens: from phi3 {differences[0]:.1e}, from numpy {differences[1]:.1e}")
        assert max(differences) < TOLERANCE
        # The one position of two tokens is not turned, and sees itself only: any order of rows would do.
        if length > 2:
            assert largest_difference(found, scores(unsorted, ids)) > 1e4 * TOLERANCE


def test_a_llama_file_is_the_same_model_token_by_token(tmp_path: Path) -> None:
    options = LLAMAS["phi_4"]
    ids = random_ids(60, options)
    expected = NumpyPhi3(write(tmp_path / "phi3.gguf", options)).logits(ids)
    with Phi3Session(tiny_llama.write(tmp_path / "llama.gguf", options), kv_dtype="f32") as session:
        found = [session.logits(ids[: count + 1]) for count in range(len(ids))]
    assert largest_difference(found, expected) < TOLERANCE


@pytest.mark.parametrize(("kind", "values"), [("Q8_0", None), ("Q4_0", "Q8_0"), ("Q4_0", "F16")])
def test_a_quantized_llama_file_is_the_same_model(tmp_path: Path, kind: str, values: str | None) -> None:
    """Also where the values have a type of their own, which a fused tensor cannot have."""
    options = TinyPhi3(head_dim=32, head_count_kv=2, tensor_type=kind, value_type=values)
    ids = random_ids(100, options)
    phi3 = scores(write(tmp_path / "phi3.gguf", replace(options, split_qkv=True)), ids)

    def error(path: Path) -> float:
        return float(((scores(path, ids) - phi3) ** 2).mean() / phi3.var())

    # Not a largest difference: another order of a sum, and an activation rounds to the other of two eight-bit
    # numbers, which moves what follows it by a few hundredths.
    found = error(tiny_llama.write(tmp_path / "llama.gguf", options))
    print(f"{kind}, values {values}: normalised mean square error {found:.1e}")
    assert found < 2e-4
    assert error(tiny_llama.write(tmp_path / "unsorted.gguf", options, permute=False)) > 0.1


def test_a_llama_file_chats_as_phi_3(tmp_path: Path) -> None:
    bare = TinyPhi3(drop_keys=frozenset({"tokenizer.chat_template"}))
    with (
        Phi3Session(write(tmp_path / "phi3.gguf", bare)) as phi3,
        Phi3Session(tiny_llama.write(tmp_path / "llama.gguf", bare)) as llama,
    ):
        assert llama.model.info.chat_format == phi3.model.info.chat_format == "phi3"
        messages = [{"role": "user", "content": "hello world"}]
        assert llama.model.render_chat_tokens(messages) == phi3.model.render_chat_tokens(messages)


@pytest.mark.parametrize("missing", [["<|user|>"], ["<|assistant|>"], ["<|end|>"], list(CONTROL_TOKENS)])
def test_a_llama_that_is_not_phi_is_refused(tmp_path: Path, missing: list[str]) -> None:
    tokens, *_ = vocabulary(320)
    renamed = [token.replace("<|", "<!") if token in missing else token for token in tokens]
    other = TinyPhi3(metadata={"tokenizer.ggml.tokens": renamed, "tokenizer.chat_template": None})
    with pytest.raises(UnsupportedModelError, match=r"other\.gguf.*llama"):
        Phi3Session(tiny_llama.write(tmp_path / "other.gguf", other))


def test_the_window_of_the_4k_models_is_inferred_from_a_llama_file_too(tmp_path: Path) -> None:
    small = TinyPhi3(
        block_count=32, context_length=4096, head_count=1, head_count_kv=1, head_dim=8, feed_forward_length=8
    )
    assert inspect_model(tiny_llama.write(tmp_path / "mini.gguf", small)).sliding_window == 2047


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_split_projections_are_the_fused_ones(tmp_path: Path, kv_heads: int) -> None:
    ids = random_ids(80)
    fused = write(tmp_path / "fused.gguf", TinyPhi3(head_count_kv=kv_heads))
    split = write(tmp_path / "split.gguf", TinyPhi3(head_count_kv=kv_heads, split_qkv=True))
    gated = TinyPhi3(head_count_kv=kv_heads)
    parts = {
        name.replace("ffn_up", part): half
        for name, tensor in weights(gated).items()
        if "ffn_up" in name
        for part, half in zip(("ffn_gate", "ffn_up"), np.split(tensor, 2), strict=True)
    }
    gate = write(tmp_path / "gate.gguf", TinyPhi3(head_count_kv=kv_heads, tensors=parts))
    expected = scores(fused, ids)
    np.testing.assert_allclose(scores(split, ids), expected, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(scores(gate, ids), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    "tensor",
    ["blk.0.attn_qkv.bias", "blk.1.ffn_up.bias", "output.bias", "output_norm.bias", "blk.0.attn_norm.bias"],
)
def test_a_phi_2_without_one_of_its_biases_is_damaged(tmp_path: Path, tensor: str) -> None:
    with pytest.raises(InvalidModelError, match=tensor.replace(".", r"\.")):
        Phi3Session(tiny_phi2.write(tmp_path / "bare.gguf", TinyPhi2(tensors={tensor: None})))


def test_a_phi_2_must_say_how_much_of_a_head_it_turns(tmp_path: Path) -> None:
    silent = TinyPhi2(metadata={"phi2.rope.dimension_count": None})
    with pytest.raises(InvalidModelError, match=r"phi2\.rope\.dimension_count"):
        Phi3Session(tiny_phi2.write(tmp_path / "silent.gguf", silent))


def test_phi_2_generates_and_has_no_chat_format(tmp_path: Path) -> None:
    with Phi3Session(tiny_phi2.write(tmp_path / "phi2.gguf")) as session:
        completion = session.generate("hello the ice", max_tokens=5, seed=1, ignore_eos=True)
        assert len(completion.tokens) == 5
        assert session.model.info.chat_format is None
        with pytest.raises(UnsupportedModelError, match=r"phi2\.gguf"):
            session.chat("hello")


@pytest.mark.parametrize(("pre", "chat_format"), [("dbrx", "phi4"), ("gpt-4o", "phi4-mini")])
def test_the_vocabularies_of_phi_4_chat_in_their_own_format(tmp_path: Path, pre: str, chat_format: str) -> None:
    model = TinyPhi3(metadata=tiny_byte_level.metadata(pre, 320))
    with Phi3Session(write(tmp_path / "phi4.gguf", model)) as session:
        assert session.model.info.chat_format == chat_format
        ids = session.model.render_chat_tokens([{"role": "user", "content": "hello <|end|><|im_end|>"}])
        control = tiny_byte_level.CONTROL_TOKENS[pre]
        texts = [session.detokenize([token]) for token in ids]
        end = "<|im_end|>" if pre == "dbrx" else "<|end|>"
        assert [text for text in texts if text in control].count(end) == 1
        first = session.chat("hello", max_tokens=4, seed=1, ignore_eos=True)
        second = session.chat("the ice", max_tokens=4, seed=1, ignore_eos=True)
        assert second.usage.cached_tokens >= first.usage.prompt_tokens


def test_an_unknown_pre_tokenizer_is_never_guessed(tmp_path: Path) -> None:
    for pre in ("qwen2", "default", None):
        pairs = tiny_byte_level.metadata("gpt-4o", 320) | {"tokenizer.ggml.pre": pre}
        with pytest.raises(UnsupportedModelError, match=r"tokenizer\.ggml\.pre"):
            Phi3Session(write(tmp_path / f"{pre}.gguf", TinyPhi3(metadata=pairs)))
