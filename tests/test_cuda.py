"""What a CUDA GPU computes, against transformers' golden files and against Candle's operations on the CPU."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cuda
import random_models
import tiny_gguf
import tiny_phi2
from candle_phi import GenerationConfig, Phi3Model, Phi3Session
from golden_cases import CASES, FOLDER
from quantized_models import DRAWN, WRITTEN, write_quantized
from tiny_gguf import TinyPhi3, random_ids
from tiny_phi2 import TinyPhi2

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import synthetic

cuda.skip_without_cuda()

EXACT = 5e-4
"""Between logits and log-probabilities in F32, which a GPU adds up in another order than a CPU."""
ROUNDED = 1e-2
"""Mean square of the difference of logits, in parts of their own: both round activations to eight bits, Candle on
the CPU in blocks of the weights' size, on CUDA in blocks of 32. A wrong scale or order is off by 1e-1 and more."""

GREEDY = GenerationConfig.greedy(max_tokens=64)
PROMPTS = [
    "<|user|>\nWrite a haiku about ice hockey<|end|>\n<|assistant|>\n",
    "<|user|>\nCount from 3 to 17<|end|>\n<|assistant|>\n",
    "The night is cold",
]


def both(path: Path) -> tuple[Phi3Model, Phi3Model]:
    """The model on the GPU, and on the CPU with Candle's operations, the reference."""
    return Phi3Model(path, device=cuda.DEVICE), Phi3Model(path, device="cpu", executor="candle")


def logits_of_both(path: Path, ids: list[int], chunks: tuple[int, ...]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The logits behind ``ids`` on both, which are computed so many at a time."""
    models = both(path)
    for prefill_chunk in chunks:
        logits = []
        for model in models:
            with Phi3Session(model=model, prefill_chunk=prefill_chunk, kv_dtype="f32") as session:
                logits.append(np.asarray(session.logits(ids)))
        print(f"{prefill_chunk} at once: largest difference {np.abs(logits[0] - logits[1]).max():.1e}")
        yield logits[0], logits[1]


def square_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(((found - expected) ** 2).mean() / (expected**2).mean())


# --- golden files ---


@pytest.mark.parametrize("prefill_chunk", [None, 7])
@pytest.mark.parametrize("name", sorted(CASES))
def test_log_probabilities_are_those_of_transformers(tmp_path: Path, name: str, prefill_chunk: int | None) -> None:
    case, expected = CASES[name], json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    model = Phi3Model(case.write(tmp_path / "golden.gguf"), device=cuda.DEVICE)
    wanted = np.array(expected["log_probabilities"])
    with Phi3Session(
        model=model, kv_dtype="f32", n_ctx=model.info.context_length, prefill_chunk=prefill_chunk
    ) as session:
        scores = np.array(session.score(case.ids()))[-len(wanted) :]
    print(f"{name}: largest difference {np.abs(scores - wanted).max():.1e}")
    np.testing.assert_allclose(scores, wanted, atol=EXACT, rtol=0)


@pytest.mark.parametrize("prefill_chunk", [None, 1, 7])
@pytest.mark.parametrize("name", sorted(name for name, case in CASES.items() if case.prompt_tokens))
def test_greedy_tokens_are_those_of_transformers(tmp_path: Path, name: str, prefill_chunk: int | None) -> None:
    """Across the boundary of LongRoPE and behind a window, too."""
    case, expected = CASES[name], json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    model = Phi3Model(case.write(tmp_path / "golden.gguf"), device=cuda.DEVICE)
    config = GenerationConfig.greedy(max_tokens=case.new_tokens, ignore_eos=True)
    with Phi3Session(
        model=model, kv_dtype="f32", n_ctx=model.info.context_length, prefill_chunk=prefill_chunk
    ) as session:
        completion = session.generate(case.ids()[: case.prompt_tokens], config)
    assert completion.tokens == expected["greedy"]
    crosses = name in {"long_rope_crossing", "phi_4_mini_long"}
    assert (completion.usage.recomputed_tokens > 0) == crosses


# --- tensor types ---

SMALL = TinyPhi3(head_count=4, head_count_kv=2, head_dim=64, feed_forward_length=512)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_weights_that_are_not_quantized_are_exact(tmp_path: Path, kind: str) -> None:
    path = tiny_gguf.write(tmp_path / "tiny.gguf", replace(SMALL, tensor_type=kind))
    for found, expected in logits_of_both(path, random_ids(60), (1, 5, 60)):
        np.testing.assert_allclose(found, expected, atol=EXACT)


@pytest.mark.parametrize("kind", [*WRITTEN, *DRAWN])
def test_logits_in_each_quantized_type_are_the_cpus(tmp_path: Path, kind: str) -> None:
    """One row, a few and many: Candle has a kernel for each."""
    path = write_quantized(tmp_path / "tiny.gguf", kind, SMALL)
    for found, expected in logits_of_both(path, random_ids(60), (1, 5, 60)):
        assert expected.std() > 1, "the model says nothing"
        error = square_error(found, expected)
        print(f"{kind}: normalised square error {error:.1e}")
        assert error < ROUNDED


@pytest.mark.parametrize("architecture", ["phi3", "phi2", "llama"])
def test_each_architecture_in_quantized_weights_is_the_cpus(tmp_path: Path, architecture: str) -> None:
    path = random_models.write_quantized(tmp_path / "quantized.gguf", architecture, "Q8_0")
    for found, expected in logits_of_both(path, random_ids(60), (1, 60)):
        assert square_error(found, expected) < ROUNDED


@pytest.mark.parametrize(
    "options",
    [
        TinyPhi3(split_qkv=True, head_count_kv=1),
        TinyPhi3(head_count=3, head_count_kv=3, head_dim=20, feed_forward_length=33, tied_output=True),
        TinyPhi3(rope_dimension_count=6),
        TinyPhi2(split_qkv=True),
    ],
    ids=["split, one key head", "odd sizes, tied", "part of the head turned", "phi2 split"],
)
def test_each_form_of_a_model_is_exact(tmp_path: Path, options: TinyPhi3 | TinyPhi2) -> None:
    write = tiny_phi2.write if isinstance(options, TinyPhi2) else tiny_gguf.write
    path = write(tmp_path / "tiny.gguf", options)  # type: ignore[arg-type] # the two belong together
    for found, expected in logits_of_both(path, random_ids(70), (1, 70)):
        np.testing.assert_allclose(found, expected, atol=EXACT)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mixture"), [("phi-3-mini-4k", "q4_k_m"), ("phi-4-mini", "q8_0"), ("phi-2", "q4_k_m")]
)
def test_layers_of_the_real_size_compute_what_the_cpu_does(tmp_path: Path, name: str, mixture: str) -> None:
    """Two of them: as wide as the model's, with its mixture of types, and a prompt of more than one chunk."""
    path = tmp_path / "synthetic.gguf"
    synthetic.write(path, name, mixture, layers=2)
    ids = random_ids(600, seed=7)
    logits = []
    for options in ({"device": cuda.DEVICE}, {"device": "cpu", "executor": "kernels"}):
        with Phi3Session(path, n_ctx=1024, **options) as session:  # type: ignore[arg-type] # they are options
            logits.append([np.asarray(session.logits(ids[:count])) for count in (600, 1, 9)])
    for found, expected in zip(*logits, strict=True):
        assert np.isfinite(found).all()
        error = square_error(found, expected)
        print(f"{name}: normalised square error {error:.1e}")
        assert error < ROUNDED


# --- windows, caches, the embedded model ---


def test_a_long_text_behind_a_window_is_exact(tmp_path: Path) -> None:
    """Long enough that the cache has let go of the beginning, more than once."""
    path = tiny_gguf.write(tmp_path / "tiny.gguf", TinyPhi3(sliding_window=24, context_length=2048))
    ids = random_ids(1200)
    scores = []
    for model in both(path):
        with Phi3Session(model=model, kv_dtype="f32", n_ctx=2048, prefill_chunk=64) as session:
            scores.append(np.array(session.score(ids)))
    np.testing.assert_allclose(scores[0], scores[1], atol=EXACT)


def test_a_cache_in_half_precision_is_close_to_an_exact_one(tmp_path: Path) -> None:
    """Of log-probabilities that spread over about ten, as on a CPU."""
    model = Phi3Model(tiny_gguf.write(tmp_path / "tiny.gguf", TinyPhi3(head_count_kv=2)), device=cuda.DEVICE)
    ids = random_ids(300)
    scores = {}
    for kv_dtype in ("f32", "f16"):
        with Phi3Session(model=model, kv_dtype=kv_dtype) as session:  # type: ignore[arg-type] # a type of the cache
            scores[kv_dtype] = np.array(session.score(ids))
    difference = np.abs(scores["f16"] - scores["f32"])
    print(f"largest difference {difference.max():.1e}, in the mean {difference.mean():.1e}")
    assert 0 < difference.max() < 0.02
    assert difference.mean() < 0.002


def test_greedy_tokens_of_the_demo_model_are_the_cpus() -> None:
    on_gpu, on_cpu = Phi3Model.demo(device=cuda.DEVICE), Phi3Model.demo(device="cpu", executor="candle")
    for prompt in PROMPTS:
        with Phi3Session(model=on_gpu) as session:
            ids = session.tokenize(prompt)
            found = session.generate(ids, GREEDY).tokens
        assert len(found) > 10
        behind = cuda.behind_the_likeliest(on_cpu, [*ids, *found], len(found))
        print(f"{prompt!r}: at most {behind:.2e} behind the CPU's likeliest")
        assert behind < cuda.UNDECIDED


def test_the_same_seed_draws_the_same_tokens_again() -> None:
    config = GenerationConfig(max_tokens=60, temperature=1.2, seed=5, ignore_eos=True)
    found = []
    for _ in range(3):
        with Phi3Session.demo(device=cuda.DEVICE) as session:
            found.append(session.generate(PROMPTS[0], config).tokens)
    assert found == [found[0]] * 3
