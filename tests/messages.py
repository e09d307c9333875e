"""What tests may ask of an error's message: that it has names, keys, paths and numbers. Its English may change."""

import re


def mentions(error: BaseException, *values: object) -> None:
    """Assert that the message of `error` has each of `values`, a number not within a longer one.

    Args:
        error: What was raised.
        values: Identifiers and values that are data: names of options, keys and tensors, paths, numbers.
    """
    message = str(error)
    for value in values:
        text = str(value)
        before, after = (r"(?<![\d.])" if text[:1].isdigit() else "", r"(?!\d)" if text[-1:].isdigit() else "")
        assert re.search(before + re.escape(text) + after, message), f"{text!r} is not in: {message}"
