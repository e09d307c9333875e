"""The examples run, on the embedded model."""

import subprocess
import sys
from pathlib import Path

import pytest

import candle_phi

ROOT = Path(__file__).parent.parent
HAIKU = ROOT / "examples" / "ice_hockey_haiku.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", HAIKU, *arguments], capture_output=True, text=True, check=False
    )


def test_the_haiku_of_the_tutorial_on_the_embedded_model():
    ran = run("--demo")
    assert ran.returncode == 0, ran.stderr
    haiku, _, figures = ran.stdout.partition("\n\n")
    assert haiku.strip()
    assert "tokens/s, seed " in figures


def test_the_haiku_of_the_tutorial_from_a_file():
    demo = Path(candle_phi.__file__).parent / "demo" / "candle-phi-demo.gguf"
    ran = run("--model", str(demo))
    assert ran.returncode == 0, ran.stderr
    assert "tokens/s, seed " in ran.stdout


def test_a_file_that_is_missing_is_named():
    ran = run("--model", "missing.gguf")
    assert ran.returncode == 1
    assert "ModelNotFoundError" in ran.stderr
    assert "missing.gguf" in ran.stderr


@pytest.mark.parametrize(
    "words",
    [
        "<|user|>\\nWrite a haiku about ice hockey<|end|>\\n<|assistant|>",
        "microsoft/Phi-3-mini-4k-instruct-gguf",
        "Phi-3-mini-4k-instruct-q4.gguf",
        '"main"',
        "GenerationConfig.tutorial()",
    ],
)
def test_the_parameters_are_the_tutorials(words):
    assert words in HAIKU.read_text(encoding="utf-8")


def test_the_settings_are_the_tutorials():
    config = candle_phi.GenerationConfig.tutorial()
    assert (config.max_tokens, config.temperature) == (100, 1.0)
    assert (config.repetition_penalty, config.repeat_last_n) == (1.2, 64)
    assert (config.top_k, config.top_p, config.min_p, config.seed) == (None, None, None, None)
