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


def chat(typed: str, *arguments: str) -> str:
    program = ROOT / "examples" / "chat_loop.py"
    ran = subprocess.run(
        [sys.executable, "-W", "error", program, "--temperature", "0", *arguments],
        input=typed,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize("options", [[], ["--demo", "--system", "Be terse."]])
def test_the_chat_goes_on_until_the_input_ends(options):
    said = chat("My word is lantern.\nWhat was my word?\n", *options)
    assert said.endswith("> Your word is lantern.\n> \n")


def test_the_chat_takes_turns_back_and_says_them_again():
    said = chat("/back\nMy word is lantern.\nWhat was my word?\n/again\n/back\n/back\nWhat was my word?\n\n")
    assert "(nothing was said yet)" in said
    assert said.count("Your word is lantern.") == 2
    assert not said.endswith("Your word is lantern.\n> ")


def test_the_chat_says_what_does_not_fit():
    assert "and 512 are all" in chat("Say: " + "snow " * 600 + "\nhello\n\n")


@pytest.mark.parametrize("options", [[], ["--demo"]])
def test_conversations_side_by_side_under_asyncio(options):
    ran = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / "async_chats.py", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    answers = ran.stdout.splitlines()[:-1]
    assert sorted(answer[:3] for answer in answers) == ["ann", "ann", "bob", "bob", "cat", "cat"]
    # In each conversation the second turn goes on from the first.
    for name in ("ann", "bob", "cat"):
        first, second = [answer for answer in answers if answer.startswith(name)]
        assert "(0 tokens were there)" in first
        assert "(0 tokens were there)" not in second
