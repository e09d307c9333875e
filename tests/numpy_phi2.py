"""A plain float32 forward pass of the phi2 architecture in numpy, read straight from a GGUF file.

What it has in common with phi3 (embedding, rotary embedding, attention) is in `numpy_phi3`.
"""

from __future__ import annotations

import numpy as np

from numpy_phi3 import Array, NumpyPhi3


class NumpyPhi2(NumpyPhi3):
    """Layer norms and biases; attention and feed-forward layer side by side behind one norm."""

    EPSILON = "attention.layer_norm_epsilon"

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - np.mean(x, axis=-1, keepdims=True, dtype=np.float32)
        variance = np.mean(centred * centred, axis=-1, keepdims=True, dtype=np.float32)
        return centred / np.sqrt(variance + self.epsilon) * self._weight(name) + self._tensors[f"{name}.bias"]

    def _feed_forward(self, x: Array, prefix: str) -> Array:
        hidden = self._linear(x, f"{prefix}.ffn_up")
        inner = np.float32(np.sqrt(2.0 / np.pi)) * (hidden + np.float32(0.044715) * hidden**3)
        return self._linear(np.float32(0.5) * hidden * (1.0 + np.tanh(inner)), f"{prefix}.ffn_down")

    def _block(self, x: Array, prefix: str, cos: Array, sin: Array) -> Array:
        normed = self._norm(x, f"{prefix}.attn_norm")
        return x + self._attention(normed, prefix, cos, sin) + self._feed_forward(normed, prefix)
