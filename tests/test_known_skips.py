"""A complete run fails on a skip that is not in the list."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.parametrize(
    ("reason", "workers", "status"),
    [("there is no fish here", "1", 1), ("this machine has it", "0", 0)],
)
def test_a_skip(tmp_path, reason, workers, status):
    (tmp_path / "conftest.py").write_text((TESTS / "conftest.py").read_text("utf-8"), encoding="utf-8")
    (tmp_path / "test_it.py").write_text(
        f"import pytest\ndef test_it(): pytest.skip({reason!r})\ndef test_passes(): pass\n", encoding="utf-8"
    )
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-n",
            workers,
            "--rootdir",
            tmp_path,
            "-c",
            os.devnull,
            "--known-skips-only",
            tmp_path,
        ],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == status, ran.stdout + ran.stderr
