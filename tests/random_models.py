"""Models whose features are drawn at random, so that no combination of them was chosen to work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import tiny_gguf
import tiny_llama
import tiny_phi2
from tiny_gguf import TinyPhi3
from tiny_phi2 import TinyPhi2

if TYPE_CHECKING:
    from pathlib import Path

VOCABULARY_SIZE = 320


class Draw:
    """Choices that follow from a seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.generator = np.random.default_rng(seed)

    def one_of(self, *choices: Any) -> Any:
        """One of the choices."""
        return choices[self.integer(0, len(choices) - 1)]

    def integer(self, low: int, high: int) -> int:
        """An integer, both ends included."""
        return int(self.generator.integers(low, high + 1))

    def tokens(self, count: int) -> list[int]:
        """So many tokens of the vocabulary."""
        return [int(token) for token in self.generator.integers(3, VOCABULARY_SIZE, count)]

    def factors(self, count: int, most: float) -> tuple[float, ...]:
        """LongRoPE factors, rising."""
        return tuple(float(factor) for factor in np.sort(self.generator.uniform(1.0, most, count)))


def write(path: Path, draw: Draw, architecture: str) -> Path:
    """Writes a model with random features of the architecture."""
    head_dim, head_count = draw.one_of(8, 12, 16, 20, 32), draw.one_of(1, 2, 3, 4, 6)
    common: dict[str, Any] = {
        "seed": draw.seed,
        "vocabulary_size": VOCABULARY_SIZE,
        "head_dim": head_dim,
        "head_count": head_count,
        "block_count": draw.integer(1, 3),
        "feed_forward_length": draw.one_of(7, 32, 96),
    }
    part = 2 * draw.integer(1, head_dim // 2)
    split = bool(draw.integer(0, 1))
    if architecture == "phi2":
        return tiny_phi2.write(path, TinyPhi2(rope_dimension_count=part, split_qkv=split, **common))
    common |= {
        "head_count_kv": draw.one_of(*(count for count in range(1, head_count + 1) if head_count % count == 0)),
        "freq_base": draw.one_of(10_000.0, 250_000.0, 500_000.0),
        "tied_output": bool(draw.integer(0, 1)),
    }
    if architecture == "llama":
        return tiny_llama.write(path, TinyPhi3(**common))
    turned = draw.one_of(head_dim, part)
    if draw.integer(0, 1):
        common |= {
            "rope_factors_short": draw.factors(turned // 2, 3.0),
            "rope_factors_long": draw.factors(turned // 2, 40.0),
            "original_context_length": draw.one_of(16, 40, 64, 100),
            "attn_factor": draw.one_of(1.0, 1.19, 1.5),
        }
    window = draw.one_of(0, 0, 1, 2, 7, 30, 64, 150)
    options = TinyPhi3(rope_dimension_count=turned, split_qkv=split, sliding_window=window, **common)
    return tiny_gguf.write(path, options)


def write_quantized(path: Path, architecture: str, tensor_type: str) -> Path:
    """Writes a model whose matrices are quantized; its rows are whole blocks of 32."""
    common: dict[str, Any] = {
        "head_dim": 32,
        "feed_forward_length": 96,
        "vocabulary_size": VOCABULARY_SIZE,
        "tensor_type": tensor_type,
    }
    if architecture == "phi2":
        return tiny_phi2.write(path, TinyPhi2(rope_dimension_count=12, **common))
    options = TinyPhi3(head_count_kv=2, **common)
    return tiny_llama.write(path, options) if architecture == "llama" else tiny_gguf.write(path, options)
