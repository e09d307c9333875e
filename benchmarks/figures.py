"""Write the tables of measurements into the pages, from the JSON files of `results/`.

    python benchmarks/figures.py            # or `make figures`
    python benchmarks/figures.py --check    # change nothing; fail where a page and its figures differ

A page says where a table belongs by two comments, which no reader sees. Between them stands what this program
writes, from `results/NAME.json`, or from several files of the same program in one table:

    <!-- figures: NAME NAME ... -->
    <!-- /figures -->

A measurement whose raw figures were not kept stands between two other comments, with a caption that says so. The
first has a checksum of the table's rows, because such a table can no longer be compared with anything:

    <!-- measured earlier: CHECKSUM -->

    **Measured earlier, not reproducible.** ...

    <!-- /measured earlier -->

Any other table of measurements is a fault.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import compare_report
import record

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
EARLIER = "**Measured earlier, not reproducible.**"

_BLOCK = re.compile(r"(?P<start><!-- figures: (?P<names>[\w. -]+?) -->\n).*?(?P<end><!-- /figures -->)", re.DOTALL)
_EARLIER_BLOCK = re.compile(
    r"<!-- measured earlier: (?P<checksum>\w+) -->\n(?P<text>.*?)<!-- /measured earlier -->", re.DOTALL
)
_COMMENT = re.compile(r"<!-- /?(?:figures|measured earlier)\b.*?-->")
_FENCE = re.compile(r"^(?P<fence> *`{3,}).*?^(?P=fence) *$", re.MULTILINE | re.DOTALL)
# What only a measurement has: a rate, a time in milliseconds, or a median with the least and the greatest.
_MEASURED = re.compile(r"tokens/s|\b(?:GB|MB)/s|GMAC/s|\d ms\b|, ms\b|\d \[[\d.,]+, [\d.,]+\]")

_LABELS = {
    "prefill": "prefill of {} tokens",
    "forward": "forward pass of {} tokens",
    "decode": "decode after {} tokens",
    "busy": "decode beside a busy loop",
    "load_s": "load",
    "open_to_first_token_s": "open to first token",
    "anonymous_beyond_cache_mb": "anonymous memory beyond the cache",
    "file_backed_mb": "file-backed memory",
}


def pages() -> list[Path]:
    """Every page of the repository that may have figures."""
    top = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")
    named = [*(ROOT / name for name in top), ROOT / "benchmarks" / "README.md"]
    return [page for page in (*named, *sorted((ROOT / "docs").rglob("*.md"))) if page.exists()]


def written(text: str, results: Path = RESULTS) -> str:
    """A page with its figures written anew."""

    def block(match: re.Match[str]) -> str:
        return f"{match['start']}\n{render(match['names'].split(), results)}\n\n{match['end']}"

    return _BLOCK.sub(block, text)


def problems(text: str, results: Path = RESULTS) -> list[str]:
    """What is wrong with the figures of a page, in sentences."""
    found = []
    if written(text, results) != text:
        found.append("the tables are not those of benchmarks/results/: run `make figures`")
    for match in _EARLIER_BLOCK.finditer(text):
        if EARLIER not in match["text"]:
            found.append(f"an earlier measurement has no caption {EARLIER!r}: {_first_line(match['text'])}")
        if (expected := checksum(match["text"])) != match["checksum"]:
            found.append(
                f"the rows of an earlier measurement were changed: undo it, or, if the change corrects them, "
                f"replace the checksum {match['checksum']} with {expected}: {_first_line(match['text'])}"
            )
    rest = _EARLIER_BLOCK.sub("", _BLOCK.sub("", _FENCE.sub("", text)))
    found += [f"a comment without the one that belongs to it: {comment}" for comment in _COMMENT.findall(rest)]
    for table in re.findall(r"(?:^ *\|.*\n?)+", rest, re.MULTILINE):
        if measured := _MEASURED.search(table):
            heading = _first_line(table)
            found.append(f"a table of measurements outside of the comments ({measured[0]!r}): {heading}")
    return found


def checksum(text: str) -> str:
    """The checksum of the rows of the tables in a text; what stands around them may change."""
    rows = [line.strip() for line in text.splitlines() if line.lstrip().startswith("|")]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:12]


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def render(names: list[str], results: Path = RESULTS) -> str:
    """The table of some results. One that was not measured yet is named in its place.

    Raises:
        ValueError: The results are of different programs or engines, or a file is not a record.
    """
    paths = {name: results / f"{name}.json" for name in names}
    records = [record.read(path) for path in paths.values() if path.exists()]
    parts = []
    if records:
        programs = {found["benchmark"] for found in records}
        if len(programs) > 1:
            raise ValueError(f"one table cannot have the results of {' and '.join(sorted(programs))}")
        parts = [_TABLES[programs.pop()](records), "\n".join(f"- {_about(found)}" for found in records)]
    if missing := [name for name, path in paths.items() if not path.exists()]:
        parts.append(f"*Not measured yet with this version: {', '.join(missing)}.*")
    return "\n\n".join(parts)


def _about(found: dict[str, Any]) -> str:
    """Where a record comes from, for readers."""
    machine, settings = found["machine"], found["settings"]
    instructions = f" ({', '.join(machine['instructions'])})" if machine["instructions"] else ""
    kind = " of a virtual machine" if machine["is_virtual"] else ""
    threads = f", {settings['threads']} threads" if settings.get("threads") else ""
    rounds = f"{found['rounds']} round{'s' if found['rounds'] != 1 else ''}"
    parts = [
        _model(found),
        f"{machine['processor']}{instructions}, {machine['cores']} cores{kind}{threads}",
        ", ".join(found["versions"].values()),
        f"{rounds} on {found['date'][:10]}",
    ]
    if (others := _disturbed(found)) is not None:
        parts.append(others)
    return f"{'; '.join(parts)}."


def _model(found: dict[str, Any]) -> str:
    model = found["model"]
    return f"{model['name'] or model['file']}, {model['quantization']}, {model['bytes'] / 1e6:,.0f} MB"


def _disturbed(found: dict[str, Any]) -> str | None:
    """What other programs took of the machine, if that was enough to change the figures."""
    least = compare_report.DISTURBED
    if found["benchmark"] != "compare":
        share = found["others"] or 0.0
        return f"other programs took {share:.0%} of the processors meanwhile" if share >= least else None
    shares = [watched["others"] for watched in found["results"]["others"]]
    disturbed = [share for share in shares if share >= least]
    if not disturbed:
        return None
    return (
        f"in {len(disturbed)} of {len(shares)} measurements other programs took {least:.0%} of "
        f"the processors or more, {max(disturbed):.0%} at most"
    )


def _table(columns: list[str], rows: list[list[str]]) -> str:
    """A table of Markdown, its first column for text and the others for numbers."""
    lines = [columns, ["---", *("---:" for _ in columns[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _compare(records: list[dict[str, Any]]) -> str:
    """Engines beside each other: a group of rows for each model, under its name if there are several."""
    engines = [list(found["versions"]) for found in records]
    if any(names != engines[0] for names in engines):
        raise ValueError(f"one table cannot have different engines: {engines}")
    names = engines[0]
    summaries = [compare_report.summary(found["results"]) for found in records]
    limits = any(entry["of_limit"] for figures in summaries for entry in figures.values())
    ratios = ["ratio"] if len(names) == 2 else [f"ratio to {name}" for name in names[1:]]
    columns = ["", *names, *ratios, *(["of the machine's limit"] if limits else [])]
    rows = []
    for found, figures in zip(records, summaries, strict=True):
        if len(records) > 1:
            rows.append([f"**{_model(found)}**", *("" for _ in columns[1:])])
        for figure, entry in figures.items():
            kind, _, number = figure.partition("-")
            label = "decode" if figure == "decode-0" else _LABELS[kind].format(f"{int(number or 0):,}")
            rows.append([f"{label}, {entry['unit']}", *compare_report.cells(entry, names, limits=limits)])
    return _table(columns, rows)


def _context_memory(records: list[dict[str, Any]]) -> str:
    """Memory by length of the context."""
    rows = []
    for found in records:
        for n_ctx, rounds in found["results"].items():
            grown = compare_report.cell(compare_report.spread([taken["grown"] / 1e6 for taken in rounds]), 1)
            cache, full = (rounds[0][key] / 1e6 for key in ("cache", "full_cache"))
            rows.append([_name(records, found, f"{int(n_ctx):,}"), grown, f"{cache:,.1f}", f"{full:,.0f}"])
    counts = {found["settings"]["prompt_tokens"] + found["settings"]["new_tokens"] for found in records}
    if len(counts) > 1:
        listed = " and ".join(map(str, sorted(counts)))
        raise ValueError(f"one table cannot have results of {listed} tokens; give each a table of its own")
    (tokens,) = counts
    heads = ["memory grown, MB", f"keys and values of {tokens} tokens, MB", "of a full context, MB"]
    return _table(["`n_ctx`", *heads], rows)


def _interrupt(records: list[dict[str, Any]]) -> str:
    """How long Ctrl-C takes, by what it interrupts."""
    rows = []
    for found in records:
        prompt = found["settings"]["prefill_tokens"]
        for key, name in (("prefill_s", f"reading a prompt of {prompt:,} tokens"), ("decode_s", "generating")):
            late_ms = [1e3 * late_s for late_s in found["results"][key]]
            shown = compare_report.cell(compare_report.spread(late_ms), 0)
            rows.append([_name(records, found, name), str(len(late_ms)), shown])
    return _table(["while", "interrupts", "until `KeyboardInterrupt`, ms"], rows)


def _heartbeat(records: list[dict[str, Any]]) -> str:
    """Beats that came, and the longest gap, by what computed."""
    rows = []
    for found in records:
        pulses: dict[str, dict[str, dict[str, Any]]] = {}
        for pulse in found["results"]:
            pulses.setdefault(pulse["while_"], {})[pulse["heart"]] = pulse
        for while_, hearts in pulses.items():
            row = [_name(records, found, while_ if while_ == "nothing" else f"`{while_}`")]
            for heart in ("task", "thread"):
                had, expected = hearts[heart]["had"], hearts[heart]["expected"]
                share = f"{had / expected:.1%}" if expected else "-"
                row += [share, f"{1e3 * hearts[heart]['longest_gap_s']:.1f}"]
            rows.append(row)
    gap = "longest gap, ms"
    return _table(["while", "beats of the task", gap, "beats of the thread", gap], rows)


def _name(records: list[dict[str, Any]], found: dict[str, Any], name: str) -> str:
    """The name of a row, with its model if the table has several."""
    return name if len(records) == 1 else f"{_model(found)}: {name}"


_TABLES: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    "compare": _compare,
    "context_memory": _context_memory,
    "heartbeat": _heartbeat,
    "interrupt": _interrupt,
}


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, and fail where something differs")
    return parser.parse_args(argv)


def main() -> None:
    """Write the figures of every page, and say what is wrong."""
    given = arguments()
    found = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if not given.check and (new := written(text)) != text:
            page.write_text(new, encoding="utf-8")
            print(f"wrote {page.relative_to(ROOT)}")
            text = new
        found += [f"{page.relative_to(ROOT)}: {problem}" for problem in problems(text)]
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
