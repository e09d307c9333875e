"""Writes tiny random phi2 GGUF files: layer norms, biases, parallel blocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np

import tiny_byte_level
import tiny_gguf

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class TinyPhi2:
    """What a tiny file contains; ``metadata`` and ``tensors`` override by name, as for `tiny_gguf.TinyPhi3`."""

    block_count: int = 2
    head_count: int = 4
    head_dim: int = 20
    feed_forward_length: int = 96
    vocabulary_size: int = 320
    context_length: int = 512
    rope_dimension_count: int = 8
    layer_norm_epsilon: float = 1e-5
    split_qkv: bool = False
    tensor_type: str = "F32"
    metadata: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, np.ndarray | None] = field(default_factory=dict)
    seed: int = 0

    @property
    def embedding_length(self) -> int:
        """Width of the residual stream."""
        return self.head_count * self.head_dim


def weights(options: TinyPhi2) -> dict[str, np.ndarray]:
    """Random float32 tensors, rows first; biases large enough to show where one is forgotten."""
    rng = np.random.default_rng(options.seed)
    width, hidden = options.embedding_length, options.feed_forward_length
    tensors: dict[str, np.ndarray] = {}

    def linear(name: str, rows: int, columns: int, gain: float) -> None:
        matrix = rng.standard_normal((rows, columns)) * gain / np.sqrt(columns)
        tensors[f"{name}.weight"] = matrix.astype(np.float32)
        tensors[f"{name}.bias"] = (0.3 * rng.standard_normal(rows)).astype(np.float32)

    def norm(name: str) -> None:
        tensors[f"{name}.weight"] = rng.uniform(0.5, 1.5, width).astype(np.float32)
        tensors[f"{name}.bias"] = (0.2 * rng.standard_normal(width)).astype(np.float32)

    tensors["token_embd.weight"] = rng.standard_normal((options.vocabulary_size, width)).astype(np.float32)
    for block in range(options.block_count):
        prefix = f"blk.{block}"
        norm(f"{prefix}.attn_norm")
        for name in "qkv":
            linear(f"{prefix}.attn_{name}", width, width, 1.6)
        linear(f"{prefix}.attn_output", width, width, 1.0)
        linear(f"{prefix}.ffn_up", hidden, width, 1.5)
        linear(f"{prefix}.ffn_down", width, hidden, 1.5)
        if not options.split_qkv:
            for part in ("weight", "bias"):
                parts = [tensors.pop(f"{prefix}.attn_{name}.{part}") for name in "qkv"]
                tensors[f"{prefix}.attn_qkv.{part}"] = np.concatenate(parts)
    norm("output_norm")
    linear("output", options.vocabulary_size, width, 2.0)
    return tensors


def write(path: Path, options: TinyPhi2 | None = None, /, **changes: Any) -> Path:
    """Writes the file that ``options`` (or the keyword arguments of `TinyPhi2`) describe; returns ``path``."""
    options = options or TinyPhi2(**changes)
    pairs: dict[str, Any] = {
        "general.name": "tiny random phi2",
        "phi2.context_length": options.context_length,
        "phi2.embedding_length": options.embedding_length,
        "phi2.feed_forward_length": options.feed_forward_length,
        "phi2.block_count": options.block_count,
        "phi2.attention.head_count": options.head_count,
        "phi2.attention.head_count_kv": options.head_count,
        "phi2.attention.layer_norm_epsilon": options.layer_norm_epsilon,
        "phi2.rope.dimension_count": options.rope_dimension_count,
    }
    pairs |= tiny_byte_level.metadata("phi-2", options.vocabulary_size) | options.metadata
    writer = gguf.GGUFWriter(path, "phi2")
    for key, value in pairs.items():
        if value is not None:
            tiny_gguf.add_key(writer, key, value)
    tensors: dict[str, np.ndarray | None] = {**weights(options), **options.tensors}
    for name, tensor in tensors.items():
        if tensor is not None:
            tiny_gguf.add_tensor(writer, name, tensor, options.tensor_type)
    tiny_gguf.finish(writer)
    return path
