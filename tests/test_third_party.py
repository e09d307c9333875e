"""What is depended on is listed, with licences that somebody allowed."""

import json
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOL = ROOT / "tools" / "third_party.py"
PAGE = ROOT / "THIRD_PARTY.md"

if not TOOL.exists() or not PAGE.exists():
    pytest.skip("tools/ is not beside the tests", allow_module_level=True)

sys.path.insert(0, str(TOOL.parent))
import sbom  # noqa: E402
import third_party  # noqa: E402


def listed() -> dict[tuple[str, str], str]:
    rows = [
        line.strip("| ").split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:2] == "| "
    ]
    return {(name, version): licence for name, version, licence in rows[2:]}


def test_the_page_lists_versions_that_are_locked():
    """`make lint-licences` compares all of the page; this does it without cargo."""
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text(encoding="utf-8"))["package"]
    assert len(listed()) > 100
    assert set(listed()) <= {(package["name"], package["version"]) for package in locked}
    # Candle itself, what the network needs, and what the interpreter needs.
    assert {"candle-core", "reqwest", "pyo3", "aws-lc-sys"} <= {name for name, _ in listed()}


def test_every_licence_of_the_page_is_allowed():
    taken = {licence for row in listed().values() for licence in row.split(" and ")}
    assert taken <= set(third_party.PREFERRED)


def test_cargo_deny_allows_the_same_licences():
    deny = tomllib.loads((ROOT / "deny.toml").read_text(encoding="utf-8"))
    assert deny["licenses"]["allow"] == list(third_party.PREFERRED)


@pytest.mark.parametrize(
    ("expression", "taken"),
    [
        ("MIT", ("MIT",)),
        ("MIT OR Apache-2.0", ("Apache-2.0",)),
        ("MIT/Apache-2.0", ("Apache-2.0",)),
        ("Unlicense OR MIT", ("MIT",)),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", ("Apache-2.0", "Unicode-3.0")),
        ("ISC AND (Apache-2.0 OR ISC)", ("ISC",)),
        ("GPL-3.0-only OR MIT", ("MIT",)),
        ("Apache-2.0 WITH LLVM-exception OR Apache-2.0", ("Apache-2.0",)),
    ],
)
def test_a_choice_among_licences(expression, taken):
    assert third_party.choose(expression) == taken


@pytest.mark.parametrize("expression", ["GPL-3.0-only", "MIT AND GPL-2.0-or-later", "", "MIT )"])
def test_a_licence_that_nobody_allowed_is_an_error(expression):
    with pytest.raises(ValueError, match="expected licences of the list"):
        third_party.choose(expression)


def test_the_list_in_a_wheel_names_each_crate_and_no_place_of_this_machine():
    crate = third_party.Crate("some-crate", "1.2.3", ("MIT", "ISC"), "somebody", ROOT / "some-crate")
    content = sbom.bill_of_materials([crate])
    assert [part["purl"] for part in content["components"]] == ["pkg:cargo/some-crate@1.2.3"]
    assert content["components"][0]["licenses"] == [{"expression": "MIT AND ISC"}]
    assert str(ROOT) not in json.dumps(content)
