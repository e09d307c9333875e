"""ONNX Runtime on a model that `export_onnx.py` has written: the engine under onnxruntime-genai, called directly.

Keys and values are f32, which is what its attention takes on a processor, in one buffer that is written in place.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import onnxruntime as ort

import worker


class OnnxRuntime(worker.Engine):
    """A session, and a cache for each depth."""

    name = "onnxruntime"

    @property
    def version(self) -> str:
        """The version."""
        return f"onnxruntime {ort.__version__}"

    def load(self) -> None:
        """Reads, packs and plans."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.options.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        path = self.options.model
        path = path / "model.onnx" if path.is_dir() else path
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.past = [value.name for value in self.session.get_inputs() if value.name.startswith("past.")]
        _, self.kv_heads, _, self.head_dim = self.session.get_inputs()[-1].shape
        self.size = int(self.session.get_outputs()[0].shape[2])
        self.room = 512 + self.options.room
        self.main = self.cache(self.room)
        self.caches: dict[int, Any] = {}
        self.held: dict[int, int] = {}

    def cache(self, tokens: int) -> Any:
        """Room for the keys and values of so many tokens."""
        zeros = np.zeros((1, self.kv_heads, tokens, self.head_dim), dtype=np.float32)
        return {name: ort.OrtValue.ortvalue_from_numpy(zeros) for name in self.past}

    def read(self, cache: Any, tokens: list[int], past: int) -> int:
        """Reads tokens behind those that are there; the likeliest next one."""
        binding = self.session.io_binding()
        total = past + len(tokens)
        binding.bind_cpu_input("input_ids", np.array([tokens]))
        binding.bind_cpu_input("seqlens_k", np.array([total - 1], dtype=np.int32))
        binding.bind_cpu_input("total_sequence_length", np.array(total, dtype=np.int32))
        for name, value in cache.items():
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(name.replace("past", "present"), value)
        binding.bind_output("logits")
        self.session.run_with_iobinding(binding)
        return int(np.argmax(binding.get_outputs()[-1].numpy()))

    def forward(self, tokens: list[int]) -> None:
        """One call."""
        self.read(self.main, tokens, 0)

    def decode(self, prompt: list[int], count: int) -> float:
        """What is written behind a depth is written over the next time."""
        depth = len(prompt)
        own = depth if depth > 1 and depth in self.options.depths else 0
        if own and own not in self.caches:
            self.caches[own] = self.cache(depth + self.options.room)
        cache = self.caches[own] if own else self.main
        if own not in self.held or not own:
            for start in range(0, depth, 512):
                self.held[own] = self.read(cache, prompt[start : start + 512], start)
        token = self.held[own]
        begin = time.perf_counter()
        for past in range(depth, depth + count):
            token = self.read(cache, [token], past)
        return time.perf_counter() - begin

    def cache_bytes(self, tokens: int) -> int:
        """All of the buffer is there from the start."""
        del tokens
        return len(self.past) * self.kv_heads * self.head_dim * 4 * self.room

    @property
    def vocabulary_size(self) -> int:
        """Columns of the logits."""
        return self.size


if __name__ == "__main__":
    worker.serve(OnnxRuntime)
