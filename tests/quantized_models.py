"""Writes tiny models whose matrices are quantized, in each type that the package computes with."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np

import tiny_gguf
from tiny_gguf import TinyPhi3

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import synthetic_blocks

WRITTEN = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "IQ4_XS"]
DRAWN = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
"""The gguf package reads these, and does not write them: their blocks are random."""


def write_quantized(path: Path, kind: str, options: TinyPhi3) -> Path:
    """Writes the model that ``options`` describe, with its matrices in ``kind``; returns ``path``."""
    if kind in WRITTEN:
        return tiny_gguf.write(path, replace(options, tensor_type=kind))
    quantization = gguf.GGMLQuantizationType[kind]
    rng, drawn = np.random.default_rng(3), dict[str, tiny_gguf.Tensor]()
    for name, tensor in tiny_gguf.weights(options).items():
        if tensor.ndim == 2:
            rows, columns = tensor.shape
            blocks = synthetic_blocks.random_rows(rng, quantization, rows, columns)
            gain = float(tensor.std() * np.sqrt(columns))
            drawn[name] = (quantization, scaled(blocks, quantization, gain))
    return tiny_gguf.write(path, replace(options, tensors=drawn))


def scaled(rows: np.ndarray, kind: gguf.GGMLQuantizationType, gain: float) -> np.ndarray:
    """The same blocks with larger scales and minimums."""
    scale, minimum, _ = synthetic_blocks._SCALES[kind]
    blocks = rows.reshape(-1, gguf.GGML_QUANT_SIZES[kind][1]).copy()
    for offset in (scale, minimum):
        if offset is not None:
            halves = blocks[:, offset : offset + 2].copy().view(np.float16).astype(np.float32) * gain
            blocks[:, offset : offset + 2] = halves.astype(np.float16).view(np.uint8)
    return blocks.reshape(rows.shape)
