"""Checks of callers' arguments. Each error says what was expected, what was found and what to do."""

import difflib
import inspect
import math
import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec, SupportsFloat, SupportsIndex, TypeVar, cast

from candle_phi import _foreign
from candle_phi._frozen import FrozenDict
from candle_phi.exceptions import InputTypeError, InvalidOptionError

_P = ParamSpec("_P")
_R = TypeVar("_R")

TOKEN_ID_MAX = 2**32 - 1
COUNT_MAX = 2**32 - 1
# The similarity from which a word is suggested in place of another, from 0 to 1.
_ALIKE = 0.78


def type_name(value: object) -> str:
    """Return the name of a value's type, for a message."""
    return type(value).__name__


def called_elsewhere(name: str, known: Iterable[str]) -> str | None:
    """Return the option for which other libraries use a name.

    Args:
        name: The name in other libraries.
        known: The options to choose from.

    Returns:
        The option; None if the name is not known.
    """
    ours = _foreign.OPTIONS.get(name)
    return ours if ours in tuple(known) else None


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to a given one.

    Args:
        name: The given name.
        known: The names to choose from.

    Returns:
        The most similar name; None if no name is similar enough.
    """
    return next(iter(difflib.get_close_matches(name, tuple(known), n=1, cutoff=_ALIKE)), None)


def invalid(option: str, problem: str) -> InvalidOptionError:
    """Create the error for a value that is out of its range.

    Args:
        option: The name of the option or argument, or of a part of one.
        problem: What is wrong, what was found, and what to do.

    Returns:
        The error. Its message consists of the name and the problem.
    """
    return InvalidOptionError(f"{option} {problem}", option if option.isidentifier() else None)


def check_keywords(
    function: str, given: Iterable[str], known: Iterable[str], belongs: Mapping[str, str] | None = None
) -> None:
    """Refuse keywords that do not exist, with a hint for each.

    Args:
        function: The name of the called function, for the message.
        given: The caller's keywords.
        known: The keywords of the function.
        belongs: The hints for keywords that belong to another function.

    Raises:
        TypeError: A keyword does not exist. All such keywords are named.
    """
    known = tuple(known)
    wrong = [name for name in given if name not in known]
    if not wrong:
        return

    def hint(name: str) -> str | None:
        meant = called_elsewhere(name, known)
        told = None if meant else (belongs or {}).get(name) or _foreign.advice(function, name)
        meant = meant or (None if told else closest(name, known))
        return f"did you mean {meant!r}?" if meant else told

    has = f"it has {', '.join(sorted(known))}"
    hints = {name: hint(name) for name in wrong}
    if len(wrong) == 1:
        raise TypeError(f"{function}() has no option {wrong[0]!r}: {hints[wrong[0]] or has}")
    listed = ", ".join(f"{name!r}" if told is None else f"{name!r} ({told})" for name, told in hints.items())
    raise TypeError(f"{function}() has no options {listed}" + (f"; {has}" if None in hints.values() else ""))


def suggests_keywords(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Make a function suggest the right keyword if it is given an unknown one.

    Args:
        function: A function with a plain signature, without ``**``.

    Returns:
        The function, with the better message.
    """
    return suggests_keywords_and(())(function)


def suggests_keywords_and(
    options: Iterable[str], belongs: Mapping[str, str] | None = None
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Do the same as `suggests_keywords`, for a function with ``**options``.

    The check precedes Python's own, so that another library's name for an argument is reported rather than the
    missing argument.

    Args:
        options: The keywords that ``**options`` accepts.
        belongs: The hints for keywords that belong to another function.

    Returns:
        A decorator.
    """

    def suggests(function: Callable[_P, _R]) -> Callable[_P, _R]:
        parameters = inspect.signature(function).parameters.values()
        named = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
        known = [name for name in (*named, *options) if name not in ("self", "cls")]
        name = function.__qualname__.removesuffix(".__init__").removesuffix(".__new__")

        @wraps(function)
        def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            check_keywords(name, kwargs, known, belongs)
            return function(*args, **kwargs)

        return checked

    return suggests


def whole(value: object, name: str, least: int = 0, most: int = COUNT_MAX) -> int:
    """Check that a value is an integer in a range.

    Args:
        value: The caller's value.
        name: The argument's name, for the message.
        least: The smallest valid value.
        most: The largest valid value.

    Returns:
        The number.

    Raises:
        InvalidOptionError: The value is out of the range.
        TypeError: The value is not an integer.
    """
    number = as_number(value, int)
    if number is None:
        raise TypeError(
            f"{name} must be an integer from {least} to {most}, got {value!r} of type {type_name(value)}"
        )
    if not least <= number <= most:
        raise invalid(name, f"must be an integer from {least} to {most}, got {value!r}")
    return int(number)


def finite(value: object, name: str, least: float = -math.inf) -> float:
    """Check that a value is a finite number.

    Args:
        value: The caller's value.
        name: The argument's name, for the message.
        least: The smallest valid value.

    Returns:
        The number.

    Raises:
        InvalidOptionError: The value is too small, infinite or NaN.
        TypeError: The value is of another type.
    """
    what = "a finite number" if least == -math.inf else f"a finite number of at least {least:g}"
    number = as_number(value, float)
    if number is None:
        raise TypeError(f"{name} must be {what}, got {value!r} of type {type_name(value)}")
    if not (math.isfinite(number) and number >= least):
        raise invalid(name, f"must be {what}, got {value!r}")
    return float(number)


def as_number(value: object, kind: type[int] | type[float]) -> float | int | None:
    """Convert a value to a Python number. numpy's scalars are accepted, a bool is not.

    Args:
        value: The caller's value.
        kind: int, or float, which accepts an int too.

    Returns:
        The number, or None if the value is not of that kind.
    """
    # numpy's bool has `__float__`, and `__index__` in some versions.
    if isinstance(value, bool) or type(value).__name__ in {"bool", "bool_"}:
        return None
    try:
        if isinstance(value, SupportsIndex):
            return _float(operator.index(value)) if kind is float else operator.index(value)
        if kind is float and isinstance(value, SupportsFloat):
            return _float(value)
    # An array of several numbers, or a Decimal that is a signaling NaN.
    except (TypeError, ValueError):
        pass
    return None


def _float(value: SupportsFloat) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, 1 if cast("int", value) > 0 else -1)


def as_bool(value: object, name: str) -> bool:
    """Check that a value is a bool.

    Args:
        value: The caller's value.
        name: The option's name, for the message.

    Returns:
        The value.

    Raises:
        TypeError: The value is of another type.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r} of type {type_name(value)}")
    return value


def as_text(value: object, name: str, wrong_type: type[TypeError] = TypeError) -> str:
    """Check that a value is text that can be encoded.

    Args:
        value: The caller's value.
        name: The argument's name, for the message.
        wrong_type: The error for another type; `InputTypeError` for an argument that is data.

    Returns:
        The value.

    Raises:
        InvalidOptionError: The text contains a lone surrogate, which is not a character.
        TypeError: The value is not a str.
    """
    if not isinstance(value, str):
        raise wrong_type(f"{name} must be a str, got {type_name(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise invalid(
            name,
            f"must be text that can be encoded, got the lone surrogate {value[error.start]!r} at index "
            f"{error.start}; decode the text with its encoding, or replace the bytes that cannot be decoded",
        ) from None
    return value


def optional_text(value: object, name: str) -> str | None:
    """Check that a value is None or text that can be encoded.

    Args:
        value: The caller's value.
        name: The argument's name, for the message.

    Returns:
        The value.

    Raises:
        InvalidOptionError: The text contains a lone surrogate, which is not a character.
        TypeError: The value is neither a str nor None.
    """
    return None if value is None else as_text(value, name)


def optional_function(value: object, name: str) -> Callable[..., Any] | None:
    """Check that a value is None or a plain function.

    Args:
        value: The caller's value.
        name: The option's name, for the message.

    Returns:
        The value.

    Raises:
        TypeError: The value is of another type, or a coroutine function.
    """
    if value is None:
        return None
    if not callable(value):
        raise TypeError(f"{name} must be a function or None, got {value!r} of type {type_name(value)}")
    if inspect.iscoroutinefunction(value):
        raise TypeError(f"{name} must be a plain function, got a coroutine function, which would not be awaited")
    return value


def each(value: object, name: str, convert: Callable[[Any], _R]) -> list[_R]:
    """Convert the items of a sequence.

    Args:
        value: The caller's value.
        name: The argument's name, for the message.
        convert: The function that converts an item.

    Returns:
        The converted items.

    Raises:
        TypeError: The value is not a sequence.
    """
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a sequence, got {type_name(value)}")
    return [convert(item) for item in cast("Iterable[object]", value)]


def as_path(value: object, name: str) -> str:
    """Convert a value to a path.

    Args:
        value: The caller's value.
        name: The argument's name, for the message.

    Returns:
        The path.

    Raises:
        InvalidOptionError: The path is empty or contains a NUL character.
        TypeError: The value is not a path.
    """
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a str or an os.PathLike, got {type_name(value)}")
    path = os.fsdecode(cast("str | os.PathLike[str]", value))
    if not path or "\0" in path:
        raise invalid(name, f"must be the path of a file, got {path!r}")
    return path


def input_tokens(
    value: object, name: str, vocabulary_size: int, expected: str = "a sequence of token ids"
) -> list[int]:
    """Do the same as `token_ids`, for an argument that is data: a wrong type raises an `InputTypeError`."""
    return token_ids(value, name, vocabulary_size, InputTypeError, expected)


def token_ids(
    value: object,
    name: str,
    vocabulary_size: int = TOKEN_ID_MAX + 1,
    wrong_type: type[TypeError] = TypeError,
    expected: str = "a sequence of token ids",
) -> list[int]:
    """Convert a value to token ids.

    Args:
        value: The caller's value: a sequence of integers, for example a numpy array.
        name: The argument's name, for the message.
        vocabulary_size: The number of tokens in the vocabulary.
        wrong_type: The error for another type.
        expected: The expected value, for the message.

    Returns:
        The ids.

    Raises:
        InvalidOptionError: An id is not in the vocabulary.
        TypeError: The value is not a sequence of integers.
    """
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise wrong_type(f"{name} must be {expected}, got {type_name(value)}")
    ids: list[int] = []
    for index, item in enumerate(cast("Iterable[object]", value)):
        number = as_number(item, int)
        if number is None:
            raise wrong_type(
                f"{name} must hold token ids, got {item!r} of type {type_name(item)} at index {index}"
            )
        if not 0 <= number < vocabulary_size:
            raise invalid(
                name, f"must have token ids from 0 to {vocabulary_size - 1}, got {number} at index {index}"
            )
        ids.append(int(number))
    return ids


def stop_texts(value: object) -> tuple[str, ...] | None:
    """Convert a value to stop texts.

    Args:
        value: The caller's value.

    Returns:
        The texts, or None if there are none.

    Raises:
        InvalidOptionError: A text cannot be encoded.
        TypeError: The value is neither a str nor a sequence of str.
    """
    if value is None:
        return None
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise TypeError(f"stop must be a str, a sequence of str or None, got {type_name(value)}")
    texts = (value,) if isinstance(value, str) else tuple(cast("Iterable[object]", value))
    checked = tuple(as_text(text, "stop") for text in texts)
    return checked or None


def logit_biases(value: object) -> FrozenDict[int, float] | None:
    """Convert a value to an immutable mapping of token ids to biases.

    Args:
        value: The caller's value.

    Returns:
        The biases.

    Raises:
        InvalidOptionError: A key is not a token id.
        TypeError: The value is not a mapping of integers to numbers.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"logit_bias must map token ids to numbers, got {type_name(value)}")
    mapping = cast("Mapping[object, object]", value)
    keys = token_ids(list(mapping), "logit_bias")
    biases: dict[int, float] = {}
    for key, bias in zip(keys, mapping.values(), strict=True):
        number = as_number(bias, float)
        if number is None:
            raise TypeError(f"logit_bias must map token ids to numbers, got {bias!r} of type {type_name(bias)}")
        biases[key] = float(number)
    return FrozenDict(biases)
