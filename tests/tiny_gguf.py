"""Writes tiny random phi3 GGUF files with the PyPI package ``gguf``.

The writer shares no code with the engine, so a test that reads its files also tests the engine's
understanding of the format. A file is a few hundred kilobytes, has a valid SentencePiece vocabulary
with the family's control tokens, and loads like a real model.

Run as a program it writes one file: ``python tests/tiny_gguf.py /tmp/tiny.gguf``.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import gguf
import numpy as np
from gguf.quants import quantize

from iq4 import QUANTIZERS

CONTROL_TOKENS = ("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>")
"""Control tokens of the family, in the order of their ids in the real vocabulary."""

BYTE_TOKENS_START = 3
FIRST_PIECE = BYTE_TOKENS_START + 256

_WORDS = (
    "the ice hockey puck glides cold night a haiku about skates on frozen lake stick and goal crowd sings winter "
    "hello world I am you are how what is one two three four five six seven eight nine ten"
)

OPTIONAL_KEYS = frozenset(
    {
        "general.name",
        "phi3.attention.head_count_kv",
        "phi3.attention.sliding_window",
        "phi3.rope.dimension_count",
        "phi3.rope.freq_base",
        "phi3.rope.scaling.attn_factor",
        "phi3.rope.scaling.original_context_length",
        "tokenizer.ggml.add_bos_token",
        "tokenizer.ggml.padding_token_id",
        "tokenizer.ggml.pre",
        "tokenizer.ggml.unknown_token_id",
        "tokenizer.chat_template",
        "general.file_type",
        "general.quantization_version",
    }
)
"""Keys that files of the family may lack; each has a documented default."""

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{'<|' + message['role'] + '|>' + '\\n' + message['content'] + "
    "'<|end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


Tensor: TypeAlias = np.ndarray | tuple[gguf.GGMLQuantizationType, np.ndarray] | None


@dataclass(frozen=True, kw_only=True)
class TinyPhi3:
    """What a tiny file contains; every field has the default of a small plain Phi-3.

    ``metadata`` overrides or adds keys (``None`` drops a key), ``tensors`` overrides tensors by
    name (``None`` drops one, a type with bytes is written as it is): that is how files that contradict
    themselves are made.
    """

    block_count: int = 2
    head_count: int = 4
    head_count_kv: int = 4
    head_dim: int = 16
    width: int | None = None
    feed_forward_length: int = 96
    vocabulary_size: int = 320
    context_length: int = 512
    freq_base: float = 10_000.0
    rope_dimension_count: int | None = None
    rms_epsilon: float = 1e-5
    sliding_window: int = 0
    tensor_type: str = "F32"
    output_type: str | None = None
    value_type: str | None = None
    tied_output: bool = False
    split_qkv: bool = False
    vocabulary: bool = True
    rope_factors_short: tuple[float, ...] | None = None
    rope_factors_long: tuple[float, ...] | None = None
    original_context_length: int | None = None
    attn_factor: float | None = None
    attention_gain: float = 1.6
    output_gain: float = 2.0
    drop_keys: frozenset[str] = frozenset()
    metadata: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    architecture: str = "phi3"
    seed: int = 0

    @property
    def embedding_length(self) -> int:
        """Width of the residual stream: that of the query heads together, unless ``width`` says otherwise."""
        return self.width or self.head_count * self.head_dim


def vocabulary(size: int) -> tuple[list[str], list[float], list[int]]:
    """Tokens, scores and types of a valid SentencePiece vocabulary with ``size`` entries.

    Every prefix of a word is a piece, so that merging by score reaches the whole word.
    """
    tokens = ["<unk>", "<s>", "</s>"]
    types = [int(gguf.TokenType.CONTROL), int(gguf.TokenType.CONTROL), int(gguf.TokenType.USER_DEFINED)]
    scores = [-1000.0, -1000.0, -1000.0]
    for byte in range(256):
        tokens.append(f"<0x{byte:02X}>")
        types.append(int(gguf.TokenType.BYTE))
        scores.append(0.0)
    room = size - len(tokens) - len(CONTROL_TOKENS)
    if room < 0:
        message = f"a vocabulary needs at least {FIRST_PIECE + len(CONTROL_TOKENS)} tokens, got {size}"
        raise ValueError(message)
    letters = ["▁", *sorted({letter for word in _WORDS.split() for letter in word})]
    pieces = dict.fromkeys(letters)
    for word in _WORDS.split():
        for end in range(1, len(word) + 1):
            pieces.setdefault(f"▁{word[:end]}")
    for rank, piece in enumerate(list(pieces)[:room]):
        tokens.append(piece)
        types.append(int(gguf.TokenType.NORMAL))
        scores.append(-float(rank + 1))
    for token in CONTROL_TOKENS:
        tokens.append(token)
        types.append(int(gguf.TokenType.CONTROL))
        scores.append(-1000.0)
    while len(tokens) < size:
        tokens.append(f"[PAD{len(tokens)}]")
        types.append(int(gguf.TokenType.UNUSED))
        scores.append(-10000.0)
    return tokens, scores, types


def weights(options: TinyPhi3) -> dict[str, np.ndarray]:
    """Random float32 tensors, rows first, scaled so that attention is far from uniform and logits spread."""
    rng = np.random.default_rng(options.seed)
    width = options.embedding_length
    q_width = options.head_count * options.head_dim
    kv_width = options.head_count_kv * options.head_dim

    def matrix(rows: int, columns: int, gain: float = 1.0) -> np.ndarray:
        values: np.ndarray[Any, Any] = rng.standard_normal((rows, columns)) * gain / np.sqrt(columns)
        return values.astype(np.float32)

    def norm() -> np.ndarray:
        return rng.uniform(0.5, 1.5, width).astype(np.float32)

    # A tied embedding is also the output matrix, whose scale decides how far the logits spread.
    embedding_gain = options.output_gain if options.tied_output else np.sqrt(width)
    tensors = {"token_embd.weight": matrix(options.vocabulary_size, width, embedding_gain)}
    for name, factors in (("long", options.rope_factors_long), ("short", options.rope_factors_short)):
        if factors is not None:
            tensors[f"rope_factors_{name}.weight"] = np.array(factors, dtype=np.float32)
    for block in range(options.block_count):
        prefix = f"blk.{block}"
        tensors[f"{prefix}.attn_norm.weight"] = norm()
        q = matrix(q_width, width, options.attention_gain)
        k = matrix(kv_width, width, options.attention_gain)
        v = matrix(kv_width, width)
        if options.split_qkv:
            tensors |= {f"{prefix}.attn_q.weight": q, f"{prefix}.attn_k.weight": k, f"{prefix}.attn_v.weight": v}
        else:
            tensors[f"{prefix}.attn_qkv.weight"] = np.concatenate((q, k, v))
        tensors[f"{prefix}.attn_output.weight"] = matrix(width, q_width)
        tensors[f"{prefix}.ffn_norm.weight"] = norm()
        # The gate half is larger than the up half: swapping them must show.
        gate = matrix(options.feed_forward_length, width, 2.0)
        up = matrix(options.feed_forward_length, width, 0.7)
        tensors[f"{prefix}.ffn_up.weight"] = np.concatenate((gate, up))
        tensors[f"{prefix}.ffn_down.weight"] = matrix(width, options.feed_forward_length)
    tensors["output_norm.weight"] = norm()
    if not options.tied_output:
        tensors["output.weight"] = matrix(options.vocabulary_size, width, options.output_gain)
    return tensors


def metadata(options: TinyPhi3) -> dict[str, Any]:
    """The file's key-value pairs; the Python type of a value decides its GGUF type."""
    arch = options.architecture
    pairs: dict[str, Any] = {
        "general.name": "tiny random phi3",
        "general.file_type": int(gguf.LlamaFileType.ALL_F32),
        "general.quantization_version": 2,
        f"{arch}.context_length": options.context_length,
        f"{arch}.embedding_length": options.embedding_length,
        f"{arch}.feed_forward_length": options.feed_forward_length,
        f"{arch}.block_count": options.block_count,
        f"{arch}.attention.head_count": options.head_count,
        f"{arch}.attention.head_count_kv": options.head_count_kv,
        f"{arch}.attention.layer_norm_rms_epsilon": options.rms_epsilon,
        f"{arch}.attention.sliding_window": options.sliding_window,
        f"{arch}.rope.dimension_count": options.rope_dimension_count or options.head_dim,
        f"{arch}.rope.freq_base": options.freq_base,
        f"{arch}.rope.scaling.original_context_length": options.original_context_length or options.context_length,
    }
    if options.attn_factor is not None:
        pairs[f"{arch}.rope.scaling.attn_factor"] = options.attn_factor
    if options.vocabulary:
        tokens, scores, types = vocabulary(options.vocabulary_size)
        pairs |= {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.pre": "default",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.scores": scores,
            "tokenizer.ggml.token_type": types,
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": tokens.index("<|endoftext|>"),
            "tokenizer.ggml.unknown_token_id": 0,
            "tokenizer.ggml.padding_token_id": tokens.index("<|endoftext|>"),
            "tokenizer.ggml.add_bos_token": True,
            "tokenizer.chat_template": CHAT_TEMPLATE,
        }
    for key in options.drop_keys:
        pairs.pop(key, None)
    for key, value in options.metadata.items():
        if value is None:
            pairs.pop(key, None)
        else:
            pairs[key] = value
    return pairs


def add_key(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    """Adds a key whose GGUF type follows from the Python type of its value."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        (writer.add_uint32 if value >= 0 else writer.add_int32)(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, tuple):  # (writer method's suffix, value): an explicit GGUF type
        kind, inner = value
        getattr(writer, f"add_{kind}")(key, inner)
    else:
        writer.add_array(key, value)


def add_tensor(writer: gguf.GGUFWriter, name: str, tensor: np.ndarray, kind: str) -> None:
    """Adds a matrix as ``kind``; norms, biases and rope factors are vectors, and stay F32."""
    if tensor.ndim != 2:
        writer.add_tensor(name, np.ascontiguousarray(tensor, dtype=np.float32))
        return
    quantization = gguf.GGMLQuantizationType[kind]
    tensor = np.ascontiguousarray(tensor)
    own = QUANTIZERS.get(quantization)
    writer.add_tensor(name, own(tensor) if own else quantize(tensor, quantization), raw_dtype=quantization)


def finish(writer: gguf.GGUFWriter) -> None:
    """Writes what was added."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write(path: Path, options: TinyPhi3 | None = None, /, **changes: Any) -> Path:
    """Writes the file that ``options`` (or the keyword arguments of `TinyPhi3`) describe; returns ``path``."""
    options = options or TinyPhi3(**changes)
    writer = gguf.GGUFWriter(path, options.architecture)
    for key, value in metadata(options).items():
        add_key(writer, key, value)
    tensors: dict[str, Tensor] = dict(weights(options))
    tensors.update(options.tensors)
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if isinstance(tensor, tuple):
            writer.add_tensor(name, tensor[1], raw_dtype=tensor[0])
            continue
        kind = options.tensor_type
        if options.output_type is not None and name in {"output.weight", "token_embd.weight"}:
            kind = options.output_type
        if options.value_type is not None and name.endswith("attn_v.weight"):  # good mixes keep more of the values
            kind = options.value_type
        add_tensor(writer, name, tensor, kind)
    finish(writer)
    return path


def random_ids(count: int, options: TinyPhi3 | None = None, seed: int = 1) -> list[int]:
    """``count`` token ids of the vocabulary, the first of them BOS; the same for the same seed."""
    size = (options or TinyPhi3()).vocabulary_size
    ids = np.random.default_rng(seed).integers(BYTE_TOKENS_START, size, count)
    return [1, *map(int, ids[1:])]


def main() -> None:
    """Writes one file from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("path", type=Path)
    parser.add_argument("--tensor-type", default="F32", choices=["F32", "F16", "Q8_0", "Q4_0"])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    head_dim = 32 if arguments.tensor_type in {"Q8_0", "Q4_0"} else 16  # rows must be whole blocks of 32
    write(arguments.path, tensor_type=arguments.tensor_type, head_dim=head_dim, seed=arguments.seed)


if __name__ == "__main__":
    main()
