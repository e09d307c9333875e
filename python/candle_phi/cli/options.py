"""Options that several commands share."""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from candle_phi import trace
from candle_phi._options import OPTIONS, Scope
from candle_phi.cli import complete, console
from candle_phi.config import Executor
from candle_phi.types import Isa, KvDtype

_Group = TypeVar("_Group")
_COMPLETIONS: dict[str, Callable[..., Any]] = {"device": complete.devices}
# The types of values on the command line, by the kinds of the option table.
_TYPES: dict[str, Any] = {
    "int": int,
    "float": float,
    "bool": bool,
    "bool_or_function": bool,
    "text": str,
    "texts": list[str],
    "path": Path,
}


def _set_debug(value: bool) -> bool:
    if value:
        console.debug = True
    return value


MODEL_HELP = "A GGUF file, a named model ('candle-phi models'), or OWNER/REPO:QUANTIZATION."

Debug = Annotated[
    bool, typer.Option("--debug", callback=_set_debug, is_eager=True, help="Show the traceback of an error.")
]
Model = Annotated[
    str | None,
    typer.Argument(
        help=MODEL_HELP,
        metavar="MODEL",
        show_default=False,
    ),
]
Demo = Annotated[bool, typer.Option("--demo", help="Use the embedded toy model instead of a file.")]
Quantization = Annotated[
    str | None,
    typer.Option(
        help="The quantization of a named model or a repository, for example Q5_K_M.",
        autocompletion=complete.quantizations,
    ),
]
File = Annotated[
    str | None, typer.Option("--file", help="The file in the repository.", autocompletion=complete.files)
]
Revision = Annotated[str | None, typer.Option(help="A branch, tag or commit of the repository.")]
CacheDir = Annotated[
    Path | None, typer.Option(help="The hub cache.  [default: the cache of Hugging Face's tools]")
]
Token = Annotated[
    str | None, typer.Option(help="A hub token.  [default: HF_TOKEN, or the token of 'hf auth login']")
]
Offline = Annotated[bool, typer.Option("--offline", help="Use only the cache; do not connect to the hub.")]
System = Annotated[str | None, typer.Option(help="A system message before the prompt.")]
Stats = Annotated[bool, typer.Option("--stats", help="Print counts and speeds to stderr at the end.")]
Trace = Annotated[
    Path | None,
    typer.Option(
        help="Write a trace of the computation to this file, for https://ui.perfetto.dev.", metavar="FILE"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def of_table(name: str, *, unset: str | None = None) -> Any:
    """Create the command line's option for an option of the package's table.

    Args:
        name: The option.
        unset: The description of its default. None: that of the table.

    Returns:
        The option, as typer takes it.
    """
    option = OPTIONS[name]
    flag = f"--{name.replace('_', '-')}"
    if option.default is True:
        flag = f"{flag}/--no-{name.replace('_', '-')}"
    text = option.help.removesuffix(".") + (f"; {option.note}." if option.note else ".")
    if option.kind == "texts":
        text += " May be repeated."
    default = unset or option.unset or option.default
    shown = "" if isinstance(default, bool) else f"  [default: {default}]"
    return typer.Option(flag, metavar=option.metavar, help=text + shown, autocompletion=_COMPLETIONS.get(name))


def group(*scopes: Scope) -> Callable[[type[_Group]], type[_Group]]:
    """Make a class a group of options: its own, and those of the package's table that the command line has.

    Args:
        scopes: The scopes of the options in the table.

    Returns:
        A decorator, which makes the class a dataclass.
    """

    def grouped(cls: type[_Group]) -> type[_Group]:
        own = inspect.get_annotations(cls)
        names = _names(*scopes)
        cls.__annotations__ = {name: Annotated[_type(name), of_table(name)] for name in names} | own
        for name in names:
            setattr(cls, name, None)
        return dataclass(frozen=True, kw_only=True)(cls)

    return grouped


def given(group: object, *scopes: Scope) -> dict[str, Any]:
    """Return the given options of the table as keywords; the package has the defaults.

    Args:
        group: The values of a group of options.
        scopes: The scopes of the options in the table.

    Returns:
        The keywords.
    """
    values = {name: getattr(group, name) for name in _names(*scopes)}
    return {name: value for name, value in values.items() if value not in (None, [])}


def _names(*scopes: Scope) -> list[str]:
    return [option.name for option in OPTIONS.values() if option.scope in scopes and "cli" in option.interfaces]


def _type(name: str) -> Any:
    option = OPTIONS[name]
    kind: Any = Literal[tuple(option.choices)] if option.kind == "choice" else _TYPES[option.kind]
    return kind | None


ContextLength = Annotated[int | None, of_table("n_ctx")]
KvCache = Annotated[KvDtype | None, of_table("kv_dtype")]
SlidingWindow = Annotated[int | None, of_table("sliding_window")]
Device = Annotated[str | None, of_table("device")]
WhatComputes = Annotated[Executor | None, of_table("executor")]
Threads = Annotated[int | None, of_table("n_threads")]
InstructionSet = Annotated[Isa | None, of_table("isa")]


def traced(path: Path | None) -> AbstractContextManager[None]:
    """Return a context manager that writes a trace to the path of --trace, if it is given."""
    return nullcontext() if path is None else trace(path)
