"""Print the notes of a release: the section of CHANGELOG.md for its version.

    python tools/release_notes.py 0.1.0

A version without a dated section, or with an empty one, is an error.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).resolve().parents[1] / "CHANGELOG.md"

_HEADING = re.compile(r"^## \[(?P<version>[^\]]+)\](?: - (?P<date>\d{4}-\d{2}-\d{2}))?\s*$", re.MULTILINE)
_LINK_DEFINITION = re.compile(r"^\[[^\]]+\]: \S+\s*$", re.MULTILINE)


class ChangelogError(ValueError):
    """CHANGELOG.md has no usable section for a version."""


def release_notes(changelog: str, version: str) -> str:
    """Return the text of a version's section, without its heading.

    Args:
        changelog: The text of CHANGELOG.md, in the format of Keep a Changelog.
        version: A version, such as `0.1.0`.

    Returns:
        The section in Markdown. Definitions of links at its end are left out.

    Raises:
        ChangelogError: There is no section for the version, or it has no date or no text.
    """
    headings = list(_HEADING.finditer(changelog))
    index = next((i for i, heading in enumerate(headings) if heading["version"] == version), None)
    if index is None:
        found = ", ".join(heading["version"] for heading in headings) or "none"
        raise ChangelogError(f"no section for {version}, found {found}; rename [Unreleased] to [{version}] - DATE")
    if headings[index]["date"] is None:
        raise ChangelogError(f"the section for {version} has no date; write ## [{version}] - YYYY-MM-DD")
    end = headings[index + 1].start() if index + 1 < len(headings) else len(changelog)
    notes = _LINK_DEFINITION.sub("", changelog[headings[index].end() : end]).strip()
    if not notes:
        raise ChangelogError(f"the section for {version} is empty; add one line for each change")
    return notes + "\n"


def main() -> int:
    """Print the notes of the version in the arguments.

    Returns:
        The exit code: 1 if CHANGELOG.md has no section for the version.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", help="without a leading v")
    version = parser.parse_args().version
    try:
        sys.stdout.write(release_notes(CHANGELOG.read_text(encoding="utf-8"), version))
    except ChangelogError as error:
        print(f"error: CHANGELOG.md: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
