"""Writes GGUF files of random weights in the real shape of the family's models.

Random weights cost exactly what real ones cost: the shapes, the tensor types and the bytes that a token reads are
those of the published files. What such a model says is noise. Nothing is held in memory but a few megabytes.

    python benchmarks/synthetic.py phi-3-mini-4k /tmp/phi-3-mini-4k-q4_k_m.gguf
    python benchmarks/synthetic.py phi-4-mini /tmp/phi-4-mini-q8_0.gguf --mixture q8_0
    python benchmarks/synthetic.py phi-3-mini-4k /tmp/x.gguf --vocab ggml-vocab-phi-3.gguf   # a real vocabulary
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

CHUNK_BYTES = 8 << 20


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Hyperparameters of one published model."""

    architecture: str = "phi3"
    block_count: int = 32
    embedding_length: int = 3072
    head_count: int = 32
    head_count_kv: int = 32
    head_dim: int = 96
    feed_forward_length: int = 8192
    vocabulary_size: int = 32064
    freq_base: float = 10_000.0
    rope_dimension_count: int = 96
    context_length: int = 4096
    original_context_length: int | None = None
    sliding_window: int = 0
    tied_output: bool = False
    tokenizer: str = "llama"
    pre_tokenizer: str = "default"
    bos: int = 1
    eos: int = 32000


_MEDIUM: dict[str, Any] = {
    "block_count": 40,
    "embedding_length": 5120,
    "head_count": 40,
    "head_count_kv": 10,
    "head_dim": 128,
    "feed_forward_length": 17920,
    "rope_dimension_count": 128,
}
_PHI_4: dict[str, Any] = _MEDIUM | {
    "vocabulary_size": 100352,
    "tokenizer": "gpt2",
    "pre_tokenizer": "dbrx",
    "bos": 100257,
    "eos": 100265,
}
_PHI_2: dict[str, Any] = {
    "architecture": "phi2",
    "vocabulary_size": 51200,
    "context_length": 2048,
    "rope_dimension_count": 32,
    "tokenizer": "gpt2",
    "pre_tokenizer": "phi-2",
    "bos": 50256,
    "eos": 50256,
}
_LONG: dict[str, Any] = {"context_length": 131072, "original_context_length": 4096}

MODELS: dict[str, Shape] = {
    "phi-3-mini-4k": Shape(sliding_window=2047),
    "phi-3-mini-128k": Shape(sliding_window=262144, **_LONG),
    "phi-3.5-mini": Shape(sliding_window=262144, **_LONG),
    "phi-3-medium-4k": Shape(sliding_window=2047, **_MEDIUM),
    "phi-3-medium-128k": Shape(sliding_window=131072, **_MEDIUM, **_LONG),
    "phi-4": Shape(freq_base=250_000.0, context_length=16384, **_PHI_4),
    "phi-4-reasoning": Shape(freq_base=500_000.0, context_length=32768, **_PHI_4),
    "phi-4-mini": Shape(
        head_count=24,
        head_count_kv=8,
        head_dim=128,
        vocabulary_size=200064,
        sliding_window=262144,
        tied_output=True,
        tokenizer="gpt2",
        pre_tokenizer="gpt-4o",
        bos=199999,
        eos=199999,
        **_LONG,
    ),
    "phi-2": Shape(embedding_length=2560, head_dim=80, feed_forward_length=10240, **_PHI_2),
    "phi-1.5": Shape(block_count=24, embedding_length=2048, head_dim=64, feed_forward_length=8192, **_PHI_2),
}
MIXTURES = ("q4_k_m", "q8_0", "q4_0", "f16")
FILE_TYPES = {
    "q4_k_m": gguf.LlamaFileType.MOSTLY_Q4_K_M,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
}


def tensor_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Every tensor of the file in the order of the file, rows first."""
    width, ffn = shape.embedding_length, shape.feed_forward_length
    q_rows, kv_rows = shape.head_count * shape.head_dim, shape.head_count_kv * shape.head_dim
    phi2 = shape.architecture == "phi2"
    tensors: dict[str, tuple[int, ...]] = {"token_embd.weight": (shape.vocabulary_size, width)}
    if shape.original_context_length is not None:
        for which in ("long", "short"):
            tensors[f"rope_factors_{which}.weight"] = (shape.rope_dimension_count // 2,)
    for block in range(shape.block_count):
        prefix = f"blk.{block}"
        layer = {
            "attn_norm": (width,),
            "attn_qkv": (q_rows + 2 * kv_rows, width),
            "attn_output": (width, q_rows),
            "ffn_norm": (width,),
            "ffn_up": (ffn if phi2 else 2 * ffn, width),
            "ffn_down": (width, ffn),
        }
        if phi2:  # attention and feed-forward share one norm
            del layer["ffn_norm"]
        for name, dimensions in layer.items():
            tensors[f"{prefix}.{name}.weight"] = dimensions
            if phi2:
                tensors[f"{prefix}.{name}.bias"] = dimensions[:1]
    tensors["output_norm.weight"] = (width,)
    if not shape.tied_output:
        tensors["output.weight"] = (shape.vocabulary_size, width)
    if phi2:
        tensors |= {"output_norm.bias": (width,), "output.bias": (shape.vocabulary_size,)}
    return tensors


def tensor_type(name: str, dimensions: tuple[int, ...], shape: Shape, mixture: str) -> Type:
    """The type that llama.cpp's quantizer gives a tensor in this mixture."""
    if len(dimensions) == 1:
        return Type.F32
    is_output = name == ("token_embd.weight" if shape.tied_output else "output.weight")
    if mixture == "f16":
        return Type.F16
    if mixture == "q8_0":
        return Type.Q8_0
    if mixture == "q4_0":
        return Type.Q6_K if is_output else Type.Q4_0
    if is_output:
        return Type.Q6_K
    if "attn_qkv" in name:
        return Type.Q5_K
    if "ffn_down" in name:
        block, layers = int(name.split(".")[1]), shape.block_count
        eighth = layers // 8
        more_bits = block < eighth or block >= 7 * layers // 8 or (block - eighth) % 3 == 2
        return Type.Q6_K if more_bits else Type.Q4_K
    return Type.Q4_K


# Where the f16 scales of a block lie, and their size relative to the weights' standard deviation. The minimum of a
# Q4_K or Q5_K block is subtracted, so it is tied to the scale: weights then lie around zero, as real ones do.
_SCALES: dict[Type, list[tuple[int, float]]] = {
    Type.Q4_0: [(0, 1 / 4.6)],
    Type.Q8_0: [(0, 1 / 74.0)],
    Type.Q4_K: [(0, 1 / 258.0), (2, 7.5 / 258.0)],
    Type.Q5_K: [(0, 1 / 530.0), (2, 15.5 / 530.0)],
    Type.Q6_K: [(208, 1 / 1365.0)],
}


def random_rows(rng: np.random.Generator, kind: Type, rows: int, columns: int) -> np.ndarray[Any, Any]:
    """Random valid data of ``rows`` rows, (rows, bytes); weights have standard deviation ``1 / sqrt(columns)``."""
    deviation = 1.0 / math.sqrt(columns)
    if kind in {Type.F32, Type.F16}:
        dtype = np.float32 if kind is Type.F32 else np.float16
        return (rng.standard_normal((rows, columns), dtype=np.float32) * deviation).astype(dtype).view(np.uint8)
    block_size, type_size = gguf.GGML_QUANT_SIZES[kind]
    if columns % block_size:
        raise ValueError(f"{kind.name} needs rows of a multiple of {block_size}, got {columns}")
    blocks = rng.integers(0, 1 << 64, -(-rows * columns // block_size * type_size // 8), dtype=np.uint64)
    data = blocks.view(np.uint8)[: rows * columns // block_size * type_size].reshape(-1, type_size)
    # Random bytes may be an infinite f16 or none at all, so scales are written, around the one that fits.
    spread = rng.uniform(0.7, 1.3, len(data))
    for offset, relative in _SCALES[kind]:
        scale = (spread * relative * deviation).astype(np.float16)
        data[:, offset : offset + 2] = scale.view(np.uint8).reshape(-1, 2)
    return data.reshape(rows, -1)


def write_tensor(out: IO[bytes], rng: np.random.Generator, kind: Type, name: str, shape: tuple[int, ...]) -> None:
    """Streams one tensor, then pads to the file's alignment."""
    if len(shape) == 1:
        if "rope_factors" in name:
            values = np.linspace(1.0, 1.5 if "short" in name else 30.0, shape[0])
        elif name.endswith(".bias"):
            values = rng.normal(0.0, 0.01, shape[0])
        else:
            values = rng.uniform(0.8, 1.2, shape[0])
        values.astype(np.float32).tofile(out)
    else:
        rows, columns = shape
        block_size, type_size = gguf.GGML_QUANT_SIZES[kind]
        step = max(1, CHUNK_BYTES // (columns // block_size * type_size))
        for start in range(0, rows, step):
            random_rows(rng, kind, min(step, rows - start), columns).tofile(out)
    out.write(b"\0" * (-out.tell() % gguf.GGUF_DEFAULT_ALIGNMENT))


def add_hyperparameters(writer: gguf.GGUFWriter, shape: Shape, name: str, mixture: str) -> None:
    """The keys that a converter writes."""
    writer.add_name(f"synthetic {name}")
    writer.add_file_type(FILE_TYPES[mixture])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(shape.context_length)
    writer.add_embedding_length(shape.embedding_length)
    writer.add_feed_forward_length(shape.feed_forward_length)
    writer.add_block_count(shape.block_count)
    writer.add_head_count(shape.head_count)
    writer.add_head_count_kv(shape.head_count_kv)
    writer.add_rope_dimension_count(shape.rope_dimension_count)
    if shape.architecture == "phi2":
        writer.add_layer_norm_eps(1e-5)
        return
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(shape.freq_base)
    writer.add_sliding_window(shape.sliding_window)
    original = shape.original_context_length or shape.context_length
    writer.add_rope_scaling_orig_ctx_len(original)
    if shape.original_context_length is not None:
        ratio = shape.context_length / original
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(ratio) / math.log(original)))


def copy_vocabulary(writer: gguf.GGUFWriter, path: Path, expected_size: int) -> None:
    """Copies the tokenizer's keys of another GGUF file."""
    fields = gguf.GGUFReader(path).fields
    found = len(fields["tokenizer.ggml.tokens"].data) if "tokenizer.ggml.tokens" in fields else 0
    if found != expected_size:
        raise SystemExit(f"{path} has a vocabulary of {found} tokens, the model needs {expected_size}")
    for key, field in fields.items():
        if key.startswith("tokenizer."):
            sub_type = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(key, field.contents(), field.types[0], sub_type=sub_type)


def spm_vocabulary(size: int) -> tuple[list[str], list[float], list[int]]:
    """A generated SentencePiece vocabulary: bytes, pieces of letters, control tokens where Phi-3 has them."""
    control = {32000: "<|endoftext|>", 32001: "<|assistant|>", 32006: "<|system|>", 32007: "<|end|>"} | {
        32010: "<|user|>"
    }
    letters = "etaoinsrhldcumfpgwybvkxjqz"
    pieces = itertools.chain(
        ["▁", *letters],
        (f"▁{letter}" for letter in letters),
        map("".join, itertools.product(letters, repeat=2)),
        (f"▁{first}{second}" for first, second in itertools.product(letters, repeat=2)),
        map("".join, itertools.product(letters, repeat=3)),
        (f"▁{''.join(three)}" for three in itertools.product(letters, repeat=3)),
    )
    kinds = gguf.TokenType
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [kinds.CONTROL, kinds.CONTROL, kinds.USER_DEFINED, *[kinds.BYTE] * 256]
    scores = [-1000.0] * 3 + [0.0] * 256
    for token_id in range(len(tokens), size):
        if token_id in control:
            token, kind, score = control[token_id], kinds.CONTROL, -1000.0
        elif token_id > max(control):
            token, kind, score = f"[PAD{token_id}]", kinds.UNUSED, -10000.0
        else:
            token, kind, score = next(pieces), kinds.NORMAL, float(258 - token_id)
        tokens.append(token)
        types.append(kind)
        scores.append(score)
    return tokens, scores, [int(kind) for kind in types]


def bpe_vocabulary(size: int, control: dict[int, str]) -> tuple[list[str], list[str], list[int]]:
    """A generated byte-level BPE vocabulary: bytes, then pairs, then triples, with the merges that build them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(256 - len(printable))]
    pairs = list(itertools.product(alphabet, alphabet))
    triples = (("".join(pair), letter) for pair in pairs for letter in alphabet[:8])
    merges_left = itertools.chain(pairs, triples)
    tokens, merges, types = list(alphabet), [], [int(gguf.TokenType.NORMAL)] * len(alphabet)
    for token_id in range(len(tokens), size):
        if token_id in control:
            tokens.append(control[token_id])
            types.append(int(gguf.TokenType.CONTROL))
            continue
        left, right = next(merges_left)
        tokens.append(left + right)
        merges.append(f"{left} {right}")
        types.append(int(gguf.TokenType.NORMAL))
    return tokens, merges, types


_BPE_CONTROL = {
    "phi-2": {50256: "<|endoftext|>"},
    "dbrx": {100257: "<|endoftext|>", 100264: "<|im_start|>", 100265: "<|im_end|>", 100266: "<|im_sep|>"},
    "gpt-4o": {199999: "<|endoftext|>", 200018: "<|endofprompt|>", 200019: "<|assistant|>", 200020: "<|end|>"}
    | {200021: "<|user|>", 200022: "<|system|>"},
}


def add_vocabulary(writer: gguf.GGUFWriter, shape: Shape) -> None:
    """A generated vocabulary of the model's size and kind."""
    writer.add_tokenizer_model(shape.tokenizer)
    writer.add_tokenizer_pre(shape.pre_tokenizer)
    if shape.tokenizer == "llama":
        tokens, scores, types = spm_vocabulary(shape.vocabulary_size)
        writer.add_token_scores(scores)
        writer.add_unk_token_id(0)
    else:
        tokens, merges, types = bpe_vocabulary(shape.vocabulary_size, _BPE_CONTROL[shape.pre_tokenizer])
        writer.add_token_merges(merges)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_bos_token_id(shape.bos)
    writer.add_eos_token_id(shape.eos)
    writer.add_add_bos_token(shape.tokenizer == "llama")


def write(path: Path, name: str, mixture: str, vocab: Path | None = None, seed: int = 0) -> Counter[str]:
    """Writes the file; returns how many tensors of each type it has."""
    shape = MODELS[name]
    rng = np.random.Generator(np.random.SFC64(seed))  # the quickest of numpy's generators
    writer = gguf.GGUFWriter(path, shape.architecture)
    add_hyperparameters(writer, shape, name, mixture)
    if vocab is None:
        add_vocabulary(writer, shape)
    else:
        copy_vocabulary(writer, vocab, shape.vocabulary_size)
    plan = [
        (tensor, tensor_type(tensor, dimensions, shape, mixture), dimensions)
        for tensor, dimensions in tensor_shapes(shape).items()
    ]
    for tensor, kind, dimensions in plan:
        block_size, type_size = gguf.GGML_QUANT_SIZES[kind]
        size = math.prod(dimensions) // block_size * type_size
        writer.add_tensor_info(tensor, dimensions, np.dtype(np.float32), size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    out = (writer.fout or [])[0]
    out.write(b"\0" * (-out.tell() % gguf.GGUF_DEFAULT_ALIGNMENT))
    for tensor, kind, dimensions in plan:
        write_tensor(out, rng, kind, tensor, dimensions)
    writer.close()
    return Counter(kind.name for _, kind, _ in plan)


def main() -> None:
    """Writes one file from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("path", type=Path)
    parser.add_argument("--mixture", choices=MIXTURES, default="q4_k_m")
    parser.add_argument(
        "--vocab", type=Path, help="a GGUF file whose vocabulary to copy (default: a generated one)"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.monotonic()
    counts = write(arguments.path, arguments.model, arguments.mixture, arguments.vocab, arguments.seed)
    size = arguments.path.stat().st_size / 1e6
    types = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    print(f"{arguments.path}: {size:,.0f} MB, {types}, written in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
