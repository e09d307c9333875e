"""Releases: a tag that does not fit is refused, and the notes come from the changelog."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "tools"
WORKFLOWS = ROOT / ".github" / "workflows"

sys.path.insert(0, str(TOOLS))
release_notes = pytest.importorskip("release_notes", reason="tools/ is not beside the tests")
check_release = pytest.importorskip("check_release", reason="tools/ is not beside the tests")

CHANGELOG = """\
# Changelog

## [Unreleased]

### Added

- Not released.

## [0.2.0] - 2026-12-01

### Added

- A server, see [its guide][guide].

### Fixed

- A crash.

## [0.1.0] - 2026-11-01

- The first.

[guide]: https://example.com/guide
[0.2.0]: https://example.com/0.2.0
"""
VERSION = check_release.workspace_version(ROOT)


changes_files = pytest.mark.thread_unsafe(reason="it changes files in a folder that two threads would share")


@pytest.fixture
def checkout(tmp_path):
    """The files that a release is checked by, with a changelog that has a section for the version."""
    for name in ("Cargo.toml", *check_release.LOCK_FILES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "CHANGELOG.md").write_text(f"## [{VERSION}] - 2026-12-01\n\n- All of it.\n", encoding="utf-8")
    return tmp_path


def test_notes_are_the_section_of_the_version():
    expected = "### Added\n\n- A server, see [its guide][guide].\n\n### Fixed\n\n- A crash.\n"
    assert release_notes.release_notes(CHANGELOG, "0.2.0") == expected


def test_notes_of_the_last_section_leave_out_link_definitions():
    assert release_notes.release_notes(CHANGELOG, "0.1.0") == "- The first.\n"


@pytest.mark.parametrize("version", ["0.3.0", "0.2", "0.2.0-rc.1", "v0.2.0", ""])
def test_a_version_without_a_section_is_an_error(version):
    with pytest.raises(release_notes.ChangelogError):
        release_notes.release_notes(CHANGELOG, version)


def test_a_section_without_a_date_is_an_error():
    with pytest.raises(release_notes.ChangelogError):
        release_notes.release_notes(CHANGELOG, "Unreleased")


def test_an_empty_section_is_an_error():
    with pytest.raises(release_notes.ChangelogError):
        release_notes.release_notes("## [1.0.0] - 2027-01-01\n\n[1.0.0]: https://example.com\n", "1.0.0")


def test_the_tag_of_the_version_can_be_released(checkout):
    assert check_release.release_problems(checkout, f"v{VERSION}") == []


@pytest.mark.parametrize("tag", [VERSION, f"v{VERSION}.1", f"v{VERSION}-rc.1", f"V{VERSION}", "v999.0.0", "v", ""])
def test_another_tag_is_refused(checkout, tag):
    assert len(check_release.release_problems(checkout, tag)) == 1


@changes_files
def test_a_release_without_notes_is_refused(checkout):
    (checkout / "CHANGELOG.md").write_text("## [Unreleased]\n\n- All of it.\n", encoding="utf-8")
    assert len(check_release.release_problems(checkout, f"v{VERSION}")) == 1


@changes_files
@pytest.mark.parametrize("name", check_release.LOCK_FILES)
def test_a_lock_file_with_another_version_is_refused(checkout, name):
    lock = checkout / name
    text = lock.read_text(encoding="utf-8")
    changed = re.sub(r'(name = "candle-phi-engine"\nversion = )"[^"]+"', r'\1"9.9.9"', text)
    assert changed != text
    lock.write_text(changed, encoding="utf-8")
    problem, *others = check_release.release_problems(checkout, f"v{VERSION}")
    assert problem.startswith(name)
    assert not others


@changes_files
def test_every_problem_is_reported_at_once(checkout):
    (checkout / "CHANGELOG.md").write_text("", encoding="utf-8")
    assert len(check_release.release_problems(checkout, "v999.0.0")) == 2


def test_the_program_fails_for_a_wrong_tag():
    ran = subprocess.run(
        [sys.executable, TOOLS / "check_release.py", "v999.0.0"], capture_output=True, check=False
    )
    assert ran.returncode == 1
    assert b"v999.0.0" in ran.stderr


def test_the_lock_files_are_up_to_date():
    """`make test-hub-interop` refuses a lock file that lacks a dependency of the engine."""
    assert check_release.outdated_locks(ROOT) == []
    for crate in ("engine", "kernels"):
        manifest = tomllib.loads((ROOT / "rust" / crate / "Cargo.toml").read_text(encoding="utf-8"))
        # Those of the feature `hub`, which is on by default, are optional too.
        default = " ".join(manifest.get("features", {}).get("hub", []))
        needed = {
            name
            for name, value in manifest["dependencies"].items()
            if not value.get("optional") or f"dep:{name}" in default
        }
        for lock in check_release.LOCK_FILES:
            packages = tomllib.loads((ROOT / lock).read_text(encoding="utf-8"))["package"]
            (locked,) = (package for package in packages if package["name"] == f"candle-phi-{crate}")
            assert needed <= {dependency.split()[0] for dependency in locked["dependencies"]}, lock


def test_nothing_is_built_or_published_before_the_tag_is_checked():
    jobs = dict(re.findall(r"^  ([\w-]+):\n((?:(?:    .*)?\n)+)", jobs_of(WORKFLOWS / "wheels.yml"), re.MULTILINE))
    assert {"version", "publish", "release"} <= set(jobs)
    assert "tools/check_release.py" in jobs["version"]
    needs = {name: needed(text) for name, text in jobs.items()}
    for name in set(jobs) - {"version"}:
        assert "version" in all_needs(name, needs), name
    assert set(jobs) - {"release"} <= {"publish", *all_needs("publish", needs)}


def needed(job):
    """The jobs that a job names in its line `needs`."""
    line = re.search(r"^    needs: (.*)$", job, re.MULTILINE)
    return re.findall(r"[\w-]+", line[1]) if line else []


def all_needs(name, needs):
    """The jobs that a job waits for, directly or not."""
    return set(needs[name]).union(*(all_needs(earlier, needs) for earlier in needs[name]))


def jobs_of(workflow):
    """The part of a workflow with its jobs, without comments."""
    text = workflow.read_text(encoding="utf-8").partition("\njobs:\n")[2] + "\n"
    return re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize("workflow", sorted(WORKFLOWS.glob("*.yml")), ids=lambda path: path.name)
def test_every_action_is_pinned_by_commit(workflow):
    used = re.findall(r"\buses: (\S+)", workflow.read_text(encoding="utf-8"))
    assert used
    for action in used:
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", action), action


def test_each_change_in_the_changelog_is_one_short_line():
    _, *sections = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split("\n## [")
    lines = [line for section in sections for line in section.splitlines()[1:] if line]
    assert any(line.startswith("- ") for line in lines)
    for line in lines:
        assert line.startswith(("- ", "### ", "[")), line
        assert len(line) <= 130, line
