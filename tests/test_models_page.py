"""docs/models.md names tests; they must be there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "models.md"

if not PAGE.exists():
    pytest.skip("docs/ is not beside the tests", allow_module_level=True)

NAMED = sorted(set(re.findall(r"`((?:tests|rust)/[\w./]+?)(?:::(\w+))?`", PAGE.read_text(encoding="utf-8"))))


def test_tests_are_named() -> None:
    assert len(NAMED) > 20


@pytest.mark.parametrize(("file", "function"), NAMED)
def test_a_named_test_exists(file: str, function: str) -> None:
    path = ROOT / file
    assert path.exists()
    if function:
        assert re.search(
            rf"^\s*(?:async )?(?:def|fn) {function}\(", path.read_text(encoding="utf-8"), re.MULTILINE
        )
