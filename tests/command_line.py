"""The command line as tests call it, in this process or in one of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner, Result

import candle_phi
from candle_phi.cli import app

DEMO = Path(candle_phi.__file__).parent / "demo" / "candle-phi-demo.gguf"
PROMPT = "Write a haiku about ice hockey"
COMMAND = [sys.executable, "-W", "error", "-m", "candle_phi.cli"]
ESCAPE = "\x1b["


def invoke(*arguments: object, stdin: str | bytes | None = None, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(app, [str(argument) for argument in arguments], input=stdin)


def succeed(*arguments: object, stdin: str | bytes | None = None, **environment: str) -> Result:
    result = invoke(*arguments, stdin=stdin, **environment)
    assert result.exit_code == 0, result.output
    return result


def fail(exit_code: int, *arguments: object, stdin: str | bytes | None = None) -> str:
    """The error line of a command that must fail."""
    result = invoke(*arguments, stdin=stdin)
    assert result.exit_code == exit_code, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def flags_in(line: str) -> list[str]:
    """The options that an error line names, in their order, but for the --help that it points to."""
    return [flag for flag in re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", line) if flag != "--help"]


def run(*arguments: object, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        env=os.environ | environment,
        check=False,
    )


def cached(cache: Path, repo: str, file: str) -> Path:
    """Puts a file of a repository into a hub cache, as the newest of its branch."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    path = folder / "snapshots" / ("1" * 40) / file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"GGUF" * 500)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("1" * 40)
    return path
