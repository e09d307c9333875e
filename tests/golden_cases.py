"""The small random models whose probabilities transformers has computed; see tools/make_golden.py."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tiny_gguf
import tiny_phi2
from tiny_gguf import TinyPhi3
from tiny_phi2 import TinyPhi2

if TYPE_CHECKING:
    import numpy as np

FOLDER = Path(__file__).parent / "golden"

_SHORT = (1.0, 1.05, 1.1, 1.2, 1.4, 1.7, 2.0, 2.5)
_LONG = (1.0, 1.5, 2.0, 4.0, 8.0, 16.0, 24.0, 32.0)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model, and what is asked of it."""

    model: TinyPhi3 | TinyPhi2
    score_tokens: int
    """Length of the sequence whose tokens are scored."""
    last: int | None = None
    """Keep only this many of the scores, the last ones."""
    prompt_tokens: int | None = None
    """How many tokens of the sequence are the prompt of a greedy generation."""
    new_tokens: int = 0

    def write(self, path: Path) -> Path:
        """Writes the model."""
        if isinstance(self.model, TinyPhi2):
            return tiny_phi2.write(path, self.model)
        return tiny_gguf.write(path, self.model)

    def weights(self) -> dict[str, np.ndarray]:
        """The model's tensors."""
        if isinstance(self.model, TinyPhi2):
            return tiny_phi2.weights(self.model)
        return tiny_gguf.weights(self.model)

    def ids(self) -> list[int]:
        """The tokens of the sequence."""
        size = self.model.vocabulary_size
        return [token % size for token in tiny_gguf.random_ids(self.score_tokens)]

    def sha256(self) -> str:
        """A hash of weights and tokens: it tells another random generator from an engine that is wrong."""
        digest = hashlib.sha256(repr(self.ids()).encode())
        for name, tensor in sorted(self.weights().items()):
            digest.update(name.encode())
            digest.update(tensor.tobytes())
        return digest.hexdigest()


def _long_rope(**changes: object) -> TinyPhi3:
    options = {
        "rope_factors_short": _SHORT,
        "rope_factors_long": _LONG,
        "original_context_length": 64,
        **changes,
    }
    return TinyPhi3(**options)  # type: ignore[arg-type] # the values are those of the fields


_PHI_4_MINI = _long_rope(
    head_count=6,
    head_count_kv=2,
    rope_dimension_count=12,
    rope_factors_short=(1.0,) * 6,
    rope_factors_long=_LONG[:6],
    tied_output=True,
    seed=3,
)

CASES = {
    "grouped_tied_base_250000": Case(
        model=TinyPhi3(head_count_kv=2, tied_output=True, freq_base=250_000.0, seed=1), score_tokens=200
    ),
    "partial_rotary": Case(model=TinyPhi3(rope_dimension_count=12, head_count_kv=1, seed=2), score_tokens=120),
    "window_of_24": Case(model=TinyPhi3(sliding_window=24), score_tokens=120, prompt_tokens=40, new_tokens=60),
    "window_of_1": Case(model=TinyPhi3(sliding_window=1, seed=4), score_tokens=40),
    "long_rope_short": Case(model=_long_rope(), score_tokens=64),
    "long_rope_just_long": Case(model=_long_rope(), score_tokens=65),
    "long_rope_long": Case(model=_long_rope(), score_tokens=200),
    "long_rope_crossing": Case(model=_long_rope(), score_tokens=64, prompt_tokens=56, new_tokens=24),
    "phi_4_mini_short": Case(model=_PHI_4_MINI, score_tokens=50),
    "phi_4_mini_long": Case(model=_PHI_4_MINI, score_tokens=90, prompt_tokens=60, new_tokens=12),
    "position_4000": Case(model=TinyPhi3(context_length=8192, block_count=1, seed=5), score_tokens=4000, last=60),
    "phi2_fused": Case(model=TinyPhi2(vocabulary_size=277), score_tokens=120, prompt_tokens=20, new_tokens=30),
    "phi2_split": Case(
        model=TinyPhi2(vocabulary_size=277, split_qkv=True, rope_dimension_count=10, seed=6), score_tokens=120
    ),
}
