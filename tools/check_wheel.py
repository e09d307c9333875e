"""Installs the wheel of dist/ as a stranger would, and lets it show that it works.

    python tools/check_wheel.py [--tests] [--every-python] [WHEEL]

In an environment of its own, outside the checkout, and with nothing on the PATH but that environment: no compiler
and no Rust. There the package answers with the embedded model, on both executors, and `candle-phi doctor` finds
nothing wrong; with --tests the whole suite runs, too. Needs Python alone, so that it runs on every system.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST = (3, 11)
# What the tests read beside the package: pages that they hold against it, programs that they run.
BESIDE = (".cargo", ".ci", ".github", "benchmarks", "docs", "examples", "rust", "tests", "tools")
SMOKE = """
import sys
from pathlib import Path
import candle_phi
from candle_phi import Phi3Session

assert Path(candle_phi.__file__).is_relative_to(sys.prefix), candle_phi.__file__
said = set()
for executor in ("kernels", "candle"):
    with Phi3Session.demo(executor=executor) as session:
        answer = session.chat("Write a haiku about ice hockey", temperature=0.0, max_tokens=40)
        said.add(answer.text)
        print(f"{executor} ({session.isa}): {answer.text!r}")
assert len(said) == 1
"""


def main() -> int:
    """Checks the wheel on the interpreters asked for.

    Returns:
        The exit code: 0 if all was well everywhere.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", nargs="?", type=Path, help="by default, the one in dist/ that fits")
    parser.add_argument("--tests", action="store_true", help="run the test suite, too")
    parser.add_argument("--every-python", action="store_true", help="on each CPython of this machine from 3.11 on")
    options = parser.parse_args()

    pythons = every_python() if options.every_python else [Path(sys.executable)]
    failed = []
    for python in pythons:
        started = time.monotonic()
        print(f"--- {python}", flush=True)
        try:
            check(python, options.wheel, tests=options.tests)
        except subprocess.CalledProcessError as error:
            failed.append(python)
            print(f"error: {error}", file=sys.stderr, flush=True)
        print(f"--- {python}: {time.monotonic() - started:.0f} s", flush=True)
    for python in failed:
        print(f"failed on {python}", file=sys.stderr)
    return 1 if failed else 0


def check(python: Path, wheel: Path | None, *, tests: bool) -> None:
    """Installs the wheel for one interpreter and runs it.

    Args:
        python: The interpreter.
        wheel: The file, or None for that of dist/ which pip finds fit.
        tests: Whether to run the tests.
    """
    with tempfile.TemporaryDirectory(prefix="candle-phi-") as folder:
        scratch = Path(folder).resolve()
        subprocess.run([python, "-m", "venv", scratch / "venv"], check=True)
        bin_folder = scratch / "venv" / ("Scripts" if os.name == "nt" else "bin")
        python = bin_folder / ("python.exe" if os.name == "nt" else "python")
        environment = os.environ | {"PATH": str(bin_folder)}
        environment.pop("PYTHONPATH", None)

        def run(*command: object, cwd: Path = scratch) -> None:
            subprocess.run([str(word) for word in command], cwd=cwd, env=environment, check=True)

        pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        if wheel is None:
            # From dist/ and from nowhere else; what it depends on comes from the index.
            here = ("--no-index", "--only-binary", ":all:", "--find-links", ROOT / "dist")
            run(*pip, "--no-deps", *here, "candle-phi")
            run(*pip, "candle-phi")
        else:
            run(*pip, wheel.resolve())
        run(python, "-I", "-c", SMOKE)
        run(bin_folder / "candle-phi", "doctor")
        if tests:
            project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
            run(*pip, *project["dependency-groups"]["test"])
            run(python, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", cwd=suite(scratch / "suite"))


def suite(folder: Path) -> Path:
    """Lays out the tests and what they read, without the package's own sources: it is the wheel that answers."""
    left_out = shutil.ignore_patterns("__pycache__", "target", "*.so", "*.pyd")
    for name in BESIDE:
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, folder / name, ignore=left_out)
    for file in ROOT.iterdir():
        if file.is_file() and not file.name.startswith(".git"):
            shutil.copy(file, folder)
    return folder


def every_python() -> list[Path]:
    """One CPython of each version from 3.11 on: those on the PATH, and pyenv's."""
    places = [Path(place) for place in os.get_exec_path()]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    places += sorted(pyenv.glob("*/bin"))
    found: dict[str, Path] = {}
    for place in places:
        for python in sorted(place.glob("python3.[0-9]*")):
            # pyenv's shims are scripts that may start another version, or none.
            if python.suffix[1:].rstrip("t").isdigit() and python.parent.name != "shims":
                version = version_of(python)
                if version is not None and version >= OLDEST:
                    found.setdefault(python.name, python)
    if not found:
        raise SystemExit("error: no CPython from 3.11 on, neither on the PATH nor in ~/.pyenv/versions")
    return [found[name] for name in sorted(found)]


def version_of(python: Path) -> tuple[int, ...] | None:
    """The version of an interpreter that is CPython and starts, or None."""
    program = "import platform, sys; print(platform.python_implementation(), *sys.version_info[:2])"
    ran = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
    name, _, version = ran.stdout.strip().partition(" ")
    return tuple(map(int, version.split())) if ran.returncode == 0 and name == "CPython" else None


if __name__ == "__main__":
    sys.exit(main())
