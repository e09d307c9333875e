"""What tests may ask of an error's message: that it has names, keys, paths and numbers. Its English may change."""

import re
from collections.abc import Iterable


def mentions(error: BaseException | str, *values: object) -> None:
    """Assert that the message of `error` has each of `values`, a number not within a longer one.

    Args:
        error: What was raised, or the text that was printed for it.
        values: Identifiers and values that are data: names of options, keys and tensors, paths, numbers.
    """
    message = str(error)
    for value in values:
        text = str(value)
        before, after = (r"(?<![\d.])" if text[:1].isdigit() else "", r"(?!\d)" if text[-1:].isdigit() else "")
        assert re.search(before + re.escape(text) + after, message), f"{text!r} is not in: {message}"


def named(error: BaseException | str, names: Iterable[str]) -> list[str]:
    """Return those of `names` that the message of `error` has as whole words, in the order of the message.

    Args:
        error: What was raised, or the text that was printed for it.
        names: The identifiers to look for: options, commands, keys.
    """
    known = set(names)
    return [word for word in re.findall(r"[\w.-]*\w", str(error)) if word in known]
