"""Commands of `benchmarks/` on the pages, read by the programs' own parsers."""

import contextlib
import importlib.util
import io
import shlex
import sys
from argparse import Namespace
from functools import cache
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock, patch

from doc_pages import ROOT

FOLDER = ROOT / "benchmarks"
# What some programs measure or draw with, and what is not installed where the tests run.
_OTHER_ENGINES = ("llama_cpp", "matplotlib", "mistralrs", "onnx", "onnxruntime", "openvino")


def is_program(path: str) -> bool:
    """Whether a path of a command is a program of this folder."""
    return (ROOT / path).parent == FOLDER


def check(path: str, arguments: list[str]) -> None:
    """Let a program read its arguments, and nothing else.

    Raises:
        AssertionError: The program does not exist, or does not accept them.
    """
    assert (ROOT / path).is_file(), f"no program {path}"
    name = Path(path).stem
    reader = _program("worker" if name.startswith("peer_") else name)
    given = _read(reader, path, arguments)
    if name == "compare":
        for engine in given.engines:
            _check_engine(reader, engine)


def _read(reader: ModuleType, path: str, arguments: list[str]) -> Namespace:
    """What a program's parser makes of its arguments."""
    complaint = io.StringIO()
    with contextlib.redirect_stderr(complaint), contextlib.suppress(SystemExit):
        return reader.arguments(arguments)
    raise AssertionError(f"{path} does not accept its arguments: {complaint.getvalue()}")


def _check_engine(compare: ModuleType, text: str) -> None:
    """The command of an engine, with what `compare.py` adds to it."""
    program, *words = compare.Engine.of(text, Path("model.gguf"), ["--threads", "2", "--depths", "0"]).command
    if Path(program).name == "python":
        assert is_program(words[0]), f"{words[0]} is not a worker"
        check(words[0], words[1:])
        return
    assert (ROOT / "rust/engine/examples" / f"{Path(program).name}.rs").is_file(), f"no worker {program}"


@cache
def _program(name: str) -> ModuleType:
    """A program as a module. Other engines are replaced: only the arguments are read."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    missing = [engine for engine in _OTHER_ENGINES if importlib.util.find_spec(engine) is None]
    # The path only while it is imported, as the names in this folder are common words; its own name because data
    # classes look their module up.
    stand_ins = {engine: MagicMock() for engine in missing} | {spec.name: module}
    with patch.object(sys, "path", [str(FOLDER), *sys.path]), patch.dict(sys.modules, stand_ins):
        spec.loader.exec_module(module)
    return module


def documented_in_programs() -> list[tuple[str, list[str]]]:
    """The commands in the programs' own descriptions: the program that has it, and its words."""
    found = []
    for program in sorted(FOLDER.glob("*.py")):
        text = program.read_text(encoding="utf-8").replace("\\\\\n", " ").replace("\\\n", " ")
        for line in text.splitlines():
            if line.startswith("    python benchmarks/"):
                words = shlex.split(line, comments=True)
                found.append((program.name, words[1:]))
    return found
