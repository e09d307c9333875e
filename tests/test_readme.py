"""The README says what is so: its code runs, its commands exist, its tables are complete."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from candle_phi import named_models
from candle_phi.cli import app

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
NEEDS_NETWORK = "# network"


def blocks(language: str, page: Path = README) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path = README) -> list[list[str]]:
    """Every call of `candle-phi` in a page's shell blocks, split as a shell does."""
    found = []
    for block in blocks("bash", page):
        block = re.sub(r"[ \t]+# .*$", "", block, flags=re.MULTILINE)  # noqa: PLW2901
        lexer = shlex.shlex(block, posix=True, punctuation_chars="|&;()<>\n")
        lexer.whitespace = " \t"
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, "\n"]:
            if set(word) <= set("|&;\n"):
                if words[:1] == ["candle-phi"]:
                    found.append(words[1:])
                words = []
            else:
                words.append(word)
    return found


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.splitlines()[-1][:30])
def test_every_python_block_runs(block, tmp_path):
    compile(block, str(README), "exec")
    if NEEDS_NETWORK in block:
        return
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()


def test_there_are_python_blocks_that_run_and_one_that_needs_the_network():
    needing = [NEEDS_NETWORK in block for block in blocks("python")]
    assert needing.count(True) == 1
    assert needing.count(False) >= 2


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_every_command_is_one_that_the_command_line_has(arguments):
    runner = CliRunner()
    if "--demo" in arguments:
        result = runner.invoke(app, arguments, input="Count to five\n")
        assert result.exit_code == 0, result.output
        assert result.stdout.strip()
        return
    # The others need the network or a file: their words are read, and then it is the model that is missing.
    command = arguments[:1] if "remove" not in arguments else arguments[:2]
    help_text = runner.invoke(app, [*command, "--help"]).output
    for option in (word for word in arguments if word.startswith("--")):
        assert option in help_text


def test_there_are_commands_of_every_kind():
    assert {arguments[0] for arguments in commands()} == {"generate", "info", "download", "models", "doctor"}


def test_every_make_verb_is_in_the_makefile():
    pages = [README, ROOT / "CONTRIBUTING.md", ROOT / "docs" / "platforms.md"]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    verbs = set(re.findall(r"^make ([a-z0-9-]+)|`make ([a-z0-9-]+)`", text, re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for verb in {first or second for first, second in verbs}:
        assert re.search(rf"^{verb}:.*## ", makefile, re.MULTILINE), verb


def test_the_table_of_models_is_what_the_package_knows():
    section = README.read_text(encoding="utf-8").split("## Models", 1)[1].split("\n## ", 1)[0]
    rows = [
        [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("| `")
    ]
    assert [row[:2] for row in rows] == [[model.name, model.repo] for model in named_models()]
    for row, model in zip(rows, named_models(), strict=True):
        assert row[2].split(", ") == list(model.files)


def test_every_link_to_a_file_leads_somewhere():
    for page in [README, ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
