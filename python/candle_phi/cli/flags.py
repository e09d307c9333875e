"""The package's options as the command line spells them: `--n-ctx` for `n_ctx`."""

from collections.abc import Iterator
from typing import Any

from candle_phi._options import OPTIONS

# Options about the hub, by the package's name for them.
HUB = {
    "filename": "file",
    "quantization": "quantization",
    "revision": "revision",
    "cache_dir": "cache_dir",
    "token": "token",
    "local_files_only": "offline",
}


def worded(error: Exception, command: Any) -> str:
    """An error's message, in which the option that it is about is spelled as on the command line.

    Args:
        error: The error.
        command: The command, or the group of commands, which has the option.

    Returns:
        The message.
    """
    text = str(error)
    option: str = getattr(error, "option", None) or ""
    if not option or not text.startswith(f"{option} "):
        return text
    flag = dict(_flags(command)).get(HUB.get(option, option))
    if flag is None:
        return text
    known = OPTIONS.get(option)
    if known is not None and known.unset is not None:
        text = text.replace(f"; use None for {known.unset}", f"; leave it out for {known.unset}")
    return flag + text.removeprefix(option)


def _flags(command: Any) -> Iterator[tuple[str, str]]:
    """The names of all options, each with the word for it."""
    for parameter in command.params:
        if parameter.param_type_name == "option":
            yield parameter.name, next((word for word in parameter.opts if word.startswith("--")), "")
    for below in getattr(command, "commands", {}).values():
        yield from _flags(below)
