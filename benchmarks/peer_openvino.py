"""OpenVINO on a model that `export_openvino.py` has written: the engine under openvino-genai, called directly.

Its own settings for the least latency; keys and values in the type that it chooses for the processor (u8 where
that is faster) unless ``--option KV_CACHE_PRECISION=f16`` says otherwise. What it has read cannot be cut off
cheaply, so a depth grows by the tokens that are decoded in each round.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import openvino as ov

import worker


class OpenVino(worker.Engine):
    """A compiled model, and a request for each depth."""

    name = "openvino"

    @property
    def version(self) -> str:
        """The version and the options."""
        chosen = "".join(f", {name} {value}" for name, value in self.options.extra.items())
        return f"openvino {ov.__version__}{chosen}"

    def load(self) -> None:
        """Reads and compiles."""
        core = ov.Core()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.options.threads,
            **self.options.extra,
        }
        path = self.options.model
        model = core.read_model(path / "openvino_model.xml" if path.is_dir() else path)
        self.size = int(model.output(0).partial_shape[2].get_length())
        cached = model.get_sinks()[0].input(0).get_partial_shape()
        self.cache_values_per_token = len(model.get_sinks()) * int(cached[1].get_length() * cached[3].get_length())
        self.compiled = core.compile_model(model, "CPU", settings)
        self.requests: dict[int, Any] = {}
        self.held: dict[int, tuple[int, int]] = {}
        self.main = self.compiled.create_infer_request()

    def read(self, request: Any, tokens: list[int], past: int) -> int:
        """Reads tokens behind what is there; the likeliest next one."""
        count = len(tokens)
        mask = np.triu(np.full((count, past + count), -np.inf, dtype=np.float32), past + 1)
        result = request.infer(
            {
                "input_ids": np.array([tokens]),
                "position_ids": np.arange(past, past + count)[None],
                "mask": mask[None, None],
                "beam_idx": np.zeros(1, dtype=np.int32),
            }
        )
        return int(np.argmax(result[0]))

    def forward(self, tokens: list[int]) -> None:
        """One call."""
        self.main.reset_state()
        self.read(self.main, tokens, 0)

    def decode(self, prompt: list[int], count: int) -> float:
        """Goes on where the request of a depth is."""
        depth = len(prompt)
        own = depth if depth > 1 and depth in self.options.depths else 0
        request = self.requests.setdefault(own, self.compiled.create_infer_request()) if own else self.main
        if own and own in self.held:
            token, past = self.held[own]
        else:
            request.reset_state()
            past = 0
            for start in range(0, depth, 512):
                piece = prompt[start : start + 512]
                token = self.read(request, piece, past)
                past += len(piece)
        begin = time.perf_counter()
        for _ in range(count):
            token = self.read(request, [token], past)
            past += 1
        seconds = time.perf_counter() - begin
        self.held[own] = token, past
        return seconds

    def cache_bytes(self, tokens: int) -> int:
        """In the type that the keys and values have."""
        kind = str(self.compiled.get_property("KV_CACHE_PRECISION"))
        width = 1 if "8" in kind else 4 if "f32" in kind or "float32" in kind else 2
        return tokens * self.cache_values_per_token * width

    @property
    def vocabulary_size(self) -> int:
        """Rows of the output."""
        return self.size


if __name__ == "__main__":
    worker.serve(OpenVino)
