"""Writes an OpenVINO model of random int4 weights in the real shape of a model of the family.

    pip install openvino gguf numpy
    python benchmarks/export_openvino.py phi-3-mini-4k /tmp/phi-3-mini-4k-ov

The graph is the one that an export of the real model gives: decoder blocks with a state for keys and values that
grows, weights in int4 with a scale for each 128 (symmetric), embedding and output in int8 with a scale for each
row, logits of the last position only. Norm, rotation and attention are written as OpenVINO's own passes find and
fuse them.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

import synthetic

GROUP = 128
Node = Any


class Writer:
    """Builds the graph of one model."""

    def __init__(self, shape: synthetic.Shape, seed: int = 0) -> None:
        self.shape = shape
        self.rng = np.random.default_rng(seed)
        self.sinks: list[Node] = []
        self.kept: list[
            Any
        ] = []  # a constant of 4-bit numbers shares the memory of its array, and does not hold it

    def integers(self, size: tuple[int, ...], *, four_bits: bool) -> Node:
        """A constant of random integers."""
        count = math.prod(size) // (2 if four_bits else 1)
        data = self.rng.integers(0, 256, count, dtype=np.uint8)
        self.kept.append(data)
        kind = ov.Type.i4 if four_bits else ov.Type.i8
        return ops.constant(ov.Tensor(data if four_bits else data.view(np.int8), ov.Shape(size), kind))

    def weights(self, rows: int, columns: int, *, four_bits: bool = True) -> Node:
        """A matrix, (rows, columns), stored in few bits and widened where it is used."""
        group = GROUP if four_bits else columns
        size = (rows, columns // group, group) if four_bits else (rows, columns)
        deviation = 1 / math.sqrt(columns) / (4.6 if four_bits else 74.0)
        scale_size = (rows, columns // group, 1) if four_bits else (rows, 1)
        scales = (self.rng.uniform(0.7, 1.3, scale_size) * deviation).astype(np.float16)
        wide = ops.multiply(ops.convert(self.integers(size, four_bits=four_bits), "f16"), ops.constant(scales))
        if four_bits:
            wide = ops.reshape(wide, ops.constant(np.array([rows, columns])), special_zero=False)
        return ops.convert(wide, "f32")

    def linear(self, hidden: Node, rows: int, columns: int, *, four_bits: bool = True) -> Node:
        """The product with a matrix of few bits."""
        return ops.matmul(
            hidden, self.weights(rows, columns, four_bits=four_bits), transpose_a=False, transpose_b=True
        )

    def norm(self, hidden: Node) -> Node:
        """RMS norm."""
        gamma = self.rng.uniform(0.8, 1.2, (1, 1, self.shape.embedding_length)).astype(np.float32)
        squares = ops.power(hidden, np.float32(2))
        mean = ops.reduce_mean(squares, np.array([-1]), keep_dims=True)
        root = ops.sqrt(ops.add(mean, np.float32(1e-5)))
        return ops.multiply(ops.constant(gamma), ops.multiply(hidden, ops.divide(np.float32(1), root)))

    def rotate(self, heads: Node, cosine: Node, sine: Node) -> Node:
        """Rotary positions of a whole head."""
        half = self.shape.rope_dimension_count // 2
        first, second = (
            ops.slice(heads, np.array([start]), np.array([stop]), np.array([1]), np.array([3]))
            for start, stop in ((0, half), (half, np.iinfo(np.int64).max))
        )
        turned = ops.concat([ops.multiply(second, np.float32(-1)), first], -1)
        return ops.add(ops.multiply(heads, cosine), ops.multiply(turned, sine))

    def heads(self, rows: Node, count: int) -> Node:
        """(batch, seq, count * head_dim) to (batch, count, seq, head_dim)."""
        split = ops.reshape(rows, np.array([0, 0, count, self.shape.head_dim]), special_zero=True)
        return ops.transpose(split, np.array([0, 2, 1, 3]))

    def remembered(self, new: Node, batch: Node, beams: Node, name: str) -> Node:
        """What was seen before, and the new behind it; both stay."""
        count, head_dim = self.shape.head_count_kv, self.shape.head_dim
        pattern = ov.PartialShape([-1, count, -1, head_dim])
        empty = ops.concat([batch, np.array([count, 0, head_dim])], 0)
        start = ops.broadcast(np.float32(0), empty)
        past = ops.read_value(start, name, ov.Type.f32, pattern)
        both = ops.concat([ops.gather(past, beams, 0), new], 2)
        self.sinks.append(ops.assign(both, name))
        return both

    def repeated(self, heads: Node) -> Node:
        """Keys or values once for each query head that shares them."""
        groups = self.shape.head_count // self.shape.head_count_kv
        if groups == 1:
            return heads
        size = ops.shape_of(heads)
        front, back = (ops.gather(size, np.array(which), 0) for which in ([0, 1], [2, 3]))
        wide = ops.broadcast(ops.unsqueeze(heads, 2), ops.concat([front, np.array([groups]), back], 0))
        return ops.reshape(wide, np.array([0, self.shape.head_count, -1, self.shape.head_dim]), special_zero=True)

    def block(self, hidden: Node, index: int, inputs: dict[str, Node]) -> Node:
        """One decoder block."""
        shape = self.shape
        width, q_rows = shape.embedding_length, shape.head_count * shape.head_dim
        kv_rows = shape.head_count_kv * shape.head_dim
        joined = self.linear(self.norm(hidden), q_rows + 2 * kv_rows, width)
        parts = ops.variadic_split(joined, -1, np.array([q_rows, kv_rows, kv_rows])).outputs()
        queries, keys, values = (
            self.heads(part, count)
            for part, count in zip(
                parts, (shape.head_count, shape.head_count_kv, shape.head_count_kv), strict=True
            )
        )
        queries, keys = (self.rotate(part, inputs["cosine"], inputs["sine"]) for part in (queries, keys))
        keys, values = (
            self.repeated(self.remembered(new, inputs["batch"], inputs["beams"], f"past.{index}.{name}"))
            for new, name in ((keys, "key"), (values, "value"))
        )
        mixed = ops.scaled_dot_product_attention(queries, keys, values, inputs["mask"], causal=False)
        joined = ops.reshape(ops.transpose(mixed, np.array([0, 2, 1, 3])), np.array([0, 0, q_rows]), True)
        hidden = ops.add(hidden, self.linear(joined, width, q_rows))
        ffn = shape.feed_forward_length
        up = self.linear(self.norm(hidden), 2 * ffn, width)
        gate, up = ops.variadic_split(up, -1, np.array([ffn, ffn])).outputs()
        return ops.add(hidden, self.linear(ops.multiply(up, ops.swish(gate)), width, ffn))

    def model(self) -> ov.Model:
        """The whole model: ids, positions and a mask in, logits of the last position out."""
        shape = self.shape
        ids = ops.parameter(ov.PartialShape([-1, -1]), ov.Type.i64, name="input_ids")
        positions = ops.parameter(ov.PartialShape([-1, -1]), ov.Type.i64, name="position_ids")
        mask = ops.parameter(ov.PartialShape([-1, 1, -1, -1]), ov.Type.f32, name="mask")
        beams = ops.parameter(ov.PartialShape([-1]), ov.Type.i32, name="beam_idx")
        size = shape.vocabulary_size, shape.embedding_length
        hidden = ops.gather(self.weights(*size, four_bits=False), ids, 0)
        count = shape.rope_dimension_count // 2
        inverse = (shape.freq_base ** (-np.arange(count) / count)).astype(np.float32)
        angles = ops.multiply(ops.unsqueeze(ops.convert(positions, "f32"), -1), ops.constant(inverse[None, None]))
        angles = ops.unsqueeze(ops.concat([angles, angles], -1), 1)
        inputs = {
            "cosine": ops.cos(angles),
            "sine": ops.sin(angles),
            "mask": mask,
            "beams": beams,
            "batch": ops.gather(ops.shape_of(ids), np.array([0]), 0),
        }
        for index in range(shape.block_count):
            hidden = self.block(hidden, index, inputs)
        last = ops.gather(self.norm(hidden), np.array([-1]), 1)
        logits = self.linear(last, *size, four_bits=False)
        result = ops.result(logits, name="logits")
        return ov.Model([result], self.sinks, [ids, positions, mask, beams], "synthetic")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=[name for name in synthetic.MODELS if name.startswith("phi-3-mini")])
    parser.add_argument("directory", type=Path)
    return parser.parse_args(argv)


def main() -> None:
    """Writes one directory."""
    given = arguments()
    given.directory.mkdir(parents=True, exist_ok=True)
    path = given.directory / "openvino_model.xml"
    writer = Writer(synthetic.MODELS[given.model])
    ov.save_model(writer.model(), path, compress_to_fp16=False)
    print(f"{path}: {path.with_suffix('.bin').stat().st_size / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
