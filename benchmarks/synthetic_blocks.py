"""Which type a tensor of a mixture has, and random blocks of every type that hold sane weights."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What llama.cpp's quantizer gives the tensors, where that is not the same for all of them."""

    base: Type
    output: Type = Type.Q6_K
    qkv: Type | None = None
    attention_output: Type | None = None
    # Of queries, keys and values in tensors of their own, the values get what the quantizer gives them.
    values: Type | None = None
    grouped_values: Type | None = None  # where four queries or more share them
    few_values: int = 0  # the values of so many first layers get `more` bits
    down: Type | None = None
    more: Type | None = None  # for the layers below that get more bits than the others
    more_down: str = "none"  # "spread": first, last and every third; "eighth" or "sixteenth": the first layers


def _plain(base: Type, output: Type = Type.Q6_K) -> Mixture:
    return Mixture(base=base, output=output)


# Joined queries, keys and values are as in the published files of the family; those are older than the quantizer
# that treats them as values.
MIXTURES: dict[str, Mixture] = {
    "f32": _plain(Type.F32, Type.F32),
    "f16": _plain(Type.F16, Type.F16),
    "bf16": _plain(Type.BF16, Type.BF16),
    "q8_0": _plain(Type.Q8_0, Type.Q8_0),
    "q4_0": _plain(Type.Q4_0),
    "q4_1": _plain(Type.Q4_1),
    "q5_0": _plain(Type.Q5_0),
    "q5_1": _plain(Type.Q5_1),
    "q2_k": Mixture(
        base=Type.Q2_K, attention_output=Type.Q3_K, values=Type.Q3_K, grouped_values=Type.Q4_K, down=Type.Q3_K
    ),
    "q3_k_s": _plain(Type.Q3_K),
    "q3_k_m": Mixture(
        base=Type.Q3_K,
        qkv=Type.Q4_K,
        attention_output=Type.Q4_K,
        values=Type.Q4_K,
        few_values=2,
        down=Type.Q4_K,
        more=Type.Q5_K,
        more_down="sixteenth",
    ),
    "q3_k_l": Mixture(base=Type.Q3_K, qkv=Type.Q4_K, attention_output=Type.Q5_K, values=Type.Q5_K, down=Type.Q5_K),
    "q4_k_s": Mixture(base=Type.Q4_K, few_values=4, more=Type.Q5_K, more_down="eighth"),
    "q4_k_m": Mixture(base=Type.Q4_K, qkv=Type.Q5_K, more=Type.Q6_K, more_down="spread"),
    "q5_k_s": _plain(Type.Q5_K),
    "q5_k_m": Mixture(base=Type.Q5_K, qkv=Type.Q6_K, more=Type.Q6_K, more_down="spread"),
    "q6_k": _plain(Type.Q6_K),
    "iq4_nl": Mixture(base=Type.IQ4_NL, grouped_values=Type.Q5_K, more=Type.Q5_K, more_down="eighth"),
    "iq4_xs": Mixture(base=Type.IQ4_XS, grouped_values=Type.Q5_K, more=Type.Q5_K, more_down="eighth"),
}
FILE_TYPES = {
    name: gguf.LlamaFileType.ALL_F32 if name == "f32" else gguf.LlamaFileType[f"MOSTLY_{name.upper()}"]
    for name in MIXTURES
}


def _gets_more(layer: int, layers: int, which: str) -> bool:
    """Whether the rule gives a layer more bits."""
    if which == "spread":
        eighth = layers // 8
        return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
    return layer < {"none": 0, "eighth": layers // 8, "sixteenth": layers // 16}[which]


def tensor_type(
    name: str, dimensions: tuple[int, ...], *, layers: int, tied_output: bool, groups: int, mixture: str
) -> Type:
    """The type that llama.cpp's quantizer gives a tensor in this mixture, without an importance matrix.

    ``groups`` is how many queries share a key.
    """
    if len(dimensions) == 1:
        return Type.F32
    rule = MIXTURES[mixture]
    kind = rule.base
    if name == ("token_embd.weight" if tied_output else "output.weight"):
        kind = rule.output
    elif not name.startswith("blk."):
        pass
    elif "attn_qkv" in name:
        kind = rule.qkv or kind
    elif "attn_output" in name:
        kind = rule.attention_output or kind
    elif "attn_v." in name:
        layer = int(name.split(".")[1])
        kind = rule.grouped_values if rule.grouped_values is not None and groups >= 4 else rule.values or kind
        if layer < rule.few_values or (rule.more_down == "spread" and _gets_more(layer, layers, "spread")):
            kind = rule.more or kind
    elif "ffn_down" in name:
        more = _gets_more(int(name.split(".")[1]), layers, rule.more_down)
        kind = (rule.more if more else rule.down) or kind
    return kind


# Where in a block the f16 scale lies; where the f16 minimum, and how many scales it is, for weights around zero.
_SCALES: dict[Type, tuple[int, int | None, float]] = {
    Type.Q4_0: (0, None, 0),
    Type.Q4_1: (0, 2, -7.5),
    Type.Q5_0: (0, None, 0),
    Type.Q5_1: (0, 2, -15.5),
    Type.Q8_0: (0, None, 0),
    Type.Q2_K: (80, 82, 1.5),
    Type.Q3_K: (108, None, 0),
    Type.Q4_K: (0, 2, 7.5),
    Type.Q5_K: (0, 2, 15.5),
    Type.Q6_K: (208, None, 0),
    Type.IQ4_NL: (0, None, 0),
    Type.IQ4_XS: (0, None, 0),
}


def _random_blocks(rng: np.random.Generator, kind: Type, count: int) -> Bytes:
    """Blocks of random bytes, (count, bytes of a block); their scales are not written yet."""
    _, type_size = gguf.GGML_QUANT_SIZES[kind]
    words = rng.integers(0, 1 << 64, -(-count * type_size // 8), dtype=np.uint64)
    return words.view(np.uint8)[: count * type_size].reshape(-1, type_size)


def _write_scales(blocks: Bytes, kind: Type, scales: np.ndarray[Any, Any]) -> None:
    """Random bytes may be an infinite f16, or none at all; so scales are written."""
    offset, minimum, ratio = _SCALES[kind]
    blocks[:, offset : offset + 2] = scales.astype(np.float16).view(np.uint8).reshape(-1, 2)
    if minimum is not None:
        minima = (scales * ratio).astype(np.float16)
        blocks[:, minimum : minimum + 2] = minima.view(np.uint8).reshape(-1, 2)


@functools.cache
def _unit_deviation(kind: Type) -> float:
    """The standard deviation of weights whose blocks are random and have a scale of 1."""
    blocks = _random_blocks(np.random.default_rng(0), kind, 4096)
    _write_scales(blocks, kind, np.ones(len(blocks)))
    return float(gguf.dequantize(blocks, kind).std())


def random_rows(rng: np.random.Generator, kind: Type, rows: int, columns: int) -> Bytes:
    """Random valid data of ``rows`` rows, (rows, bytes); weights have standard deviation ``1 / sqrt(columns)``."""
    deviation = 1.0 / math.sqrt(columns)
    if kind in {Type.F32, Type.F16, Type.BF16}:
        values = rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(deviation)
        return gguf.quantize(values, kind).view(np.uint8)
    block_size, _ = gguf.GGML_QUANT_SIZES[kind]
    if columns % block_size:
        raise ValueError(f"{kind.name} needs rows of a multiple of {block_size}, got {columns}")
    blocks = _random_blocks(rng, kind, rows * columns // block_size)
    _write_scales(blocks, kind, rng.uniform(0.7, 1.3, len(blocks)) * deviation / _unit_deviation(kind))
    return blocks.reshape(rows, -1)
