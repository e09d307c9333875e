"""Writes the tiny random models of `tiny_gguf` as a converter writes them that takes them for Llama models."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

import tiny_gguf

if TYPE_CHECKING:
    from pathlib import Path


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys in the order of that conversion: in each head, halves become neighbours."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, rows.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


def write(path: Path, options: tiny_gguf.TinyPhi3, *, permute: bool = True) -> Path:
    """Writes the same weights under the other names; without ``permute`` it is a file that no converter writes."""
    if options.rope_dimension_count not in {None, options.head_dim}:
        message = "the conversion sorts the rows of whole heads: it has no place for dimensions that do not rotate"
        raise ValueError(message)
    q_rows, kv_rows = options.head_count * options.head_dim, options.head_count_kv * options.head_dim
    tensors: dict[str, np.ndarray | None] = {}
    for name, tensor in tiny_gguf.weights(replace(options, split_qkv=False)).items():
        if "attn_qkv" in name:
            q, k, v = np.split(tensor, (q_rows, q_rows + kv_rows))
            if permute:
                q, k = permuted(q, options.head_count), permuted(k, options.head_count_kv)
            tensors |= {name.replace("qkv", letter): part for letter, part in zip("qkv", (q, k, v), strict=True)}
        elif "ffn_up" in name:
            gate, up = np.split(tensor, 2)
            tensors |= {name.replace("ffn_up", "ffn_gate"): gate, name: up}
    fused = {f"blk.{block}.attn_qkv.weight": None for block in range(options.block_count)}
    renamed = {key.replace("phi3.", "llama.", 1): value for key, value in options.metadata.items()}
    llama = replace(
        options,
        architecture="llama",
        split_qkv=False,
        drop_keys=options.drop_keys | {"llama.attention.sliding_window"},
        metadata={"llama.vocab_size": options.vocabulary_size, **renamed},
        tensors=tensors | fused | options.tensors,
    )
    return tiny_gguf.write(path, llama)
