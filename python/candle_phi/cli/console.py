"""The output of the command line: results to stdout, everything else to stderr, color only on a terminal."""

import contextlib
import os
import re
import sys
from pathlib import Path
from typing import TextIO, cast

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

# Set by --debug: errors are then printed with their traceback.
debug = False

_UNITS = ("KB", "MB", "GB", "TB")
# Wide enough that no cell is truncated if there is no terminal to set the width.
_PIPE_WIDTH = 1000


# Control characters other than a line feed and a tab, and characters that change the direction of a text.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_HIDDEN_IN_LINE = re.compile(f"{_HIDDEN.pattern}|[\t\n]")


class UsageProblem(typer.TyperException):
    """A usage error of the command line."""

    exit_code = 2
    # The context of the command.
    ctx: object = None


def visible(text: str) -> str:
    r"""Escape the control characters of a text from a model or a file, which a terminal would obey.

    Args:
        text: The text, which may have several lines.

    Returns:
        The text, with an escape sequence such as \x1b for each control character except line feeds and tabs.
    """
    return _HIDDEN.sub(_escaped, text)


def visible_line(text: str) -> str:
    """Escape the control characters of a name or value, including line feeds and tabs."""
    return _HIDDEN_IN_LINE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode("ascii")


def stderr_console() -> Console:
    """Return a console on stderr, created when it is needed because tests replace the stream."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def note(text: str) -> None:
    """Print a remark on stderr, dimmed."""
    _print_wrapped(text, style="dim")


def warning(text: str) -> None:
    """Print a warning on stderr."""
    _print_wrapped(f"warning: {' '.join(text.split())}")


def question(text: str) -> None:
    """Print a question on stderr; the answer is typed on the same line."""
    _print_wrapped(text, end="")
    print(" ", end="", file=sys.stderr, flush=True)


def _print_wrapped(text: str, *, style: str | None = None, end: str = "\n") -> None:
    """Print on stderr, wrapped between words on a terminal and unchanged elsewhere."""
    screen = stderr_console()
    screen.print(visible(text), style=style, soft_wrap=not screen.is_terminal, end=end)
    screen.file.flush()


def note_table(rows: list[list[str]]) -> None:
    """Print a table of remarks on stderr, dimmed."""
    table = Table(box=None, show_header=False, pad_edge=False, style="dim")
    for _ in rows[0]:
        table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*map(visible, row))
    stderr_console().print(table)


def error(message: str) -> None:
    """Print an error on stderr: one line, wrapped between words on a terminal."""
    _print_wrapped(f"error: {' '.join(message.split())}")


def print_any_text() -> None:
    """Let stdout accept any text: a character that its encoding lacks becomes a question mark."""
    with contextlib.suppress(AttributeError):  # a stand-in for a terminal may lack it
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr] # a text file, unless it is such a stand-in


def open_closed_streams() -> None:
    """Replace stdin and stderr by empty streams if they were closed at the start (`<&-`).

    Raises:
        OSError: stdout is closed.
    """
    if sys.stdin is None:
        sys.stdin = _nothing(os.O_RDONLY, "r")
    if sys.stderr is None:
        sys.stderr = _nothing(os.O_WRONLY, "w")
    if sys.stdout is None:
        raise OSError("the standard output is closed")


def _nothing(flags: int, mode: str) -> TextIO:
    """Open the null device, for the lifetime of the process."""
    return cast("TextIO", os.fdopen(os.open(os.devnull, flags), mode, encoding="utf-8", closefd=False))


def write_note(text: str) -> None:
    """Write lines to stderr unwrapped and flush it."""
    print(visible(text), file=sys.stderr, flush=True)


def write(text: str) -> None:
    """Write text to stdout and flush it: with visible control characters on a terminal, unchanged elsewhere."""
    sys.stdout.write(visible(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def utf8(text: bytes) -> str:
    """Decode the input of stdin."""
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageProblem(f"stdin is not UTF-8: {error}") from None


def at_home(path: Path) -> Path:
    """Expand the ~ of a path; return the path unchanged if the home directory is not known."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def human_bytes(count: int) -> str:
    """Format a size in decimal units, as file managers and the hub do."""
    if count < 1000:
        return f"{count} B"
    size = count / 1000
    units = iter(_UNITS)
    unit = next(units)
    while size >= 1000 and (larger := next(units, None)):
        size, unit = size / 1000, larger
    return f"{size:.1f} {unit}"


def human_count(count: int) -> str:
    """Format a count of parameters, such as 3.8 B."""
    for size, unit in ((1e9, " B"), (1e6, " M"), (1e3, " K")):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)


def terminal_width() -> int | None:
    """Return the number of columns of stdout; None if it is not a terminal."""
    return Console().width if sys.stdout.isatty() else None


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table on stdout; sizes are right-aligned."""
    table = Table(box=None, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column == "size" else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(visible_line, row))
    print_rich(table)


def print_line(text: str) -> None:
    """Print a sentence on stdout, wrapped between words on a terminal."""
    is_terminal = sys.stdout.isatty()
    Console(markup=False, highlight=False, emoji=False).print(visible(text), soft_wrap=not is_terminal)


def print_paragraphs(title: str, rows: list[list[str]]) -> None:
    """Print rows on a terminal as paragraphs: the first cell, and the others indented below it."""
    screen = Console(markup=False, highlight=False, emoji=False)
    screen.print(title, style="bold")
    for first, *others in rows:
        screen.print(Padding(visible_line(first), (0, 0, 0, 2)))
        for cell in others:
            screen.print(Padding(Text(visible_line(cell), overflow="fold"), (0, 0, 0, 4)))


def print_rich(renderable: Table) -> None:
    """Print on stdout with the terminal's width, or in a pipe untruncated and without padding."""
    if sys.stdout.isatty():
        Console(markup=False, highlight=False).print(renderable)
        return
    console = Console(markup=False, highlight=False, width=_PIPE_WIDTH)
    with console.capture() as captured:
        console.print(renderable)
    for line in captured.get().splitlines():
        print(line.rstrip())
