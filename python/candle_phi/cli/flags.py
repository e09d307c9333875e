"""The spelling of the package's options on the command line: `--n-ctx` for `n_ctx`."""

from collections.abc import Iterator
from typing import Any

from candle_phi._options import OPTIONS

# Options of the hub, by their names in the package.
HUB = {
    "filename": "file",
    "quantization": "quantization",
    "revision": "revision",
    "cache_dir": "cache_dir",
    "token": "token",
    "local_files_only": "offline",
}


def worded(error: Exception, command: Any) -> str:
    """Return an error's message with its option spelled as on the command line.

    Args:
        error: The error.
        command: The command or command group that has the option.

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
    """List the names of all options, each with its flag."""
    for parameter in command.params:
        if parameter.param_type_name == "option":
            yield parameter.name, next((word for word in parameter.opts if word.startswith("--")), "")
    for below in getattr(command, "commands", {}).values():
        yield from _flags(below)
