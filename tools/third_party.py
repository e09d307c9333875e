"""Writes THIRD_PARTY.md: the crates that are compiled into a wheel, and their licences' texts.

    python tools/third_party.py             writes the page
    python tools/third_party.py --check     fails if the page is not what it would write

The crates are those that `cargo metadata` says are linked, on any system that wheels are built for; not those that
only build or test. Of a choice of licences the first of `PREFERRED` is taken, and its text is read from the crate
itself. A licence that is not in `PREFERRED` is an error: somebody is to look at it first. `deny.toml` has the same
list, and a test holds the two together.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "THIRD_PARTY.md"
PACKAGE = "candle-phi-python"
# What the wheels of PyPI are built with: the one for Apple's processors with Metal.
FEATURES = ("candle-phi-python/metal",)

# In the order in which they are chosen: one text for many crates first.
PREFERRED = (
    "Apache-2.0",
    "MIT",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "CDLA-Permissive-2.0",
)
# Words that tell a licence's text from another's, where a crate has several files.
MARKS = {
    "Apache-2.0": "Apache License",
    "MIT": "Permission is hereby granted, free of charge",
    "BSD-3-Clause": "Neither the name",
    "ISC": "Permission to use, copy, modify, and",
    "Zlib": "altered source versions",
    "Unicode-3.0": "UNICODE LICENSE",
    "CDLA-Permissive-2.0": "Community Data License Agreement",
}
HEAD = """\
# Third-party software

A wheel of candle-phi contains these crates, compiled, beside Rust's standard library (Apache-2.0 or MIT). Which of
them are in a particular wheel depends on its system; the wheel's own list is in its `.dist-info/sboms`. Where a
crate offers a choice of licences, the one named here was taken. `tools/third_party.py` writes this page.

| crate | version | licence |
| --- | --- | --- |
"""


@dataclass(frozen=True, order=True)
class Crate:
    """A crate that is linked into a wheel.

    Attributes:
        name: Its name.
        version: Its version.
        licences: The identifiers that were taken, of SPDX.
        authors: Who wrote it, as far as its manifest says.
        folder: Where its source is.
    """

    name: str
    version: str
    licences: tuple[str, ...]
    authors: str
    folder: Path


def main() -> int:
    """Writes the page, or compares it.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    options = parser.parse_args()

    wanted = page(linked_crates(FEATURES))
    found = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if not options.check:
        PAGE.write_text(wanted, encoding="utf-8")
        return 0
    if found == wanted:
        return 0
    difference = difflib.unified_diff(
        found.splitlines(), wanted.splitlines(), "THIRD_PARTY.md", "wanted", lineterm=""
    )
    print("\n".join(list(difference)[:40]))
    print("error: THIRD_PARTY.md is not up to date; make third-party", file=sys.stderr)
    return 1


def linked_crates(features: tuple[str, ...], target: str | None = None) -> list[Crate]:
    """The crates that end up in a wheel, without those of this workspace.

    Args:
        features: Of cargo, that the wheel is built with.
        target: The wheel's Rust target, or None for all there are.

    Returns:
        The crates, sorted by name.
    """
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--features", ",".join(features)]
    if target is not None:
        command += ["--filter-platform", target]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    metadata: dict[str, Any] = json.loads(output)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}

    start = next(key for key, package in packages.items() if package["name"] == PACKAGE)
    seen, waiting = {start}, [start]
    while waiting:
        for dependency in nodes[waiting.pop()]["deps"]:
            key = dependency["pkg"]
            linked = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            if linked and key not in seen and not is_macro(packages[key]):
                seen.add(key)
                waiting.append(key)
    return sorted(crate_of(packages[key]) for key in seen if packages[key]["source"] is not None)


def is_macro(package: dict[str, Any]) -> bool:
    """Whether the compiler runs it, and nothing of it is linked."""
    return any("proc-macro" in target["kind"] for target in package["targets"])


def crate_of(package: dict[str, Any]) -> Crate:
    """A package of `cargo metadata` with a choice made among its licences."""
    expression = package["license"]
    if not expression:
        raise SystemExit(f"error: {package['name']} states no licence; read it, and name it here")
    try:
        licences = choose(expression)
    except ValueError as error:
        raise SystemExit(f"error: {package['name']}: {error}") from None
    authors = ", ".join(package["authors"])
    return Crate(package["name"], package["version"], licences, authors, Path(package["manifest_path"]).parent)


def choose(expression: str) -> tuple[str, ...]:
    """The licences to take of an SPDX expression: all of an AND, the preferred one of an OR.

    Args:
        expression: As in a manifest; "/" is an old way to write OR.

    Returns:
        Identifiers, each one of `PREFERRED`.

    Raises:
        ValueError: If the expression cannot be fulfilled with those.
    """
    words = re.findall(r"\(|\)|[\w.+-]+(?: WITH [\w.+-]+)?", expression.replace("/", " OR "))
    choices, rest = _either(words)
    allowed = [choice for choice in choices if all(name in PREFERRED for name in choice)]
    if rest or not allowed:
        raise ValueError(f"expected licences of the list in tools/third_party.py, found {expression!r}")
    return min(allowed, key=lambda choice: (len(choice), [PREFERRED.index(name) for name in choice]))


def _either(words: list[str]) -> tuple[list[tuple[str, ...]], list[str]]:
    """Reads alternatives: what any of them asks for, and the words that are left."""
    choices, rest = _together(words)
    while rest[:1] == ["OR"]:
        more, rest = _together(rest[1:])
        choices = choices + more
    return choices, rest


def _together(words: list[str]) -> tuple[list[tuple[str, ...]], list[str]]:
    """Reads what is to be fulfilled together."""
    choices, rest = _one(words)
    while rest[:1] == ["AND"]:
        more, rest = _one(rest[1:])
        choices = [tuple(dict.fromkeys(first + second)) for first in choices for second in more]
    return choices, rest


def _one(words: list[str]) -> tuple[list[tuple[str, ...]], list[str]]:
    """Reads an identifier, or something in parentheses."""
    if words[:1] == ["("]:
        choices, rest = _either(words[1:])
        return choices, rest[1:]
    return [(word,) for word in words[:1]], words[1:]


def page(crates: list[Crate]) -> str:
    """The whole page."""
    rows = [f"| {crate.name} | {crate.version} | {' and '.join(crate.licences)} |\n" for crate in crates]
    texts: dict[str, list[Crate]] = {}
    for crate in crates:
        for text in texts_of(crate):
            texts.setdefault(text, []).append(crate)
    parts = [HEAD, *rows]
    for text, users in sorted(texts.items(), key=lambda item: (item[1], item[0])):
        parts.append(f"\n## {', '.join(dict.fromkeys(crate.name for crate in users))}\n\n```text\n{text}\n```\n")
    return "".join(parts)


def texts_of(crate: Crate) -> list[str]:
    """The texts of the licences that were taken, and what notices there are."""
    # One level down is where crates keep the C code that they compile.
    files = [
        normal(file) for file in sorted([*crate.folder.glob("*"), *crate.folder.glob("*/*")]) if is_licence(file)
    ]
    found = []
    for licence in crate.licences:
        fits = [text for text in files if MARKS[licence].casefold() in " ".join(text.split()).casefold()]
        if fits:
            found.append(min(fits, key=len))
        else:
            # The crate leaves the text to its repository.
            found.append(
                f"{licence}, whose text the crate leaves out. Its authors: {crate.authors or 'not named'}."
            )
    notices = [normal(file) for file in sorted(crate.folder.glob("NOTICE*")) if file.is_file()]
    return list(dict.fromkeys(found + notices))


def is_licence(file: Path) -> bool:
    """Whether a file's name says that it is one."""
    return file.is_file() and re.match(r"(?i)(licen[cs]e|copying|unlicense|copyright)", file.name) is not None


@cache
def normal(file: Path) -> str:
    """A text without what differs from copy to copy and says nothing: indentation, line ends, the appendix."""
    text = file.read_text(encoding="utf-8", errors="replace").replace("```", "'''")
    text = "\n".join(line.strip() for line in text.splitlines())
    text = re.sub(r"(?s)END OF TERMS AND CONDITIONS\s+APPENDIX.*?limitations under the License\.", "", text)
    return re.sub(r"\n{2,}", "\n\n", text).strip()


if __name__ == "__main__":
    sys.exit(main())
