"""A plain float32 forward pass of the phi3 architecture in numpy, read straight from a GGUF file.

It follows the published model (RMSNorm, rotate-half rotary embedding, grouped-query attention, SwiGLU) and the
layout of GGUF files, and shares no code with the engine. It is slow, has no cache and handles one sequence: an
oracle, not an implementation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
from gguf.quants import dequantize

if TYPE_CHECKING:
    from pathlib import Path

Array = np.ndarray[Any, Any]
"""Of float32 throughout."""


class NumpyPhi3:
    """The weights and hyperparameters of one file; `logits` and `log_probabilities` compute."""

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)
        self._metadata = {key: field.contents() for key, field in reader.fields.items()}
        self._tensors: dict[str, Array] = {
            tensor.name: dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            for tensor in reader.tensors
        }
        self.block_count = int(self._key("block_count"))
        self.head_count = int(self._key("attention.head_count"))
        self.head_count_kv = int(self._key("attention.head_count_kv", self.head_count))
        self.embedding_length = int(self._key("embedding_length"))
        self.head_dim = int(self._key("attention.key_length", self.embedding_length // self.head_count))
        self.feed_forward_length = int(self._key("feed_forward_length"))
        self.epsilon = np.float32(self._key("attention.layer_norm_rms_epsilon"))
        self.context_length = int(self._key("context_length"))
        self.rope_dimension_count = int(self._key("rope.dimension_count", self.head_dim))
        self.freq_base = float(self._key("rope.freq_base", 10_000.0))
        self.sliding_window = int(self._key("attention.sliding_window", 0))
        self.original_context_length = int(self._key("rope.scaling.original_context_length", self.context_length))
        self.attn_factor = np.float32(self._key("rope.scaling.attn_factor", 1.0))

    def _key(self, name: str, default: Any = None) -> Any:
        key = f"phi3.{name}"
        if key not in self._metadata and default is None:
            message = f"{key} is missing"
            raise KeyError(message)
        return self._metadata.get(key, default)

    def _weight(self, name: str) -> Array:
        return self._tensors[f"{name}.weight"]

    def _rms_norm(self, x: Array, name: str) -> Array:
        mean_square = np.mean(x * x, axis=-1, keepdims=True, dtype=np.float32)
        return x / np.sqrt(mean_square + self.epsilon) * self._weight(name)

    def _rope_tables(self, length: int) -> tuple[Array, Array]:
        """Cosines and sines, (length, rope_dimension_count / 2); angles in double precision."""
        half = self.rope_dimension_count // 2
        inverse_frequency = self.freq_base ** (-2.0 * np.arange(half) / self.rope_dimension_count)
        which = "long" if length > self.original_context_length else "short"
        factors = self._tensors.get(f"rope_factors_{which}.weight")
        if factors is not None:
            inverse_frequency = inverse_frequency / factors.astype(np.float64)
        angles = np.arange(length)[:, None] * inverse_frequency[None, :]
        scale = self.attn_factor if factors is not None else np.float32(1.0)
        return np.cos(angles).astype(np.float32) * scale, np.sin(angles).astype(np.float32) * scale

    def _rope(self, x: Array, cos: Array, sin: Array) -> Array:
        """Rotates the first ``rope_dimension_count`` dimensions of x (length, heads, head_dim)."""
        half = self.rope_dimension_count // 2
        first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        cos, sin = cos[:, None, :], sin[:, None, :]
        return np.concatenate((first * cos - second * sin, second * cos + first * sin, rest), axis=-1)

    def _qkv(self, x: Array, prefix: str) -> tuple[Array, Array, Array]:
        if f"{prefix}.attn_qkv.weight" in self._tensors:
            q_rows, kv_rows = self.head_count * self.head_dim, self.head_count_kv * self.head_dim
            parts = np.split(self._weight(f"{prefix}.attn_qkv"), (q_rows, q_rows + kv_rows))
        else:
            parts = [self._weight(f"{prefix}.attn_{name}") for name in "qkv"]
        q, k, v = ((x @ part.T).reshape(len(x), -1, self.head_dim) for part in parts)
        return q, k, v

    def _attention(self, x: Array, prefix: str, cos: Array, sin: Array) -> Array:
        length = len(x)
        q, k, v = self._qkv(x, prefix)  # (length, heads, head_dim)
        q, k = self._rope(q, cos, sin), self._rope(k, cos, sin)
        group = self.head_count // self.head_count_kv
        query, key = np.arange(length)[:, None], np.arange(length)[None, :]
        visible = key <= query
        if self.sliding_window:
            visible &= key > query - self.sliding_window
        heads = []
        for head in range(self.head_count):
            scores = q[:, head] @ k[:, head // group].T / np.sqrt(np.float32(self.head_dim))
            scores = np.where(visible, scores, -np.inf)
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            heads.append(scores / scores.sum(axis=-1, keepdims=True) @ v[:, head // group])
        return np.concatenate(heads, axis=-1) @ self._weight(f"{prefix}.attn_output").T

    def _feed_forward(self, x: Array, prefix: str) -> Array:
        gate_and_up = x @ self._weight(f"{prefix}.ffn_up").T
        gate, up = gate_and_up[:, : self.feed_forward_length], gate_and_up[:, self.feed_forward_length :]
        out: Array = gate / (1.0 + np.exp(-gate)) * up @ self._weight(f"{prefix}.ffn_down").T
        return out

    def logits(self, ids: list[int]) -> Array:
        """Logits after every position, (length, vocabulary)."""
        x = self._weight("token_embd")[ids]
        cos, sin = self._rope_tables(len(ids))
        for block in range(self.block_count):
            prefix = f"blk.{block}"
            x = x + self._attention(self._rms_norm(x, f"{prefix}.attn_norm"), prefix, cos, sin)
            x = x + self._feed_forward(self._rms_norm(x, f"{prefix}.ffn_norm"), prefix)
        x = self._rms_norm(x, "output_norm")
        output = "output" if "output.weight" in self._tensors else "token_embd"
        logits: Array = x @ self._weight(output).T
        return logits

    def log_probabilities(self, ids: list[int]) -> Array:
        """Natural-log probability of each of ``ids[1:]``, given all before it."""
        rows: Array = log_softmax_rows(self.logits(ids[:-1]))
        return rows[np.arange(len(ids) - 1), ids[1:]]


def log_softmax_rows(logits: Array) -> Array:
    """Row by row, in double precision; float32 comes out."""
    wide = logits.astype(np.float64)
    wide = wide - wide.max(axis=-1, keepdims=True)
    rows: Array = (wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))).astype(np.float32)
    return rows
