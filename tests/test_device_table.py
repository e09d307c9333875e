"""What names devices has those of the engine's table."""

from pathlib import Path

import pytest

from candle_phi import _native, doctor
from candle_phi.cli import complete

ROOT = Path(__file__).parents[1]
KINDS = _native.device_kinds()


def test_the_table_begins_with_the_device_that_every_build_has() -> None:
    assert KINDS[0].name == "cpu"
    assert all(kind.spellings[0] == kind.name for kind in KINDS)


def test_doctor_and_completion_have_every_kind() -> None:
    names = [kind.name for kind in KINDS]
    assert [device.name for device in doctor.diagnose(seconds=0).devices] == names
    assert [name for name, _ in complete.devices()] == ["auto", *names]
    assert complete.device_spellings() == "auto, cpu, cuda, cuda:N, metal, metal:N"


@pytest.mark.parametrize("page", ["docs/devices.md", "docs/guides/devices.md"])
def test_the_pages_name_every_kind(page: str) -> None:
    if not (ROOT / page).exists():
        pytest.skip("docs/ is not beside the tests")
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [kind.name for kind in KINDS if f'"{kind.name}"' not in text and f"`{kind.name}`" not in text] == []
