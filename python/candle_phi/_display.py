"""The display of values: short in a terminal, as HTML in a notebook."""

from collections.abc import Iterable, Sequence, Sized
from dataclasses import MISSING, Field, fields
from html import escape
from typing import Any, cast

_TEXT_CHARACTERS = 100
_ITEMS = 6
# The most characters of the items that are shown rather than counted.
_ITEMS_CHARACTERS = 100


def represent(self: Any) -> str:
    """Return a `repr` of a dataclass that fits on a line or two.

    Fields with their default value are omitted; fields with ``repr=False`` are replaced by dots. Long texts are
    truncated; long sequences are replaced by their length.

    Args:
        self: The dataclass instance.

    Returns:
        The text.
    """
    parts: list[str] = []
    is_whole = True
    for field in fields(self):
        own = getattr(self, field.name)
        if field.repr and not _is_default(field, own):
            parts.append(f"{field.name}={_shown(own)}")
        is_whole = is_whole and field.repr
    if not is_whole:
        parts.append("...")
    return f"{type(self).__name__}({', '.join(parts)})"


def _is_default(field: "Field[Any]", value: object) -> bool:
    default = field.default
    if default is MISSING and field.default_factory is not MISSING:
        default = field.default_factory()
    return type(value) is type(default) and value == default


def _shown(value: object) -> str:
    """Format a field's value."""
    if isinstance(value, str) and len(value) > _TEXT_CHARACTERS:
        return f"{value[:_TEXT_CHARACTERS]!r}...({len(value):,} characters)"
    if isinstance(value, float):
        return f"{value:.6g}" if value % 1 or abs(value) > 1e6 else repr(value)
    if isinstance(value, Sized) and not isinstance(value, str):
        shown = _items_shown(value) if len(value) <= _ITEMS else ""
        if not shown or len(shown) > _ITEMS_CHARACTERS:
            return f"<{len(value):,} item{'s' if len(value) != 1 else ''}>"
        return shown
    return repr(value)


def _items_shown(value: Sized) -> str:
    """Format a short list, tuple or mapping; its numbers are rounded as those of a field are."""
    if type(value) is list:
        return f"[{', '.join(map(_shown, cast('list[object]', value)))}]"
    if type(value) is tuple:
        items = cast("tuple[object, ...]", value)
        return f"({', '.join(map(_shown, items))}{',' if len(items) == 1 else ''})"
    if type(value) is dict:
        pairs = cast("dict[object, object]", value).items()
        return f"{{{', '.join(f'{key!r}: {_shown(item)}' for key, item in pairs)}}}"
    return repr(value)


def html_table(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """Return a table of names and values for a notebook.

    Args:
        title: The title of the table.
        rows: The names and their values; a row without a value is omitted.

    Returns:
        The HTML. Names and values are escaped.
    """
    lines = "".join(
        f"<tr><th style='text-align: left'>{escape(name)}</th>"
        f"<td style='text-align: left'>{escape(_for_people(value))}</td></tr>"
        for name, value in rows
        if value not in (None, "", ())
    )
    return f"<table><caption>{escape(title)}</caption>{lines}</table>"


def html_text(text: str, below: str) -> str:
    """Return a preformatted text for a notebook, with a small line below.

    Args:
        text: The text.
        below: The small line.

    Returns:
        The HTML. Both texts are escaped.
    """
    return (
        f"<div><pre style='white-space: pre-wrap'>{escape(text)}</pre>"
        f"<div style='font-size: smaller; opacity: 0.7'>{escape(below)}</div></div>"
    )


def _for_people(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "; ".join(map(str, cast("Sequence[object]", value)))
    return str(value)
