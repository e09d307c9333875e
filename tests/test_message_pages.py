"""Messages name documentation pages by addresses that exist, as a wheel does not contain the pages."""

import re
import tomllib
from pathlib import Path

import pytest

import candle_phi
from candle_phi import _pages

ROOT = Path(__file__).parent.parent
PACKAGE = Path(candle_phi.__file__).parent
SOURCES = [*PACKAGE.rglob("*.py"), *ROOT.glob("rust/*/src/**/*.rs")]

if not (ROOT / "docs").exists():
    pytest.skip("docs/ is not beside the tests", allow_module_level=True)


def test_the_base_is_that_of_the_projects_metadata():
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    assert urls["Documentation"] == _pages.page("index.md")


def test_each_named_page_exists():
    named = [
        name for path in SOURCES for name in re.findall(r"""\bpage\(["'](.*?)["']\)""", path.read_text("utf-8"))
    ]
    assert len(named) >= 5
    assert [name for name in named if not (ROOT / "docs" / name).is_file()] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_message_names_a_page_by_its_path_in_the_repository(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    code = [line for line in lines if not line.lstrip().startswith(("//", "#"))]
    assert [line for line in code if re.search(r"(?<!main/)\bdocs/[a-z/-]+\.md", line)] == []
