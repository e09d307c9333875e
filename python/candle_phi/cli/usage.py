"""What is said of a command line that cannot be meant: what was expected, what was found, and what was meant."""

from collections.abc import Iterable, Sequence
from typing import Any

import typer

from candle_phi import _checks

# Arguments that elsewhere are options, and what llama.cpp calls options of ours.
_ARGUMENTS = {"model": "file", "m": "file", "p": "prompt", "n": "name"}
_SHORT = {"c": "n_ctx", "s": "seed", "t": "n_threads"}
_COMMANDS = {"delete": "remove", "get": "download", "pull": "download", "rm": "remove", "run": "chat"}
# More than these are no suggestion.
_MANY = 3


def message(error: typer.TyperException) -> str:
    """What was wrong, and where to read how it is meant.

    Args:
        error: What the reading of the command line raised.

    Returns:
        A sentence.
    """
    context: Any = getattr(error, "ctx", None)
    if hasattr(error, "possibilities") and context is not None:
        text = _no_such_option(error.option_name, context)  # type: ignore[attr-defined] # such an error has it
    else:
        error.message = _of_a_number(error.__cause__) or error.message
        # The prefix is that of the library that looked at the value.
        text = error.format_message().replace(": Value error, ", ": ", 1).rstrip(".")
    command = "candle-phi" if context is None else context.command_path
    return f"{text[:1].lower()}{text[1:]} (see '{command} --help')"


def unexpected(words: Sequence[str], context: Any) -> str:
    """What is said of arguments that are too many.

    Args:
        words: The arguments.
        context: The command's context.

    Returns:
        A sentence.
    """
    text = f"unexpected argument {words[0]!r}"
    prompt = context.params.get("prompt")
    if prompt is None:
        return text
    if str(prompt).endswith(".gguf"):
        return f"{text}: a model's file is written behind --model"
    return f"{text}: a prompt of several words is written in quotes"


def no_such_command(name: str, context: Any) -> str:
    """What is said of a command that does not exist.

    Args:
        name: What was written.
        context: The context of the group that should have it.

    Returns:
        A sentence.
    """
    text = f"no such command {name!r}"
    root, path, commands = context.find_root(), context.command_path, context.command.commands
    if name == "help":
        return text
    if name in {"list", "ls"}:
        return f"{text}: '{root.info_name} models' lists the models"
    everywhere = root.command.commands
    meant = _COMMANDS.get(name) or (name if name in everywhere else _checks.closest(name, commands))
    if meant in commands:
        return f"{text}: did you mean '{path} {meant}'?"
    return f"{text}: did you mean '{root.info_name} {meant}'?" if meant in everywhere else text


def _no_such_option(word: str, context: Any) -> str:
    text = f"no such option {word}"
    name, options = _name(word), _options(context.command)
    for parameter in context.command.params:
        if parameter.param_type_name == "argument" and parameter.name == _ARGUMENTS.get(name, name):
            return f"{text}: {parameter.metavar or parameter.name.upper()} is written without an option"
    meant = _meant(name, options)
    if meant:
        return f"{text}: did you mean {_listed(meant, 'or')}?"
    commands = getattr(context.find_root().command, "commands", {})
    others = [other for other, command in commands.items() if word in _options(command).values()]
    if others:
        return f"{text}: {_listed(others, 'and')} {'has' if len(others) == 1 else 'have'} it"
    closest = _checks.closest(name, options)
    return text if closest is None else f"{text}: did you mean {options[closest]}?"


def _meant(name: str, options: dict[str, str]) -> list[str]:
    """The options that a name surely stands for."""
    if name in options:
        return [options[name]]
    other = _SHORT.get(name) or _checks.called_elsewhere(name, options)
    if other in options:
        return [options[other]]
    begin_so = [option for known, option in options.items() if known.startswith(name)]
    return begin_so if len(begin_so) <= _MANY else []


def _options(command: Any) -> dict[str, str]:
    """A command's options by their names in Python."""
    options = (parameter for parameter in command.params if parameter.param_type_name == "option")
    return {
        _name(word): word
        for option in options
        for word in (*option.opts, *option.secondary_opts)
        if word.startswith("--")
    }


def _name(word: str) -> str:
    return word.lstrip("-").replace("-", "_").lower()


def _listed(words: Iterable[str], conjunction: str) -> str:
    *first, last = words
    return f"{', '.join(first)} {conjunction} {last}" if first else last


def _of_a_number(cause: BaseException | None) -> str | None:
    """What is wrong with a number, where the library that read it says what it found."""
    errors: Any = getattr(cause, "errors", None)
    if errors is None:
        return None
    found = errors()[0]
    kind, value, bounds = str(found["type"]), found["input"], found.get("ctx", {})
    if kind.startswith("int_"):
        return f"expected a whole number, found {value!r}"
    if kind.startswith(("float_", "finite_")):
        return f"expected a number, found {value!r}"
    if kind == "greater_than_equal":
        return f"must be at least {bounds['ge']}, got {value}"
    if kind == "less_than_equal":
        return f"must be at most {bounds['le']}, got {value}"
    return None
