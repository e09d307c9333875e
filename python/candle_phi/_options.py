"""The options of generations, sessions and loading, from the engine's table."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar, cast

from candle_phi import _checks, _native

_P = ParamSpec("_P")
_R = TypeVar("_R")

Scope: TypeAlias = Literal["generation", "session", "loading"]
"""The scope of an option."""

OPTIONS = {option.name: option for option in _native.options()}


def names(scope: Scope) -> tuple[str, ...]:
    """Return the names of a scope's options, in the order of the table.

    Args:
        scope: The scope.

    Returns:
        The names.
    """
    return tuple(option.name for option in OPTIONS.values() if option.scope == scope)


def value(name: str, given: object) -> Any:
    """Convert an option's value to the type that the engine takes.

    Args:
        name: The option.
        given: The caller's value. None stands for the default.

    Returns:
        The converted value.

    Raises:
        InvalidOptionError: The value is out of the option's range.
        TypeError: The value is of the wrong type.
    """
    option = OPTIONS[name]
    if given is None:
        return option.default
    converted = _CONVERSIONS[option.kind](option, given)
    _native.check_option(name, converted)
    return converted


def spelled_out(options: Iterable[str]) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Make `help` and `inspect.signature` show the keywords that a function takes with ``**options``.

    Args:
        options: The keywords.

    Returns:
        A decorator.
    """

    def spells_out(function: Callable[_P, _R]) -> Callable[_P, _R]:
        shown = inspect.signature(function)
        named = [parameter for parameter in shown.parameters.values() if parameter.kind != parameter.VAR_KEYWORD]
        keywords = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_default(name)) for name in options
        ]
        cast("Any", function).__signature__ = shown.replace(parameters=[*named, *keywords])
        return function

    return spells_out


def _default(name: str) -> object:
    return OPTIONS[name].default if name in OPTIONS else None


def _number(kind: type[int] | type[float]) -> Callable[[_native.OptionSpec, object], object]:
    what = "an integer" if kind is int else "a number"

    def convert(option: _native.OptionSpec, given: object) -> object:
        number = _checks.as_number(given, kind)
        if number is None:
            note = f" ({option.note})" if option.note else ""
            remedy = f"; use None for {option.unset}" if option.unset else ""
            found = f"{given!r} of type {_checks.type_name(given)}"
            raise TypeError(f"{option.name} must be {what}{note}, got {found}{remedy}")
        return number

    return convert


def _choice(option: _native.OptionSpec, given: object) -> object:
    if not isinstance(given, str):
        listed = ", ".join(f'"{choice}"' for choice in option.choices)
        raise TypeError(f"{option.name} must be one of {listed}, got {given!r} of type {_checks.type_name(given)}")
    return _checks.as_text(given, option.name)


def _bool_or_function(option: _native.OptionSpec, given: object) -> object:
    if isinstance(given, bool):
        return given
    if not callable(given):
        found = f"{given!r} of type {_checks.type_name(given)}"
        raise TypeError(f"{option.name} must be True, False or a function, got {found}")
    return _checks.optional_function(given, option.name)


_CONVERSIONS: dict[str, Callable[[_native.OptionSpec, object], object]] = {
    "int": _number(int),
    "float": _number(float),
    "bool": lambda option, given: _checks.as_bool(given, option.name),
    "text": lambda option, given: _checks.as_text(given, option.name),
    "choice": _choice,
    "texts": lambda _option, given: _checks.stop_texts(given),
    "token_ids": lambda option, given: tuple(_checks.token_ids(given, option.name)),
    "biases": lambda _option, given: _checks.logit_biases(given),
    "path": lambda option, given: _checks.as_path(given, option.name),
    "function": lambda option, given: _checks.optional_function(given, option.name),
    "bool_or_function": _bool_or_function,
}
