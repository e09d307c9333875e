"""Messages for usage errors: what was expected, what was found, and what was probably meant."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import typer

from candle_phi import _checks
from candle_phi.cli import foreign

# Arguments that are options in other programs, and short names of options in llama.cpp.
_ARGUMENTS = {"model": "model", "m": "model", "p": "prompt", "prompt": "prompt", "n": "name", "name": "name"}
_SHORT = {"c": "n_ctx", "s": "seed", "t": "n_threads"}
# More options than this are too many for a suggestion.
_MANY = 3


def message(error: typer.TyperException) -> str:
    """Return the message for a usage error, with a reference to the help.

    Args:
        error: The exception from parsing the command line.

    Returns:
        The message.
    """
    context: Any = getattr(error, "ctx", None)
    command = "candle-phi" if context is None else context.command_path
    if hasattr(error, "possibilities") and context is not None:
        text = _no_such_option(error.option_name, context, getattr(error, "arguments", ()))  # type: ignore[attr-defined] # such an error has it
    elif _missing_argument(error) == "name":
        text = f"missing the name of a model, as in '{command} phi-4-mini'; 'candle-phi models' lists the names"
    else:
        error.message = _of_a_number(error.__cause__) or error.message
        # The prefix comes from the library that validated the value.
        text = error.format_message().replace(": Value error, ", ": ", 1).rstrip(".")
    return f"{text[:1].lower()}{text[1:]} (see '{command} --help')"


def _missing_argument(error: typer.TyperException) -> str | None:
    """Return the name of the missing argument, or None if the error is another one."""
    parameter: Any = getattr(error, "param", None)
    return parameter.name if type(error).__name__ == "MissingParameter" and parameter is not None else None


def unexpected(words: Sequence[str], context: Any) -> str:
    """Return the message for unexpected arguments.

    Args:
        words: The arguments.
        context: The command's context.

    Returns:
        The message.
    """
    text = f"unexpected argument {words[0]!r}"
    name = context.params.get("name")
    if context.command.name == "generate":
        chosen = {option: context.params.get(option) for option in ("model", "name", "demo")}
        given = [context.params[argument] for argument in ("first", "second")]
        return f"{text}: {foreign.in_quotes([*given, *words], chosen)}"
    if context.command.name == "download" and name is not None:
        if foreign.is_quantization(words[0]):
            return f"{text}: did you mean {name}:{words[0]}?"
        if words[0].lower().endswith(".gguf"):
            return f"{text}: did you mean --file {words[0]}?"
    return text


def no_such_command(name: str, context: Any) -> str:
    """Return the message for an unknown command.

    Args:
        name: The unknown command.
        context: The context of the command group.

    Returns:
        The message.
    """
    text = f"no such command {name!r}"
    root, path, commands = context.find_root(), context.command_path, context.command.commands
    everywhere = root.command.commands
    if name in everywhere:
        return f"{text}: did you mean '{root.info_name} {name}'?"
    if context is not root and foreign.names_model(name):
        return f"{text}: {foreign.command_line('info', name)} describes a model"
    if (answer := foreign.of_command(name)) is not None:
        return f"{text}: {answer}"
    meant = _checks.closest(name, commands)
    return text if meant is None else f"{text}: did you mean '{path} {meant}'?"


def _no_such_option(word: str, context: Any, arguments: Sequence[str]) -> str:
    text = f"no such option {word}"
    name, options = _name(word), _options(context.command)
    if answer := _of_an_argument(name, context.command):
        return f"{text}: {answer}"
    value = next((after for before, after in pairwise(arguments) if before == word), None)
    if name in options:
        return f"{text}: did you mean {options[name]}?"
    if answer := foreign.of_option(name, value, options):
        return f"{text}: {answer}"
    if meant := _meant(name, options):
        return f"{text}: did you mean {_listed(meant, 'or')}?"
    commands = getattr(context.find_root().command, "commands", {})
    others = [other for other, command in commands.items() if word in _words(command)]
    if context.parent is None and (others or name in _ARGUMENTS):
        return f"{text}: options come after a command: {foreign.generate_instead(arguments)}"
    if others:
        return f"{text}: {_listed(others, 'and')} {'has' if len(others) == 1 else 'have'} it"
    closest = _checks.closest(name, options)
    return text if closest is None else f"{text}: did you mean {options[closest]}?"


def _of_an_argument(name: str, command: Any) -> str | None:
    """Return the hint for an option that the command takes as an argument."""
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    wanted = _ARGUMENTS.get(name)
    for argument in arguments:
        metavar = argument.metavar or argument.name.upper()
        if wanted is not None and wanted.upper() in metavar.upper().replace("[", " ").replace("]", " ").split():
            return f"{wanted.upper()} is written without an option"
    return None


def _meant(name: str, options: dict[str, str]) -> list[str]:
    """Return the options that a name most likely stands for."""
    other = _SHORT.get(name) or _checks.called_elsewhere(name, options)
    if other in options:
        return [options[other]]
    begin_so = [option for known, option in options.items() if known.startswith(name)]
    return begin_so if len(begin_so) <= _MANY else []


def _options(command: Any) -> dict[str, str]:
    """Return a command's options by their names in Python."""
    return {_name(word): word for word in _words(command) if word.startswith("--")}


def _words(command: Any) -> list[str]:
    """Return a command's options as they are typed, including the short ones."""
    options = (parameter for parameter in command.params if parameter.param_type_name == "option")
    return [word for option in options for word in (*option.opts, *option.secondary_opts)]


def _name(word: str) -> str:
    return word.lstrip("-").replace("-", "_").lower()


def _listed(words: Iterable[str], conjunction: str) -> str:
    *first, last = words
    return f"{', '.join(first)} {conjunction} {last}" if first else last


def _of_a_number(cause: BaseException | None) -> str | None:
    """Return the message for an invalid number, if the library that parsed it reports the value."""
    errors: Any = getattr(cause, "errors", None)
    if errors is None:
        return None
    found = errors()[0]
    kind, value, bounds = str(found["type"]), found["input"], found.get("ctx", {})
    if kind.startswith("int_"):
        return f"must be an integer, got {value!r}"
    if kind.startswith(("float_", "finite_")):
        return f"must be a number, got {value!r}"
    if kind == "greater_than_equal":
        return f"must be at least {bounds['ge']}, got {value}"
    if kind == "less_than_equal":
        return f"must be at most {bounds['le']}, got {value}"
    return None
