"""Random models in random conversations: whatever a session did before, it answers as one forward pass does.

Window, LongRoPE, heads in groups, partial rotary embedding and the way a prompt is cut meet here in combinations
that nobody chose. `CANDLE_PHI_RANDOM_MODELS=500` tries more of them than the few that run by default.
"""

import os
from pathlib import Path

import numpy as np
import pytest

import random_models
from candle_phi import GenerationConfig, Phi3Session
from candle_phi.config import Executor
from numpy_oracle import oracle
from numpy_phi3 import NumpyPhi3
from random_models import Draw

TOLERANCE = 5e-4
"""The oracle's angles are in double precision, the engine's in single, as the models were trained."""

N_CTX = 400
STEPS = 10


def check_generation(session: Phi3Session, numpy_model: NumpyPhi3, prompt: list[int], count: int) -> list[int]:
    """Generates ``count`` tokens, each of which must be as likely as the likeliest; returns all tokens."""
    completion = session.generate(prompt, GenerationConfig.greedy(max_tokens=count, ignore_eos=True))
    usage = completion.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (len(prompt), count)
    assert 0 <= usage.cached_tokens <= len(prompt)
    ids = [*prompt, *completion.tokens]
    for length in range(len(prompt), len(ids)):
        logits = numpy_model.logits(ids[:length])[-1]
        logits[numpy_model.unused_tokens()] = -np.inf
        assert logits[ids[length]] > logits.max() - 2 * TOLERANCE, f"token {length} of {len(ids)}"
    return ids


@pytest.mark.parametrize("executor", ["kernels", "candle"])
@pytest.mark.parametrize("seed", range(int(os.environ.get("CANDLE_PHI_RANDOM_MODELS", "24"))))
def test_a_session_always_answers_as_one_forward_pass(tmp_path: Path, seed: int, executor: Executor) -> None:
    draw = Draw(seed)
    path = random_models.write(tmp_path / "random.gguf", draw, ("phi3", "phi3", "phi2", "llama")[seed % 4])
    numpy_model = oracle(path)
    chunk = draw.one_of(None, 1, 3, 7, 32, 64, 200)
    ids = [1, *draw.tokens(draw.integer(1, 200))]
    with Phi3Session(path, kv_dtype="f32", n_ctx=N_CTX, prefill_chunk=chunk, executor=executor) as session:
        for _ in range(STEPS):
            match draw.one_of("score", "shorten", "lengthen", "branch", "generate"):
                case "score" if len(ids) > 1:
                    expected = numpy_model.log_probabilities(ids)
                    np.testing.assert_allclose(session.score(ids), expected, atol=TOLERANCE, rtol=0)
                case "shorten":
                    ids = ids[: draw.integer(1, len(ids))]
                case "lengthen":
                    ids = [*ids, *draw.tokens(draw.one_of(1, draw.integer(2, 60)))]
                case "branch":
                    ids = [*ids[: draw.integer(1, len(ids))], *draw.tokens(draw.integer(1, 80))]
                case "generate":
                    ids = check_generation(session, numpy_model, ids[: N_CTX - 40], draw.integer(1, 30))
            ids = ids[: N_CTX - 1]
            found = np.asarray(session.logits(ids))
            np.testing.assert_allclose(found, numpy_model.logits(ids)[-1], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("architecture", ["phi3", "phi2", "llama"])
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "IQ4_NL"])
def test_quantized_files_of_each_architecture_differ_only_by_the_rounding_of_activations(
    tmp_path: Path, architecture: str, kind: str
) -> None:
    path = random_models.write_quantized(tmp_path / "quantized.gguf", architecture, kind)
    ids = [1, *Draw(0).tokens(80)]
    expected = oracle(path).logits(ids)
    with Phi3Session(path, kv_dtype="f32") as session:
        found = np.array([session.logits(ids[: count + 1]) for count in range(len(ids))])
    error = float(((found - expected) ** 2).mean() / (expected**2).mean())
    print(f"{architecture} in {kind}: normalised mean square error {error:.1e}")
    assert error < 2e-3
