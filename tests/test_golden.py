"""The engine against what transformers computed: tests/golden, made by tools/make_golden.py."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from candle_phi import GenerationConfig, Phi3Model, Phi3Session
from candle_phi.config import Executor
from golden_cases import CASES, FOLDER, Case

TOLERANCE = 2e-4
"""Of a natural-log probability in F32, where the two add up in another order."""

NAMES = sorted(CASES)
GENERATING = [name for name in NAMES if CASES[name].prompt_tokens is not None]
ONE_BY_ONE = [
    name
    for name in NAMES
    if CASES[name].score_tokens < 500
    # There the sequence without its last token is turned with the other factors.
    and getattr(CASES[name].model, "original_context_length", None) != CASES[name].score_tokens - 1
]


@pytest.fixture(scope="module", params=["kernels", "candle"])
def executor(request: pytest.FixtureRequest) -> Executor:
    found: Executor = request.param
    return found


@pytest.fixture(scope="module", params=NAMES)
def golden(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    executor: Executor,
) -> tuple[Case, dict[str, Any], Phi3Model]:
    case = CASES[request.param]
    expected = json.loads((FOLDER / f"{request.param}.json").read_text(encoding="utf-8"))
    assert case.sha256() == expected["sha256"], (
        "the random weights are others than when the file was made: numpy's generator or the case has changed; "
        "run tools/make_golden.py"
    )
    path = case.write(tmp_path_factory.mktemp("golden") / f"{request.param}.gguf")
    return case, expected, Phi3Model(path, executor=executor)


def open_session(model: Phi3Model, prefill_chunk: int | None = None) -> Phi3Session:
    return Phi3Session(model=model, kv_dtype="f32", n_ctx=model.info.context_length, prefill_chunk=prefill_chunk)


@pytest.mark.parametrize("prefill_chunk", [None, 7])
def test_log_probabilities(golden: tuple[Case, dict[str, Any], Phi3Model], prefill_chunk: int | None) -> None:
    case, expected, model = golden
    wanted = np.array(expected["log_probabilities"])
    assert wanted.std() > 0.5, "the model says nothing"
    with open_session(model, prefill_chunk) as session:
        scores = np.array(session.score(case.ids()))[-len(wanted) :]
    np.testing.assert_allclose(scores, wanted, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("golden", GENERATING, indirect=True)
def test_greedy_tokens(golden: tuple[Case, dict[str, Any], Phi3Model]) -> None:
    case, expected, model = golden
    config = GenerationConfig.greedy(max_tokens=case.new_tokens, ignore_eos=True)
    for prefill_chunk in (None, 1, 7):
        with open_session(model, prefill_chunk) as session:
            assert session.generate(case.ids()[: case.prompt_tokens], config).tokens == expected["greedy"]


@pytest.mark.parametrize("golden", ONE_BY_ONE, indirect=True)
def test_the_last_logits_token_by_token(golden: tuple[Case, dict[str, Any], Phi3Model]) -> None:
    """The last score once more, of logits that were computed one token at a time."""
    case, expected, model = golden
    *before, last = case.ids()
    with open_session(model, prefill_chunk=1) as session:
        logits = np.asarray(session.logits(before)).astype(np.float64)
    score = logits[last] - logits.max() - np.log(np.exp(logits - logits.max()).sum())
    assert score == pytest.approx(expected["log_probabilities"][-1], abs=TOLERANCE)


def test_every_file_has_its_case() -> None:
    assert sorted(path.stem for path in Path(FOLDER).glob("*.json")) == NAMES
