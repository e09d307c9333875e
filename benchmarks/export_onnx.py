"""Writes an ONNX model of random int4 weights in the real shape of a model of the family.

    pip install onnx gguf numpy
    python benchmarks/export_onnx.py phi-3-mini-4k /tmp/phi-3-mini-4k-onnx

The graph is the one that the model builder of onnxruntime-genai writes for processors: MatMulNBits in blocks of 32
with accuracy level 4 (8-bit activations), GroupQueryAttention with the rotation inside and a cache that it writes
in place, norms that take the addition before them. Logits of the last position only.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

import synthetic

BLOCK = 32
MICROSOFT = "com.microsoft"


class Writer:
    """Builds the graph of one model."""

    def __init__(self, shape: synthetic.Shape, seed: int = 0) -> None:
        self.shape = shape
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, array: np.ndarray[Any, Any]) -> str:
        """An array of the model's own."""
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        self.constants.append(helper.make_tensor(name, kind, array.shape, array.tobytes(), raw=True))
        return name

    def node(self, operator: str, inputs: list[str], outputs: list[str], domain: str = "", **options: Any) -> str:
        """A node; the name of its first output."""
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=outputs[0], domain=domain, **options))
        return outputs[0]

    def linear(self, hidden: str, name: str, rows: int, columns: int) -> str:
        """The product with a matrix of int4."""
        packed = self.rng.integers(0, 256, (rows, columns // BLOCK, BLOCK // 2), dtype=np.uint8)
        spread = self.rng.uniform(0.7, 1.3, rows * columns // BLOCK)
        scales = (spread / math.sqrt(columns) / 4.6).astype(np.float32)
        inputs = [hidden, self.constant(f"{name}.weight", packed), self.constant(f"{name}.scales", scales)]
        options = {"K": columns, "N": rows, "bits": 4, "block_size": BLOCK, "accuracy_level": 4}
        return self.node("MatMulNBits", inputs, [name], MICROSOFT, **options)

    def gamma(self, name: str) -> str:
        """The weights of a norm."""
        return self.constant(name, self.rng.uniform(0.8, 1.2, self.shape.embedding_length).astype(np.float32))

    def added_norm(self, hidden: str, more: str, name: str) -> tuple[str, str]:
        """The sum, and the norm of it."""
        inputs = [hidden, more, self.gamma(f"{name}.weight")]
        outputs = [name, "", "", f"{name}.sum"]
        self.node("SkipSimplifiedLayerNormalization", inputs, outputs, MICROSOFT, epsilon=1e-5)
        return f"{name}.sum", name

    def block(self, normed: str, hidden: str, index: int) -> tuple[str, str]:
        """One decoder block: what is added up so far, and the last part, which the next norm adds."""
        shape, name = self.shape, f"blk.{index}"
        width, q_rows = shape.embedding_length, shape.head_count * shape.head_dim
        kv_rows = shape.head_count_kv * shape.head_dim
        joined = self.linear(normed, f"{name}.qkv", q_rows + 2 * kv_rows, width)
        past = [f"past.{index}.key", f"past.{index}.value"]
        inputs = [joined, "", "", *past, "seqlens_k", "total_sequence_length", "cosine", "sine"]
        outputs = [f"{name}.attention", f"present.{index}.key", f"present.{index}.value"]
        mixed = self.node(
            "GroupQueryAttention",
            inputs,
            outputs,
            MICROSOFT,
            num_heads=shape.head_count,
            kv_num_heads=shape.head_count_kv,
            do_rotary=1,
            rotary_interleaved=0,
            scale=1 / math.sqrt(shape.head_dim),
        )
        projected = self.linear(mixed, f"{name}.output", width, q_rows)
        hidden, normed = self.added_norm(hidden, projected, f"{name}.ffn_norm")
        ffn = shape.feed_forward_length
        up = self.linear(normed, f"{name}.up", 2 * ffn, width)
        gate, up_part = f"{name}.gate_part", f"{name}.up_part"
        self.node("Split", [up], [gate, up_part], axis=-1, num_outputs=2)
        sigmoid = self.node("Sigmoid", [gate], [f"{name}.sigmoid"])
        swish = self.node("Mul", [gate, sigmoid], [f"{name}.swish"])
        product = self.node("Mul", [swish, up_part], [f"{name}.product"])
        return hidden, self.linear(product, f"{name}.down", width, ffn)

    def model(self) -> Any:
        """The whole model: ids in, logits of the last position out, and a cache that stays where it is."""
        shape = self.shape
        count = shape.rope_dimension_count // 2
        inverse = shape.freq_base ** (-np.arange(count) / count)
        angles = np.outer(np.arange(shape.context_length), inverse)
        self.constant("cosine", np.cos(angles).astype(np.float32))
        self.constant("sine", np.sin(angles).astype(np.float32))
        size = shape.vocabulary_size, shape.embedding_length
        embedding = self.rng.standard_normal(size, dtype=np.float32) / np.float32(math.sqrt(size[1]))
        hidden = self.node("Gather", [self.constant("token_embd", embedding), "input_ids"], ["embedded"])
        inputs = [hidden, self.gamma("blk.0.attn_norm.weight")]
        normed = self.node("SimplifiedLayerNormalization", inputs, ["blk.0.attn_norm"], epsilon=1e-5, axis=-1)
        for index in range(shape.block_count):
            hidden, last = self.block(normed, hidden, index)
            following = f"blk.{index + 1}.attn_norm" if index + 1 < shape.block_count else "output_norm"
            hidden, normed = self.added_norm(hidden, last, following)
        position = self.constant("last_position", np.array([-1]))
        self.linear(self.node("Gather", [normed, position], ["last"], axis=1), "logits", *size)
        cache = [1, shape.head_count_kv, "past", shape.head_dim]
        values = helper.make_tensor_value_info
        names = [f"{index}.{which}" for index in range(shape.block_count) for which in ("key", "value")]
        graph = helper.make_graph(
            self.nodes,
            "synthetic",
            [
                values("input_ids", TensorProto.INT64, [1, "tokens"]),
                values("seqlens_k", TensorProto.INT32, [1]),
                values("total_sequence_length", TensorProto.INT32, []),
                *(values(f"past.{name}", TensorProto.FLOAT, cache) for name in names),
            ],
            [
                values("logits", TensorProto.FLOAT, [1, 1, shape.vocabulary_size]),
                *(values(f"present.{name}", TensorProto.FLOAT, cache) for name in names),
            ],
            self.constants,
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


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
    path = given.directory / "model.onnx"
    weights = path.with_suffix(".onnx.data")
    weights.unlink(missing_ok=True)  # it would be appended to
    model = Writer(synthetic.MODELS[given.model]).model()
    onnx.save_model(model, path, save_as_external_data=True, location=weights.name)
    print(f"{path}: {weights.stat().st_size / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
