"""Check that a tag can be released, before anything is built or published.

    python tools/check_release.py v0.1.0

The tag must be `v` and the version in Cargo.toml. Both lock files must have that version, and CHANGELOG.md must
have a dated section for it.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path

from release_notes import ChangelogError, release_notes

ROOT = Path(__file__).resolve().parents[1]
LOCK_FILES = ("Cargo.lock", "tools/hub-interop/Cargo.lock")
PREFIX = "candle-phi-"


def workspace_version(root: Path) -> str:
    """Return the version in the root Cargo.toml, which all crates and the Python package share."""
    manifest = tomllib.loads((root / "Cargo.toml").read_text(encoding="utf-8"))
    return str(manifest["workspace"]["package"]["version"])


def outdated_locks(root: Path) -> list[str]:
    """Return one line for each lock file that has another version of this workspace's crates."""
    version = workspace_version(root)
    problems = []
    for name in LOCK_FILES:
        packages = tomllib.loads((root / name).read_text(encoding="utf-8"))["package"]
        others = {package["version"] for package in packages if package["name"].startswith(PREFIX)} - {version}
        if others:
            folder = (root / name).parent.relative_to(root)
            update = f"cargo update --workspace --manifest-path {(folder / 'Cargo.toml').as_posix()}"
            problems.append(f"{name} has version {', '.join(sorted(others))}, expected {version}; run {update}")
    return problems


def release_problems(root: Path, tag: str) -> list[str]:
    """Return everything that keeps a tag from being released.

    Args:
        root: The checkout.
        tag: The tag's name, such as `v0.1.0`.

    Returns:
        One line for each problem; none if the tag can be released.
    """
    version = workspace_version(root)
    problems = []
    if tag != f"v{version}":
        problems.append(f"the tag is {tag}, expected v{version}, the version in Cargo.toml; change one of the two")
    problems += outdated_locks(root)
    try:
        release_notes((root / "CHANGELOG.md").read_text(encoding="utf-8"), version)
    except ChangelogError as error:
        problems.append(f"CHANGELOG.md: {error}")
    return problems


def main() -> int:
    """Check the tag in the arguments.

    Returns:
        The exit code: 1 if the tag cannot be released.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tag", help="the name of the tag")
    problems = release_problems(ROOT, parser.parse_args().tag)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
