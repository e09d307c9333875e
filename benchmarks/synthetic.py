"""Writes GGUF files of random weights in the real shape of the family's models.

Random weights cost exactly what real ones cost: the shapes, the tensor types and the bytes that a token reads are
those of the published files. What such a model says is noise. Nothing is held in memory but a few megabytes.

    python benchmarks/synthetic.py phi-3-mini-4k /tmp/phi-3-mini-4k-q4_k_m.gguf
    python benchmarks/synthetic.py phi-4-mini /tmp/phi-4-mini-q8_0.gguf --mixture q8_0
    python benchmarks/synthetic.py phi-3-mini-4k /tmp/x.gguf --mixture iq4_xs --layers 4   # a quick look
    python benchmarks/synthetic.py phi-3-mini-4k /tmp/x.gguf --vocab ggml-vocab-phi-3.gguf   # a real vocabulary
    python benchmarks/synthetic.py phi-2 phi-2.gguf --vocab tokenizer.json --split-qkv
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

import synthetic_blocks
import synthetic_vocabulary

Vector = np.ndarray[Any, np.dtype[np.float64]]

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
    padding: int | None = 32000


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
    "padding": 100349,
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
    "padding": None,
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
        padding=199999,
        **_LONG,
    ),
    "phi-2": Shape(embedding_length=2560, head_dim=80, feed_forward_length=10240, **_PHI_2),
    "phi-1.5": Shape(block_count=24, embedding_length=2048, head_dim=64, feed_forward_length=8192, **_PHI_2),
}


def tensor_shapes(shape: Shape, *, split_qkv: bool = False) -> dict[str, tuple[int, ...]]:
    """Every tensor of the file in the order of the file, rows first."""
    width, ffn = shape.embedding_length, shape.feed_forward_length
    q_rows, kv_rows = shape.head_count * shape.head_dim, shape.head_count_kv * shape.head_dim
    qkv, kv = (q_rows + 2 * kv_rows, width), (kv_rows, width)
    phi2 = shape.architecture == "phi2"
    tensors: dict[str, tuple[int, ...]] = {"token_embd.weight": (shape.vocabulary_size, width)}
    if shape.original_context_length is not None:
        for which in ("long", "short"):
            tensors[f"rope_factors_{which}.weight"] = (shape.rope_dimension_count // 2,)
    for block in range(shape.block_count):
        prefix = f"blk.{block}"
        layer = {
            "attn_norm": (width,),
            **({"attn_q": (q_rows, width), "attn_k": kv, "attn_v": kv} if split_qkv else {"attn_qkv": qkv}),
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
    """The type that llama.cpp's quantizer gives a tensor of this model in this mixture."""
    return synthetic_blocks.tensor_type(
        name,
        dimensions,
        layers=shape.block_count,
        tied_output=shape.tied_output,
        groups=shape.head_count // shape.head_count_kv,
        mixture=mixture,
    )


def rope_factors(model: str, given: Path | None) -> dict[str, Vector]:
    """LongRoPE's two tensors: those of the model in the file that is given, or stand-ins.

    The file is JSON, ``{"phi-4-mini-instruct": {"long_factor": [...], "short_factor": [...]}}``. Stand-ins begin
    at one and rise evenly, to 1.5 for short sequences and to 64 for long ones, which is about as far as those of
    Phi-3.5-mini go; Phi-4-mini's short ones are all one, as the published are.
    """
    shape = MODELS[model]
    if shape.original_context_length is None:
        return {}
    names = {which: f"rope_factors_{which}.weight" for which in ("long", "short")}
    count = shape.rope_dimension_count // 2
    published = json.loads(given.read_text(encoding="utf-8")).get(f"{model}-instruct") if given else None
    if published is None:
        ends = {"long": 64.0, "short": 1.0 if model == "phi-4-mini" else 1.5}
        return {names[which]: np.linspace(1.0, end, count) for which, end in ends.items()}
    factors = {name: np.array(published[f"{which}_factor"], dtype=np.float64) for which, name in names.items()}
    if any(len(values) != count for values in factors.values()):
        raise SystemExit(f"{given}: {model} needs {count} factors")
    return factors


def write_tensor(
    out: IO[bytes],
    rng: np.random.Generator,
    kind: Type,
    name: str,
    shape: tuple[int, ...],
    factors: dict[str, Vector],
) -> None:
    """Streams one tensor, then pads to the file's alignment."""
    if len(shape) == 1:
        if name in factors:
            values = factors[name]
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
            synthetic_blocks.random_rows(rng, kind, min(step, rows - start), columns).tofile(out)
    out.write(b"\0" * (-out.tell() % gguf.GGUF_DEFAULT_ALIGNMENT))


def add_hyperparameters(writer: gguf.GGUFWriter, shape: Shape, name: str, mixture: str) -> None:
    """The keys that a converter writes."""
    writer.add_name(f"synthetic {name}")
    writer.add_file_type(synthetic_blocks.FILE_TYPES[mixture])
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


def add_vocabulary(writer: gguf.GGUFWriter, shape: Shape, given: Path | None) -> None:
    """The vocabulary that is given, or a generated one of the model's size and kind."""
    if given is not None and given.suffix != ".json":
        synthetic_vocabulary.copy_from_gguf(writer, given, shape.vocabulary_size)
        return
    kind = shape.tokenizer, shape.pre_tokenizer, shape.vocabulary_size
    if given is None:
        synthetic_vocabulary.add_generated(writer, *kind)
    else:
        synthetic_vocabulary.add_tokenizer_json(writer, given, *kind)
    writer.add_bos_token_id(shape.bos)
    writer.add_eos_token_id(shape.eos)
    if shape.padding is not None:
        writer.add_pad_token_id(shape.padding)
    writer.add_add_bos_token(shape.tokenizer == "llama")


def write(
    path: Path,
    name: str,
    mixture: str,
    *,
    vocab: Path | None = None,
    factors: Path | None = None,
    split_qkv: bool = False,
    layers: int | None = None,
    seed: int = 0,
) -> Counter[str]:
    """Writes the file; returns how many tensors of each type it has."""
    shape = MODELS[name] if layers is None else replace(MODELS[name], block_count=layers)
    rng = np.random.Generator(np.random.SFC64(seed))  # the quickest of numpy's generators
    writer = gguf.GGUFWriter(path, shape.architecture)
    add_hyperparameters(writer, shape, name, mixture)
    add_vocabulary(writer, shape, vocab)
    plan = [
        (tensor, tensor_type(tensor, dimensions, shape, mixture), dimensions)
        for tensor, dimensions in tensor_shapes(shape, split_qkv=split_qkv).items()
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
    special = rope_factors(name, factors)
    for tensor, kind, dimensions in plan:
        write_tensor(out, rng, kind, tensor, dimensions, special)
    writer.close()
    return Counter(kind.name for _, kind, _ in plan)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("path", type=Path)
    parser.add_argument("--mixture", choices=synthetic_blocks.MIXTURES, default="q4_k_m")
    parser.add_argument(
        "--vocab",
        type=Path,
        help="a real vocabulary: a GGUF file, or a byte-level tokenizer.json (default: a generated one)",
    )
    parser.add_argument(
        "--rope-factors", type=Path, help="a JSON file with LongRoPE's factors by model (default: stand-ins)"
    )
    parser.add_argument("--split-qkv", action="store_true", help="one tensor each for queries, keys and values")
    parser.add_argument("--layers", type=int, help="only so many of the model's layers")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main() -> None:
    """Writes one file from the command line."""
    given = arguments()
    start = time.monotonic()
    counts = write(
        given.path,
        given.model,
        given.mixture,
        vocab=given.vocab,
        factors=given.rope_factors,
        split_qkv=given.split_qkv,
        layers=given.layers,
        seed=given.seed,
    )
    size = given.path.stat().st_size / 1e6
    types = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    print(f"{given.path}: {size:,.0f} MB, {types}, written in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
