"""A plain float32 forward pass of the phi3 architecture in numpy, read straight from a GGUF file.

Files that were converted as ``llama`` are read too: their queries and keys are turned in neighbouring pairs, and
gate and up projection are two tensors. It follows the published model (RMSNorm, rotary embedding, grouped-query
attention, SwiGLU) and the layout of GGUF files, and shares no code with the engine. It is slow, has no cache and
handles one sequence: an oracle, not an implementation.
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

    EPSILON = "attention.layer_norm_rms_epsilon"

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)
        self._metadata = {key: field.contents() for key, field in reader.fields.items()}
        self._tensors: dict[str, Array] = {
            tensor.name: dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            for tensor in reader.tensors
        }
        self.architecture = str(self._metadata["general.architecture"])
        self.block_count = int(self._key("block_count"))
        self.head_count = int(self._key("attention.head_count"))
        self.head_count_kv = int(self._key("attention.head_count_kv", self.head_count))
        self.embedding_length = int(self._key("embedding_length"))
        self.head_dim = int(self._key("attention.key_length", self.embedding_length // self.head_count))
        self.feed_forward_length = int(self._key("feed_forward_length"))
        self.epsilon = np.float32(self._key(self.EPSILON))
        self.context_length = int(self._key("context_length"))
        self.rope_dimension_count = int(self._key("rope.dimension_count", self.head_dim))
        self.freq_base = float(self._key("rope.freq_base", 10_000.0))
        self.sliding_window = int(self._key("attention.sliding_window", 0))
        self.original_context_length = int(self._key("rope.scaling.original_context_length", self.context_length))
        self.attn_factor = np.float32(self._key("rope.scaling.attn_factor", self._default_attn_factor()))

    def _key(self, name: str, default: Any = None) -> Any:
        key = f"{self.architecture}.{name}"
        if key not in self._metadata and default is None:
            message = f"{key} is missing"
            raise KeyError(message)
        return self._metadata.get(key, default)

    def _default_attn_factor(self) -> float:
        """That of transformers, for files with LongRoPE's factors that do not name it."""
        if "rope_factors_long.weight" not in self._tensors:
            return 1.0
        extension = self.context_length / self.original_context_length
        return float(np.sqrt(1.0 + np.log(extension) / np.log(self.original_context_length)))

    def _weight(self, name: str) -> Array:
        return self._tensors[f"{name}.weight"]

    def _linear(self, x: Array, name: str) -> Array:
        out: Array = x @ self._weight(name).T
        bias = self._tensors.get(f"{name}.bias")
        return out if bias is None else out + bias

    def _norm(self, x: Array, name: str) -> Array:
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
        cos, sin = cos[:, None, :], sin[:, None, :]
        out = x.copy()
        if self.architecture == "llama":
            first, second = slice(0, 2 * half, 2), slice(1, 2 * half, 2)
        else:
            first, second = slice(0, half), slice(half, 2 * half)
        out[..., first] = x[..., first] * cos - x[..., second] * sin
        out[..., second] = x[..., second] * cos + x[..., first] * sin
        return out

    def _qkv(self, x: Array, prefix: str) -> tuple[Array, Array, Array]:
        if f"{prefix}.attn_qkv.weight" in self._tensors:
            q_rows, kv_rows = self.head_count * self.head_dim, self.head_count_kv * self.head_dim
            parts = np.split(self._linear(x, f"{prefix}.attn_qkv"), (q_rows, q_rows + kv_rows), axis=-1)
        else:
            parts = [self._linear(x, f"{prefix}.attn_{name}") for name in "qkv"]
        q, k, v = (part.reshape(len(x), -1, self.head_dim) for part in parts)
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
        return self._linear(np.concatenate(heads, axis=-1), f"{prefix}.attn_output")

    def _feed_forward(self, x: Array, prefix: str) -> Array:
        up = self._linear(x, f"{prefix}.ffn_up")
        if f"{prefix}.ffn_gate.weight" in self._tensors:
            gate = self._linear(x, f"{prefix}.ffn_gate")
        else:
            gate, up = up[:, : self.feed_forward_length], up[:, self.feed_forward_length :]
        return self._linear(gate / (1.0 + np.exp(-gate)) * up, f"{prefix}.ffn_down")

    def _block(self, x: Array, prefix: str, cos: Array, sin: Array) -> Array:
        x = x + self._attention(self._norm(x, f"{prefix}.attn_norm"), prefix, cos, sin)
        return x + self._feed_forward(self._norm(x, f"{prefix}.ffn_norm"), prefix)

    def logits(self, ids: list[int]) -> Array:
        """Logits after every position, (length, vocabulary)."""
        x = self._weight("token_embd")[ids]
        cos, sin = self._rope_tables(len(ids))
        for block in range(self.block_count):
            x = self._block(x, f"blk.{block}", cos, sin)
        output = "output" if "output.weight" in self._tensors else "token_embd"
        return self._linear(self._norm(x, "output_norm"), output)

    def log_probabilities(self, ids: list[int]) -> Array:
        """Natural-log probability of each of ``ids[1:]``, given all before it, in one pass over all of ``ids``."""
        rows: Array = log_softmax_rows(self.logits(ids))
        return rows[np.arange(len(ids) - 1), ids[1:]]

    def unused_tokens(self) -> Array:
        """For each token of the vocabulary, whether it only fills it up: such tokens are never drawn."""
        return np.array(self._metadata["tokenizer.ggml.token_type"]) == int(gguf.TokenType.UNUSED)


def log_softmax_rows(logits: Array) -> Array:
    """Row by row, in double precision; float32 comes out."""
    wide = logits.astype(np.float64)
    wide = wide - wide.max(axis=-1, keepdims=True)
    rows: Array = (wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))).astype(np.float32)
    return rows
