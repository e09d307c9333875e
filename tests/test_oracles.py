"""The numpy forward passes, which the engine is held to, against what transformers computed, and each other."""

import json
from pathlib import Path

import numpy as np
import pytest

import tiny_llama
from golden_cases import CASES, FOLDER
from numpy_oracle import oracle
from numpy_phi3 import NumpyPhi3
from tiny_gguf import TinyPhi3, random_ids, write

TOLERANCE = 1e-4


@pytest.mark.parametrize("name", sorted(CASES))
def test_numpy_equals_transformers(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    golden = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    numpy_model = oracle(case.write(tmp_path / "model.gguf"))
    wanted = golden["log_probabilities"]
    found = numpy_model.log_probabilities(case.ids())[-len(wanted) :]
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.prompt_tokens is not None])
def test_numpy_generates_what_transformers_generates(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    golden = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    numpy_model = oracle(case.write(tmp_path / "model.gguf"))
    ids = case.ids()[: case.prompt_tokens]
    for token in golden["greedy"]:
        assert numpy_model.logits(ids)[-1].argmax() == token
        ids.append(token)


def test_numpy_computes_a_file_converted_as_llama_as_the_same_model(tmp_path: Path) -> None:
    options, ids = TinyPhi3(head_count=6, head_count_kv=2, head_dim=20, seed=9), random_ids(60)
    phi3 = NumpyPhi3(write(tmp_path / "phi3.gguf", options))
    llama = NumpyPhi3(tiny_llama.write(tmp_path / "llama.gguf", options))
    np.testing.assert_allclose(llama.logits(ids), phi3.logits(ids), atol=TOLERANCE, rtol=0)
