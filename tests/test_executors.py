"""The package's kernels against Candle, and against themselves: by level, by number of threads, by piece."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import random_models
import tiny_gguf
import tiny_llama
import tiny_phi2
from candle_phi import GenerationConfig, InvalidOptionError, Phi3Model, Phi3Session
from candle_phi.types import Isa
from messages import mentions
from quantized_models import DRAWN, WRITTEN, write_quantized
from random_models import Draw
from tiny_gguf import TinyPhi3, random_ids
from tiny_phi2 import TinyPhi2

GREEDY = GenerationConfig.greedy(max_tokens=64, ignore_eos=True)
PROMPTS = [
    "<|user|>\nWrite a haiku about ice hockey<|end|>\n<|assistant|>\n",
    "<|user|>\nCount from 3 to 17<|end|>\n<|assistant|>\n",
    "<|user|>\nRemember the word lantern.<|end|>\n<|assistant|>\nI will.<|end|>\n<|user|>\nWhat was it?<|end|>\n",
    "The night is cold",
]
EXACT = 1e-4
"""Between logits in F32, which spread over about ±6, added up in another order. Measured: 5e-5."""


def levels() -> list[Isa]:
    """Those that this machine has, lowest first."""
    found = []
    for isa in get_args(Isa):
        try:
            Phi3Session.demo(isa=isa).close()
        except InvalidOptionError:
            continue
        found.append(isa)
    return found


LEVELS = levels()


@pytest.fixture(scope="module")
def models() -> dict[str, Phi3Model]:
    return {executor: Phi3Model.demo(executor=executor) for executor in ("kernels", "candle")}


def every_logits(path: Path | Phi3Model, ids: list[int], **options: Any) -> np.ndarray:
    """The logits behind each of the tokens, which are computed one by one."""
    opened = {"model": path} if isinstance(path, Phi3Model) else {"path": path}
    with Phi3Session(**opened, n_ctx=max(len(ids), 16), **options) as session:
        return np.array([session.logits(ids[: count + 1]) for count in range(len(ids))])


def largest_difference(found: object, expected: object) -> float:
    return float(np.abs(np.asarray(found) - np.asarray(expected)).max())


def square_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Mean square of the difference, in parts of that of what is expected."""
    return float(((found - expected) ** 2).mean() / (expected**2).mean())


# --- the demo model ---


def test_auto_is_the_kernels_on_a_cpu() -> None:
    model = Phi3Model.demo(device="cpu")
    assert model.executor == "kernels"
    assert Phi3Model.demo(device="cpu", executor="candle").executor == "candle"


def test_greedy_tokens_of_the_demo_model_are_candles(models: dict[str, Phi3Model]) -> None:
    for prompt in PROMPTS:
        tokens = {}
        for executor, model in models.items():
            with Phi3Session(model=model) as session:
                tokens[executor] = session.generate(prompt, GREEDY).tokens
        assert len(tokens["kernels"]) == 64
        assert tokens["kernels"] == tokens["candle"]


def answers(model: Phi3Model, corpus: Any) -> Iterator[tuple[list[int], int]]:
    """The held-out dialogues as tokens, each with where its answer begins."""
    for dialogue in corpus.held_out_dialogues():
        messages = [{"role": message.role, "content": message.content} for message in dialogue.messages]
        ids = model.render_chat_tokens(messages, add_generation_prompt=False)
        asked = model.render_chat_tokens(messages[:1])
        assert ids[: len(asked)] == asked
        yield ids, len(asked)


def perplexity(session: Phi3Session, texts: list[tuple[list[int], int]]) -> float:
    scores = [score for ids, begin in texts for score in session.score(ids)[begin - 1 :]]
    return math.exp(-sum(scores) / len(scores))


def test_the_perplexity_on_held_out_text_is_candles_to_half_a_percent(
    models: dict[str, Phi3Model], corpus: Any
) -> None:
    """Measured: 2.2611 and 2.2610. The answers only: what a user says is not what it was trained to say."""
    texts = list(answers(models["kernels"], corpus))
    with Phi3Session(model=models["candle"]) as session:
        expected = perplexity(session, texts)
    assert 1 < expected < 3
    options: list[dict[str, Any]] = [{"isa": isa} for isa in LEVELS]
    for chosen in [*options, {"kv_dtype": "f32"}, {"kv_dtype": "q8_0"}]:
        with Phi3Session(model=models["kernels"], **chosen) as session:
            found = perplexity(session, texts)
        print(f"perplexity: candle {expected:.5f}, kernels with {chosen} {found:.5f}")
        assert abs(found / expected - 1) < 0.005


# --- random models ---


@pytest.mark.parametrize("architecture", ["phi3", "phi2", "llama"])
def test_logits_of_random_models_are_candles(tmp_path: Path, architecture: str) -> None:
    """Heads in groups, split projections, biases, windows and LongRoPE, as they are drawn."""
    for seed in range(8):
        draw = Draw(seed)
        path = random_models.write(tmp_path / f"{seed}.gguf", draw, architecture)
        ids = [1, *draw.tokens(120)]
        options: dict[str, Any] = {"kv_dtype": "f32"}
        expected = every_logits(path, ids, executor="candle", **options)
        worst = largest_difference(every_logits(path, ids, executor="kernels", **options), expected)
        with Phi3Session(path, executor="kernels", n_ctx=200, **options) as session:
            worst = max(worst, largest_difference(session.logits(ids), expected[-1]))
        print(f"{architecture}, seed {seed}: largest difference {worst:.1e}")
        assert worst < EXACT


FEATURES = {
    "fused": TinyPhi3(),
    "split": TinyPhi3(split_qkv=True),
    "grouped": TinyPhi3(head_count=6, head_count_kv=2),
    "one key head": TinyPhi3(head_count_kv=1, split_qkv=True),
    "odd sizes": TinyPhi3(head_count=3, head_count_kv=3, head_dim=20, feed_forward_length=33, tied_output=True),
    "window": TinyPhi3(sliding_window=40),
    "window of one": TinyPhi3(sliding_window=1),
    "part of the head turned": TinyPhi3(rope_dimension_count=6),
    "LongRoPE": TinyPhi3(
        rope_factors_short=(1.0, 1.05, 1.1, 1.2, 1.4, 1.7, 2.0, 2.5),
        rope_factors_long=(1.0, 1.5, 2.0, 4.0, 8.0, 16.0, 24.0, 32.0),
        original_context_length=100,
        attn_factor=1.19,
    ),
    "llama": replace(TinyPhi3(), architecture="llama", head_count_kv=2),
    "phi2": TinyPhi2(),
    "phi2 split": TinyPhi2(split_qkv=True),
}


def write(path: Path, options: TinyPhi3 | TinyPhi2) -> Path:
    if isinstance(options, TinyPhi2):
        return tiny_phi2.write(path, options)
    if options.architecture == "llama":
        return tiny_llama.write(path, replace(options, architecture="phi3"))
    return tiny_gguf.write(path, options)


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("tensor_type", ["F32", "F16", "BF16"])
def test_logits_of_each_feature_are_candles(tmp_path: Path, feature: str, tensor_type: str) -> None:
    """Across the boundary of LongRoPE, and behind a window."""
    path = write(tmp_path / "tiny.gguf", replace(FEATURES[feature], tensor_type=tensor_type))
    ids = random_ids(130)
    expected = every_logits(path, ids, executor="candle", kv_dtype="f32")
    worst = largest_difference(every_logits(path, ids, executor="kernels", kv_dtype="f32"), expected)
    print(f"{feature} in {tensor_type}: largest difference {worst:.1e}")
    assert worst < EXACT


@pytest.mark.parametrize("split", [False, True], ids=["fused", "split"])
@pytest.mark.parametrize("kind", [*WRITTEN, *DRAWN])
def test_logits_in_each_tensor_type_are_candles(tmp_path: Path, kind: str, split: bool) -> None:
    """Both round activations to eight bits: the kernels by blocks of 256, Candle by those of the weights.

    Measured, with blocks of 32: 1e-4 to 3e-3; with the same blocks at most 4e-4, and 1e-13 where no activation was
    on the edge. A wrong scale or a wrong order of the quants is off by 1e-1 and more.
    """
    tolerance = 1e-3 if kind in DRAWN else 1e-2
    small = TinyPhi3(head_count=4, head_count_kv=2, head_dim=64, feed_forward_length=512, split_qkv=split)
    path = write_quantized(tmp_path / "tiny.gguf", kind, small)
    ids = random_ids(60)
    expected = every_logits(path, ids, executor="candle", kv_dtype="f32")
    assert expected.std() > 1, "the model says nothing"
    for isa in LEVELS:
        one_by_one = every_logits(path, ids, kv_dtype="f32", isa=isa)
        with Phi3Session(path, kv_dtype="f32", isa=isa) as session:
            at_once = session.logits(ids)
        errors = square_error(one_by_one, expected), square_error(at_once, expected[-1])
        print(f"{kind}, {isa}: normalised square error {errors[0]:.1e}, of the last at once {errors[1]:.1e}")
        assert max(errors) < tolerance


# --- levels of the instruction set ---


def test_there_are_levels() -> None:
    assert "scalar" in LEVELS
    with Phi3Session.demo() as session:
        assert session.isa == LEVELS[-1]


@pytest.mark.parametrize("isa", LEVELS)
def test_each_level_says_the_same(models: dict[str, Phi3Model], isa: Isa) -> None:
    for prompt in PROMPTS:
        with (
            Phi3Session(model=models["kernels"]) as best,
            Phi3Session(model=models["kernels"], isa=isa) as session,
        ):
            assert session.isa == isa
            assert session.generate(prompt, GREEDY).tokens == best.generate(prompt, GREEDY).tokens


@pytest.mark.parametrize("isa", ["neon", "avx2", "sse2", "AVX2", ""])
def test_a_level_that_is_not_there_is_refused_with_those_that_are(isa: str) -> None:
    if isa in LEVELS:
        pytest.skip("this machine has it")
    with pytest.raises(InvalidOptionError) as caught:
        Phi3Session.demo(isa=isa)  # type: ignore[arg-type] # what a user may write
    assert caught.value.option == "isa"
    mentions(caught.value, isa, *LEVELS)


SAY_LEVEL = """
import sys
from candle_phi import InvalidOptionError, Phi3Session
options = eval(sys.argv[1])
try:
    with Phi3Session.demo(**options) as session:
        session.generate("hello", max_tokens=2)
        print(session.isa)
except InvalidOptionError as error:
    print(error)
"""


def said_level(variable: str | None, **options: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "CANDLE_PHI_ISA"}
    if variable is not None:
        environment["CANDLE_PHI_ISA"] = variable
    run = [sys.executable, "-c", SAY_LEVEL, repr(options)]
    return subprocess.run(run, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def test_the_environment_chooses_the_level_where_nobody_else_does() -> None:
    assert said_level(None) == said_level("") == LEVELS[-1]
    for isa in LEVELS:
        assert said_level(isa) == isa
    assert said_level("scalar", isa=LEVELS[-1]) == LEVELS[-1]
    assert said_level("scalar", executor="candle") in LEVELS
    refused = said_level("mmx")
    assert all(value in refused for value in ("CANDLE_PHI_ISA", "scalar", '"mmx"'))


# --- threads ---

DEEP = TinyPhi3(context_length=2048, head_count=6, head_count_kv=2, head_dim=32, feed_forward_length=192)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Phi3Model]:
    """With a context in which decode is cut into several runs of pages."""
    folder = tmp_path_factory.mktemp("deep")
    large = TinyPhi3(context_length=2048, head_count=4, head_count_kv=2, head_dim=64, feed_forward_length=512)
    return {
        "F32": Phi3Model(tiny_gguf.write(folder / "f32.gguf", DEEP)),
        "Q8_0": Phi3Model(tiny_gguf.write(folder / "q8_0.gguf", replace(DEEP, tensor_type="Q8_0"))),
        "Q4_K": Phi3Model(write_quantized(folder / "q4_k.gguf", "Q4_K", large)),
        "window": Phi3Model(tiny_gguf.write(folder / "window.gguf", replace(DEEP, sliding_window=700))),
    }


@pytest.mark.parametrize("kind", ["F32", "Q8_0", "Q4_K", "window"])
@pytest.mark.parametrize("kv_dtype", ["f16", "f32", "q8_0"])
def test_logits_are_the_same_bits_for_any_number_of_threads(
    deep: dict[str, Phi3Model], kind: str, kv_dtype: Any
) -> None:
    """For a prompt of many parts, for one token and for a few behind more than 1,100, and for scores."""
    ids = random_ids(1150)
    steps = [ids[:1], ids[:2], ids[:140], ids[:1120], ids[:1121], ids[:1122], ids[:1127], ids]

    def computed(n_threads: int, isa: Isa) -> list[bytes]:
        with Phi3Session(model=deep[kind], n_threads=n_threads, isa=isa, kv_dtype=kv_dtype) as session:
            logits = [np.asarray(session.logits(step)).tobytes() for step in steps]
            return [*logits, np.array(session.score(ids[:300])).tobytes()]

    for isa in LEVELS:
        expected = computed(1, isa)
        # More than once: which thread comes first must not matter.
        for n_threads in (2, 3, 5, 3, 2) if isa == LEVELS[-1] else (3,):
            assert computed(n_threads, isa) == expected, f"{n_threads} threads, {isa}"


def test_what_is_drawn_is_the_same_for_any_number_of_threads(models: dict[str, Phi3Model]) -> None:
    found = []
    for n_threads in (1, 2, 3, 5):
        with Phi3Session(model=models["kernels"], n_threads=n_threads) as session:
            config = GenerationConfig(max_tokens=80, temperature=1.3, seed=11, ignore_eos=True)
            found.append(session.generate(PROMPTS[0], config).tokens)
    assert found == [found[0]] * 4


def test_sessions_at_once_get_what_they_get_alone(
    models: dict[str, Phi3Model], deep: dict[str, Phi3Model]
) -> None:
    ids = random_ids(600)

    def work(number: int) -> list[object]:
        n_threads = number % 3 + 1
        with (
            Phi3Session(model=models["kernels"], n_threads=n_threads) as demo,
            Phi3Session(model=deep["Q4_K"], n_threads=n_threads) as other,
        ):
            answer = demo.generate(PROMPTS[number % len(PROMPTS)], GREEDY).tokens
            other.logits(ids[: 300 + number])
            return [answer, np.asarray(other.logits(ids)).tobytes()]

    expected = [work(number) for number in range(4)]
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(work, list(range(4)) * 3)) == expected * 3
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(work, range(4))) == expected


# --- pieces ---


@pytest.mark.parametrize(("kind", "tolerance"), [("F32", EXACT), ("window", EXACT), ("Q8_0", 0.1), ("Q4_K", 0.1)])
def test_a_prompt_is_the_same_in_one_piece_and_in_several(
    deep: dict[str, Phi3Model], kind: str, tolerance: float
) -> None:
    """One or two rows are added up in another order than more.

    With quantized weights an activation on the edge may round to the other of two numbers for that; so the
    tolerance is that of a rounding, of logits that spread over ±6. Measured: 3e-6, where none was on the edge.
    """
    ids = random_ids(1200)
    found = {}
    for prefill_chunk in (None, 1200, 500, 129, 31, 3, 1):
        with Phi3Session(model=deep[kind], kv_dtype="f32", prefill_chunk=prefill_chunk) as session:
            found[prefill_chunk] = np.asarray(session.logits(ids))
    worst = {chunk: largest_difference(logits, found[1200]) for chunk, logits in found.items()}
    print(f"{kind}: " + ", ".join(f"{chunk} at once {difference:.1e}" for chunk, difference in worst.items()))
    assert max(worst.values()) < tolerance


# --- a cache of eight bits ---


@pytest.mark.parametrize("head_dim", [32, 64, 96])
def test_a_cache_of_eight_bits_is_close(tmp_path: Path, head_dim: int) -> None:
    """Of log-probabilities that spread over about ten. Measured: at most 0.08, where f16 has 0.003."""
    path = tiny_gguf.write(tmp_path / "tiny.gguf", TinyPhi3(head_dim=head_dim, head_count_kv=2))
    ids = random_ids(200)
    scores: dict[Any, np.ndarray] = {}
    for kv_dtype in ("f32", "f16", "q8_0"):
        for isa in LEVELS:
            with Phi3Session(path, kv_dtype=kv_dtype, isa=isa) as session:
                scores[kv_dtype, isa] = np.array(session.score(ids))
    exact = scores["f32", LEVELS[-1]]
    for (kv_dtype, isa), found in scores.items():
        difference = largest_difference(found, exact)
        print(f"heads of {head_dim}, {kv_dtype}, {isa}: largest difference {difference:.1e}")
        assert difference < {"f32": EXACT, "f16": 0.02, "q8_0": 0.2}[kv_dtype]
        assert np.abs(found - exact).mean() < {"f32": EXACT, "f16": 0.002, "q8_0": 0.02}[kv_dtype]


def test_a_cache_of_eight_bits_answers_as_one_of_sixteen(models: dict[str, Phi3Model]) -> None:
    for prompt in PROMPTS[:3]:
        with (
            Phi3Session(model=models["kernels"], kv_dtype="q8_0") as small,
            Phi3Session(model=models["kernels"]) as usual,
        ):
            assert small.generate(prompt, temperature=0).text == usual.generate(prompt, temperature=0).text


def test_a_cache_of_eight_bits_needs_heads_of_whole_blocks_and_the_kernels(tmp_path: Path) -> None:
    odd = Phi3Model(tiny_gguf.write(tmp_path / "tiny.gguf", TinyPhi3(head_dim=20)))
    with pytest.raises(InvalidOptionError) as caught:
        Phi3Session(model=odd, kv_dtype="q8_0")
    assert caught.value.option == "kv_dtype"
    mentions(caught.value, 20, 32, "q8_0")
    with pytest.raises(InvalidOptionError) as caught:
        Phi3Session.demo(executor="candle", kv_dtype="q8_0")
    assert caught.value.option == "kv_dtype"
    mentions(caught.value, "candle", "q8_0")
