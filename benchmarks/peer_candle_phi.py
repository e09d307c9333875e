"""This package, for `compare.py`. Options: ``executor``, ``isa``, ``kv_dtype`` and ``sliding_window``.

The sliding window is off unless an option says otherwise, since llama.cpp has none for this architecture.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import worker

# Candle's executor takes its number of threads once, when it first computes.
if "--threads" in sys.argv[:-1]:
    os.environ.setdefault("RAYON_NUM_THREADS", sys.argv[sys.argv.index("--threads") + 1])

import candle_phi
from candle_phi import Phi3Model, Phi3Session

LOADING = ("executor", "sliding_window")


class CandlePhi(worker.Engine):
    """A model, and a session for each depth, so that what stands in one is not disturbed by other prompts."""

    name = "candle-phi"

    @property
    def version(self) -> str:
        """The version and the options."""
        chosen = "".join(f", {name} {value}" for name, value in self.options.extra.items())
        return f"candle-phi {candle_phi.__version__}{chosen}"

    def load(self) -> None:
        """The model, and the session that prompts go to."""
        given: dict[str, Any] = {"sliding_window": 0, **self.options.extra}
        given["sliding_window"] = int(given["sliding_window"])
        self.model = Phi3Model(
            self.options.model, **{name: value for name, value in given.items() if name in LOADING}
        )
        self.own = {name: value for name, value in given.items() if name not in LOADING}
        self.sessions: dict[int, Phi3Session] = {}
        self.main = self.session(0, 512 + self.options.room)

    def session(self, key: int, n_ctx: int) -> Phi3Session:
        """A session of that length."""
        if key not in self.sessions:
            n_ctx = min(n_ctx, self.model.info.context_length)
            threads = self.options.threads
            self.sessions[key] = Phi3Session(model=self.model, n_ctx=n_ctx, n_threads=threads, **self.own)
        return self.sessions[key]

    def forward(self, tokens: list[int]) -> None:
        """The prompt, and the choice of one token."""
        self.main.reset()
        self.main.generate(tokens, max_tokens=1, temperature=0, ignore_eos=True)

    def decode(self, prompt: list[int], count: int) -> float:
        """The session knows the prompt of a depth from before, and reads its last token again."""
        depth = len(prompt)
        own = depth if depth > 1 and depth in self.options.depths else 0
        session = self.session(own, depth + self.options.room) if own else self.main
        completion = session.generate(prompt, max_tokens=count + 1, temperature=0, ignore_eos=True)
        return completion.timings.decode_s

    def cache_bytes(self, tokens: int) -> int:
        """The cache grows with the tokens."""
        return self.model.info.kv_cache_bytes(tokens, self.main.config.kv_dtype)

    @property
    def vocabulary_size(self) -> int:
        """Rows of the output."""
        return self.model.info.vocabulary_size


if __name__ == "__main__":
    worker.serve(CandlePhi)
