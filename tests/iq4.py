"""Quantizes to IQ4_NL and IQ4_XS, which the gguf package reads but does not write.

The scale of a block is that which gives its largest value the largest code; better ones are of no use to a test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import gguf
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

_Kind = gguf.GGMLQuantizationType
_CODES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)


def quantize_iq4_nl(tensor: np.ndarray) -> np.ndarray:
    """Blocks of 32: a scale in half precision, and four bits a value."""
    values = tensor.reshape(*tensor.shape[:-1], -1, 32)
    scale = _scale(values).astype(np.float16)
    blocks = np.concatenate((scale.view(np.uint8), _packed(values, scale)), axis=-1)
    return blocks.reshape(*tensor.shape[:-1], -1)


def quantize_iq4_xs(tensor: np.ndarray) -> np.ndarray:
    """Blocks of 256: a scale in half precision, eight scales of six bits, and four bits a value."""
    values = tensor.reshape(*tensor.shape[:-1], -1, 8, 32)
    scale = _scale(values)
    block_scale = (np.abs(scale).max(axis=-2) / 31).astype(np.float16)  # (..., 1)
    exact = block_scale.astype(np.float32)[..., None]
    small = np.round(np.divide(scale, exact, out=np.zeros_like(scale), where=exact != 0)).clip(-32, 31)
    bits = (small[..., 0] + 32).astype(np.uint16)  # (..., 8)
    high = (bits >> 4 << np.arange(0, 16, 2, dtype=np.uint16)).sum(axis=-1, keepdims=True, dtype=np.uint16)
    low = (bits[..., 0::2] & 15 | (bits[..., 1::2] & 15) << 4).astype(np.uint8)
    packed = _packed(values, exact * small).reshape(*values.shape[:-2], 128)
    blocks = np.concatenate((block_scale.view(np.uint8), high.view(np.uint8), low, packed), axis=-1)
    return blocks.reshape(*tensor.shape[:-1], -1)


QUANTIZERS: dict[_Kind, Callable[[np.ndarray], np.ndarray]] = {
    _Kind.IQ4_NL: quantize_iq4_nl,
    _Kind.IQ4_XS: quantize_iq4_xs,
}


def _scale(values: np.ndarray) -> np.ndarray:
    largest = np.take_along_axis(values, np.abs(values).argmax(axis=-1, keepdims=True), axis=-1)
    return largest / _CODES[0]


def _packed(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The nearest codes; the first half of a block is in the low bits."""
    scale = scale.astype(np.float32)
    ratio = np.divide(values, scale, out=np.zeros_like(values), where=scale != 0)
    code = np.abs(ratio[..., None] - _CODES).argmin(axis=-1).astype(np.uint8)
    return code[..., :16] | code[..., 16:] << 4
