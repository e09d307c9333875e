"""The package's messages in the words of the command line: `--n-ctx` where Python says ``n_ctx``.

In a chat, what `/set` sets has the names that it has there.
"""

import re
from collections.abc import Callable
from typing import TypeAlias

from candle_phi.cli.sampling import SETTINGS
from candle_phi.config import GenerationOptions, SessionOptions

_HUB = {"filename": "file", "local_files_only": "offline", "cache_dir": "cache-dir"}
_SIMPLE = ("quantization", "revision", "token", "prefill", "depth", "decode_tokens")
_NAMES = (*GenerationOptions.__annotations__, *SessionOptions.__annotations__, *_SIMPLE)
_FLAGS = {**{name: name.replace("_", "-") for name in _NAMES}, **_HUB}
# Ways out that are calls in Python.
_PHRASES = {
    "or a model's name to from_pretrained()": "or fetch a model with 'candle-phi download NAME'",
    "use generate() with a prompt of your own": "use candle-phi generate --raw with a prompt of your own",
    " or None": "",
}

_Replacement: TypeAlias = Callable[[re.Match[str]], str]

_NAME = "|".join(sorted(_FLAGS, key=len, reverse=True))
# Neither a part of a path nor of another word, and nothing that somebody wrote.
_BEFORE = r"(?<![\w./\\'-])"
_ALONE = rf"{_BEFORE}(?P<name>{_NAME})(?![\w/\\-]|\.\w)"
_GIVEN = re.compile(_ALONE + r'=(?:"(?P<value>[^"]*)"|(?P<flag>True|False))')
# At the beginning it is what the message is about.
_SUBJECT = re.compile(_ALONE.replace(_BEFORE, "^") + r"(?= must |: )")
# In the middle, only what no sentence has as a word.
_WORD = re.compile(rf"{_BEFORE}(?P<name>{'|'.join(name for name in _FLAGS if '_' in name)})(?![\w/\\-]|\.\w)")
_TYPE = re.compile(r" of type \w+$")


def of_the_command_line(message: str) -> str:
    """A message of the package for somebody who sits at a shell.

    Args:
        message: The message, which names keywords of Python.

    Returns:
        The same, with the options of the command line in their place.
    """
    return _said(message, _option, _given)


def of_the_chat(message: str) -> str:
    """A message of the package for somebody who talks with a model, and can set some options there.

    Args:
        message: The message, which names keywords of Python.

    Returns:
        The same: names that `/set` has stay, and for the others there are the options that a chat begins with.
    """

    def named(match: re.Match[str]) -> str:
        return match["name"] if match["name"] in SETTINGS else _option(match)

    def given(match: re.Match[str]) -> str:
        return f"/set {match['name']} {match['value']}" if match["name"] in SETTINGS else _given(match)

    return _said(_TYPE.sub("", message), named, given)


def _said(message: str, named: _Replacement, given: _Replacement) -> str:
    for phrase, replacement in _PHRASES.items():
        message = message.replace(phrase, replacement)
    message = _GIVEN.sub(given, message)
    message = _SUBJECT.sub(named, message)
    return _WORD.sub(named, message)


def _option(match: re.Match[str]) -> str:
    return f"--{_FLAGS[match['name']]}"


def _given(match: re.Match[str]) -> str:
    if match["flag"] is None:
        return f"{_option(match)} {match['value']}"
    return _option(match) if match["flag"] == "True" else f"--no-{_FLAGS[match['name']]}"
