"""mistral.rs by its Python package, which takes text only: letters with spaces between, a token each.

Times are its own (`usage`): of the prompt, and of what was generated behind the first token.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from typing import Any

import worker

if "--threads" in sys.argv[:-1]:
    os.environ.setdefault("RAYON_NUM_THREADS", sys.argv[sys.argv.index("--threads") + 1])

import mistralrs


class MistralRs(worker.Engine):
    """One runner. A depth that was read before comes out of its prefix cache."""

    name = "mistral.rs"

    @property
    def version(self) -> str:
        """The version of the package."""
        return f"mistralrs {importlib.metadata.version('mistralrs')}"

    def load(self) -> None:
        """The model, as a runner for one sequence."""
        path = self.options.model
        which = mistralrs.Which.GGUF(quantized_model_id=str(path.parent), quantized_filename=path.name)
        self.runner = mistralrs.Runner(which=which, max_seqs=1)

    def ask(self, tokens: list[int], new: int) -> Any:
        """What a request took. The token for the beginning of a text comes first by itself."""
        text = " ".join(chr(ord("a") + token % 26) for token in tokens[1:]) or "a"
        request = mistralrs.CompletionRequest(model="default", prompt=text, max_tokens=new, temperature=0.0)
        usage = self.runner.send_completion_request(request).usage
        if abs(usage.prompt_tokens - len(tokens)) > 2 + len(tokens) // 50:
            raise RuntimeError(f"a prompt of {len(tokens)} tokens became {usage.prompt_tokens}")
        return usage

    def forward(self, tokens: list[int]) -> None:
        """The prompt and one token."""
        self.ask(tokens, 1)

    def decode(self, prompt: list[int], count: int) -> float:
        """What the tokens behind the first took."""
        usage = self.ask(prompt, count + 1)
        per_token = usage.total_completion_time_sec / max(usage.completion_tokens - 1, 1)
        return float(per_token * count)

    def cache_bytes(self, tokens: int) -> int:
        """Not known: none is taken off."""
        del tokens
        return 0

    @property
    def vocabulary_size(self) -> int:
        """Letters are all that it is asked about."""
        return 30_000


if __name__ == "__main__":
    worker.serve(MistralRs)
