"""Every code block of the README, the contributor's page and the guides is run, or held against what there is.

A block of Python runs on the embedded model, and a block of shell commands as it stands, if it calls nothing but
`candle-phi`. What needs the network or a GPU says so in its first line, and is checked for types, or read by the
command line. Any other block fails here.
"""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import candle_phi
import doc_shell
from doc_pages import NEEDS, PEERS, ROOT, Block, all_blocks, matches, pages
from tiny_gguf import TinyPhi3, write

if not (ROOT / "docs").exists():
    pytest.skip("docs/ is not beside the tests", allow_module_level=True)

pytestmark = pytest.mark.thread_unsafe(reason="a block has a folder of its own, and two would run in it")

LANGUAGES = {"python", "bash", "text", "toml", "json", "rust", "c", "mermaid"}
PYTHON = all_blocks("python")
SHELL = all_blocks("bash")


def name(block: Block) -> str:
    return block.name


@pytest.fixture(scope="module")
def phi_3_5_mini(tmp_path_factory):
    """A model with the two sets of factors of Phi-3.5-mini, and its contexts; otherwise tiny."""
    options = TinyPhi3(
        context_length=131_072,
        original_context_length=4096,
        rope_factors_short=(1.0,) * 8,
        rope_factors_long=(1.0, 1.5, 2.0, 4.0, 8.0, 16.0, 24.0, 32.0),
    )
    return write(tmp_path_factory.mktemp("models") / "phi-3.5-mini.gguf", options)


@pytest.fixture
def folder(tmp_path, phi_3_5_mini):
    """Where a reader of the guides is: the models that they name are there."""
    demo = Path(candle_phi.__file__).parent / "demo" / "candle-phi-demo.gguf"
    shutil.copy(demo, tmp_path / "model.gguf")
    shutil.copy(phi_3_5_mini, tmp_path)
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    """No hub, an empty cache, and the command `candle-phi` of this package."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / "candle-phi").write_text(f'#!/bin/sh\nexec "{sys.executable}" -W error -m candle_phi "$@"\n')
    (programs / "candle-phi").chmod(0o755)
    return {
        **os.environ,
        "HF_HOME": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONUTF8": "1",
    }


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def shows_what_it_prints(block: Block, ran: subprocess.CompletedProcess[str]) -> None:
    assert ran.returncode == 0, ran.stderr
    if block.output is not None:
        assert matches(block.output, ran.stdout), f"the page shows\n{block.output}\nand it prints\n{ran.stdout}"


@pytest.mark.parametrize("block", [block for block in PYTHON if block.mark is None], ids=name)
def test_python_runs(block, folder):
    (folder / "program.py").write_text(block.code, encoding="utf-8")
    shows_what_it_prints(block, run([sys.executable, "-W", "error", "program.py"], folder))


@pytest.mark.skipif(os.name == "nt" or shutil.which("bash") is None, reason="the blocks are for a Unix shell")
@pytest.mark.parametrize("block", [block for block in SHELL if doc_shell.runs_here(block)], ids=name)
def test_commands_run(block, folder):
    shows_what_it_prints(block, run(["bash", "-euo", "pipefail", "-c", block.code], folder))


@pytest.mark.parametrize("block", [block for block in SHELL if not doc_shell.runs_here(block)], ids=name)
def test_commands_that_do_not_run_here_are_there(block):
    assert block.mark in {None, *NEEDS}
    assert doc_shell.commands(block)
    for words in doc_shell.commands(block):
        doc_shell.check(words)


def test_python_has_the_types_of_the_package(tmp_path):
    """Those that need the network or a GPU too; those that are for other packages have only to be Python."""
    pytest.importorskip("mypy")
    programs = {}
    for block in PYTHON:
        if block.mark in PEERS:
            compile(block.code, block.name, "exec")
            continue
        program = tmp_path / f"block_{len(programs)}.py"
        program.write_text(block.code, encoding="utf-8")
        programs[program.name] = block.name
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), *programs],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT / "python"), "MYPY_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    places = [line for line in ran.stdout.splitlines() if line.startswith("block_")]
    named = [f"{programs[line.partition(':')[0]]} in line {line.partition(':')[2]}" for line in places]
    assert ran.returncode == 0, "\n".join(named) or ran.stdout + ran.stderr


@pytest.mark.parametrize("block", all_blocks("rust", "c"), ids=name)
def test_rust_and_c_are_part_of_an_example(block):
    """Which are compiled with the tests, and run by them."""
    flat = " ".join(block.code.split())
    suffix = {"rust": "rs", "c": "c"}[block.language]
    examples = (ROOT / "rust").glob(f"*/examples/*.{suffix}")
    assert any(flat in " ".join(example.read_text(encoding="utf-8").split()) for example in examples)


@pytest.mark.parametrize("block", all_blocks("toml", "json"), ids=name)
def test_data_can_be_read(block):
    {"toml": tomllib.loads, "json": json.loads}[block.language](block.code)


@pytest.mark.parametrize("block", all_blocks(), ids=name)
def test_a_block_is_of_a_kind_that_is_held_to_something(block):
    assert block.language in LANGUAGES
    # What a program prints stands behind the program.
    assert block.language != "text", "nothing before it prints this"
    assert block.mark in {None, *NEEDS} or block.language == "python"


WIDTH = 88
"""Columns of a code box of the site in a window of 1280 pixels."""


def is_on_the_site(block: Block) -> bool:
    """All but diagrams, and the long commands for those who repeat a measurement."""
    on_site = block.page.is_relative_to(ROOT / "docs") and block.page.name != "performance.md"
    return on_site and block.language != "mermaid"


@pytest.mark.parametrize("block", list(filter(is_on_the_site, all_blocks())), ids=name)
def test_code_is_not_cut_off_on_the_site(block):
    lines = (block.code + (block.output or "")).splitlines()
    assert [line for line in lines if len(line) > WIDTH] == []


def test_no_block_is_missed():
    """By counting fences in another way."""
    for page in pages():
        fences = [line for line in page.read_text(encoding="utf-8").splitlines() if line.strip().startswith("```")]
        shown = [block for block in all_blocks() if block.page == page]
        assert len(fences) == 2 * (len(shown) + sum(block.output is not None for block in shown)), page


def test_there_are_blocks_of_every_kind():
    assert sum(block.mark is None for block in PYTHON) > 40
    assert {block.mark for block in PYTHON} == {None, *NEEDS, *PEERS}
    assert sum(map(doc_shell.runs_here, SHELL)) > 8
    assert any(block.output for block in PYTHON)
    assert any(block.output for block in SHELL)


def test_what_a_program_prints_is_compared():
    assert matches("a ... c\n...", "a b c\nd\n")
    assert not matches("a ... c", "a b d")
    assert not matches("stop 1", "stop 12")
