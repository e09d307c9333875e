"""The checks on what callers give: each says what was expected, what was found and what to do."""

import difflib
import inspect
import math
import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec, SupportsFloat, SupportsIndex, TypeVar, cast

from candle_phi import _foreign
from candle_phi.exceptions import InputTypeError, InvalidOptionError

_P = ParamSpec("_P")
_R = TypeVar("_R")

TOKEN_ID_MAX = 2**32 - 1
COUNT_MAX = 2**32 - 1
# How alike two words must be for one to be suggested in place of the other, from 0 to 1.
_ALIKE = 0.78


def type_name(value: object) -> str:
    """What a value is, for a message."""
    return type(value).__name__


def called_elsewhere(name: str, known: Iterable[str]) -> str | None:
    """The option that other libraries call by a name.

    Args:
        name: The name.
        known: The options to choose from.

    Returns:
        The option; None if no option is called so.
    """
    ours = _foreign.OPTIONS.get(name)
    return ours if ours in tuple(known) else None


def closest(name: str, known: Iterable[str]) -> str | None:
    """The name that is most like another.

    Args:
        name: The other.
        known: The names to choose from.

    Returns:
        The name; None if none of them is so like it that it was surely meant.
    """
    return next(iter(difflib.get_close_matches(name, tuple(known), n=1, cutoff=_ALIKE)), None)


def invalid(option: str, problem: str) -> InvalidOptionError:
    """The error for a value that is out of its range.

    Args:
        option: The name of the option or argument, or of a part of one.
        problem: What is wrong, what was found, and what to do.

    Returns:
        The error. Its message is the name and the problem.
    """
    return InvalidOptionError(f"{option} {problem}", option if option.isidentifier() else None)


def check_keywords(
    function: str, given: Iterable[str], known: Iterable[str], belongs: Mapping[str, str] | None = None
) -> None:
    """Refuse keywords that do not exist, and say what to do instead of each.

    Args:
        function: What was called, for the message.
        given: The keywords it was given.
        known: The keywords that it has.
        belongs: What to do with keywords that another function has.

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
    """Makes a function say what was meant when it is given a keyword that it doesn't have.

    Args:
        function: A function with a plain signature, without ``**``.

    Returns:
        The same function, with the better message.
    """
    return suggests_keywords_and(())(function)


def suggests_keywords_and(
    options: Iterable[str], belongs: Mapping[str, str] | None = None
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """As `suggests_keywords`, for a function that takes more of them with ``**options``.

    It looks before Python does: another library's word for an argument comes before that the argument is missing.

    Args:
        options: The keywords that ``**options`` may have.
        belongs: What to do with keywords that another function has.

    Returns:
        What makes a function such a one.
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
    """The value, if it is a whole number of a range.

    Args:
        value: What was given.
        name: The argument's name, for the message.
        least: The smallest.
        most: The largest.

    Returns:
        The number.

    Raises:
        InvalidOptionError: It is out of the range.
        TypeError: It is not a whole number.
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
    """The value, if it is a finite number.

    Args:
        value: What was given.
        name: The argument's name, for the message.
        least: The smallest.

    Returns:
        The number.

    Raises:
        InvalidOptionError: It is smaller, infinite or not a number.
        TypeError: It is of another type.
    """
    what = "a finite number" if least == -math.inf else f"a finite number of at least {least:g}"
    number = as_number(value, float)
    if number is None:
        raise TypeError(f"{name} must be {what}, got {value!r} of type {type_name(value)}")
    if not (math.isfinite(number) and number >= least):
        raise invalid(name, f"must be {what}, got {value!r}")
    return float(number)


def as_number(value: object, kind: type[int] | type[float]) -> float | int | None:
    """A Python number from anything that stands for one, numpy's scalars included; a bool is none.

    Args:
        value: What was given.
        kind: int, or float, which takes an int too.

    Returns:
        The number, or None if it is none of that kind.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, SupportsIndex):
        return _float(operator.index(value)) if kind is float else operator.index(value)
    if kind is float and isinstance(value, SupportsFloat):
        return float(value)
    return None


def _float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def as_bool(value: object, name: str) -> bool:
    """The value, if it is a bool.

    Args:
        value: What was given.
        name: The option's name, for the message.

    Returns:
        The same.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r} of type {type_name(value)}")
    return value


def as_text(value: object, name: str, wrong_type: type[TypeError] = TypeError) -> str:
    """The value, if it is text that has an encoding.

    Args:
        value: What was given.
        name: The argument's name, for the message.
        wrong_type: The error for another type; `InputTypeError` for an argument that is data.

    Returns:
        The same.

    Raises:
        InvalidOptionError: It has half of a surrogate pair, which is no character.
        TypeError: It is not a str.
    """
    if not isinstance(value, str):
        raise wrong_type(f"{name} must be a str, got {type_name(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise invalid(
            name,
            f"must be text that can be encoded, got the lone surrogate {value[error.start]!r} at index "
            f"{error.start}; decode the text with its encoding, or replace what cannot be decoded",
        ) from None
    return value


def optional_text(value: object, name: str) -> str | None:
    """The value, if it is None or text that has an encoding.

    Args:
        value: What was given.
        name: The argument's name, for the message.

    Returns:
        The same.

    Raises:
        InvalidOptionError: It has half of a surrogate pair, which is no character.
        TypeError: It is neither a str nor None.
    """
    return None if value is None else as_text(value, name)


def optional_function(value: object, name: str) -> Callable[..., Any] | None:
    """The value, if it is None or a function that is done when it returns.

    Args:
        value: What was given.
        name: The option's name, for the message.

    Returns:
        The same.

    Raises:
        TypeError: It is something else, or a coroutine function.
    """
    if value is None:
        return None
    if not callable(value):
        raise TypeError(f"{name} must be a function or None, got {value!r} of type {type_name(value)}")
    if inspect.iscoroutinefunction(value):
        raise TypeError(f"{name} must be a plain function, got a coroutine function: nobody would await it")
    return value


def each(value: object, name: str, convert: Callable[[Any], _R]) -> list[_R]:
    """The value's items, converted.

    Args:
        value: What was given.
        name: The argument's name, for the message.
        convert: What makes an item of one.

    Returns:
        The items.

    Raises:
        TypeError: It is no sequence.
    """
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a sequence, got {type_name(value)}")
    return [convert(item) for item in cast("Iterable[object]", value)]


def as_path(value: object, name: str) -> str:
    """The value as a path.

    Args:
        value: What was given.
        name: The argument's name, for the message.

    Returns:
        The path.

    Raises:
        InvalidOptionError: It is empty or has a NUL in it.
        TypeError: It is no path.
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
    """As `token_ids`, for an argument that is data: a wrong type is an `InputTypeError`."""
    return token_ids(value, name, vocabulary_size, InputTypeError, expected)


def token_ids(
    value: object,
    name: str,
    vocabulary_size: int = TOKEN_ID_MAX + 1,
    wrong_type: type[TypeError] = TypeError,
    expected: str = "a sequence of token ids",
) -> list[int]:
    """The value as token ids.

    Args:
        value: What was given: a sequence of integers, a numpy array for one.
        name: The argument's name, for the message.
        vocabulary_size: How many tokens there are.
        wrong_type: The error for another type.
        expected: What it must be, for the message.

    Returns:
        The ids.

    Raises:
        InvalidOptionError: One of them isn't in the vocabulary.
        TypeError: It is no sequence of integers.
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
    """The value as the texts that end a generation, None for none.

    Args:
        value: What was given.

    Returns:
        The texts.

    Raises:
        InvalidOptionError: One of them cannot be encoded.
        TypeError: It is neither text nor texts.
    """
    if value is None:
        return None
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise TypeError(f"stop must be a str, a sequence of str or None, got {type_name(value)}")
    texts = (value,) if isinstance(value, str) else tuple(cast("Iterable[object]", value))
    checked = tuple(as_text(text, "stop") for text in texts)
    return checked or None


def logit_biases(value: object) -> dict[int, float] | None:
    """The value as biases by token id.

    Args:
        value: What was given.

    Returns:
        The biases.

    Raises:
        InvalidOptionError: A key is not a token id.
        TypeError: It is no such mapping.
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
    return biases
