"""The commands of a chat: lines that begin with a slash."""

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from candle_phi import InvalidOptionError, _checks
from candle_phi._options import OPTIONS
from candle_phi.cli import console, results
from candle_phi.cli.repl.conversation import short
from candle_phi.cli.sampling import SETTINGS, defaults
from candle_phi.config import SessionOptions

if TYPE_CHECKING:
    from candle_phi.cli.repl.loop import Chat

# Accepted aliases.
_SAME = {"bye": "quit", "exit": "quit"}
# The conversions of numeric settings, by the kinds of the option table.
_NUMBERS: dict[str, tuple[Callable[[str], object], str]] = {
    "int": (int, "an integer"),
    "float": (float, "a number"),
}
# Names of commands in other programs, which are hints only.
_ELSEWHERE = {
    "?": "help",
    "clear": "reset",
    "h": "help",
    "new": "reset",
    "q": "quit",
    "regen": "retry",
    "regenerate": "retry",
}


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its arguments, its description, and its function."""

    arguments: str
    about: str
    run: Callable[["Chat", str], None]


def run(chat: "Chat", line: str) -> None:
    """Run the command of a line that begins with a slash.

    Args:
        chat: The chat.
        line: The line.

    Raises:
        InvalidOptionError: The command does not exist, or its argument is invalid.
        EOFError: The command ends the chat.
    """
    name, _, argument = line.removeprefix("/").partition(" ")
    command = COMMANDS.get(_SAME.get(name, name))
    if command is None:
        meant = _ELSEWHERE.get(name.lower()) or _checks.closest(name.lower(), COMMANDS)
        hint = "/help lists them" if meant is None else f"did you mean /{meant}?"
        raise InvalidOptionError(
            f"there is no command /{name}: {hint}; to send a message that begins with a slash, type two slashes"
        )
    argument = argument.strip()
    if argument and not command.arguments:
        raise InvalidOptionError(f"/{name} takes no argument, got {argument!r}")
    command.run(chat, argument)


def _help(_chat: "Chat", _argument: str) -> None:
    rows = [[f"/{name} {command.arguments}".rstrip(), command.about] for name, command in COMMANDS.items()]
    console.note_table(rows)
    console.note(
        "Enter sends the message. Alt-Enter starts a new line, as does Enter after a backslash or between two "
        '""". Ctrl-C stops an answer. On an empty line, Ctrl-D or a second Ctrl-C leaves the chat.'
    )


def _reset(chat: "Chat", _argument: str) -> None:
    chat.conversation.begin_anew()
    console.note(
        "conversation cleared" + ("; the system message is kept" if chat.conversation.system is not None else "")
    )


def _system(chat: "Chat", argument: str) -> None:
    chat.conversation.set_system(argument or None)
    console.note("system message set" if argument else "system message removed")


def _retry(chat: "Chat", _argument: str) -> None:
    chat.show(chat.conversation.say_again())


def _undo(chat: "Chat", argument: str) -> None:
    said = chat.conversation.take_back(_count(argument))
    console.note(f"removed: {short(said[0])}" + (f" and {len(said) - 1} more" if len(said) > 1 else ""))


def _edit(chat: "Chat", argument: str) -> None:
    last = chat.conversation.last_said
    if last is None:
        raise InvalidOptionError("no message has been sent yet: send one first")
    text = argument or chat.ask(last)
    if text.strip():
        chat.show(chat.conversation.say_again(text))


def _stats(chat: "Chat", _argument: str) -> None:
    if chat.last is not None:
        console.note(results.stats(chat.last))
    session = chat.conversation.session
    unread = ", read again with the next message" if chat.conversation.is_unread else ""
    console.note(f"context   {len(session.tokens)} of {session.n_ctx} tokens, {_turns(chat)}{unread}")


def _set(chat: "Chat", argument: str) -> None:
    name, _, value = argument.partition(" ")
    name = name.removeprefix("--").replace("-", "_")
    config = chat.conversation.config
    if not name:
        console.note_table([[setting, _written(getattr(config, setting))] for setting in SETTINGS])
        return
    if name not in SETTINGS:
        raise InvalidOptionError(_no_such_setting(name))
    if value:
        usual = getattr(defaults(chat.conversation.session.model.info.sampling), name)
        changed: dict[str, Any] = {name: _value(name, value.strip(), usual)}
        chat.conversation.config = config.replace(**changed)
    console.note(f"{name} {_written(getattr(chat.conversation.config, name))}")


def _save(chat: "Chat", argument: str) -> None:
    path = _path(argument, "/save")
    chat.conversation.save(path)
    console.note(f"saved to {path}")


def _load(chat: "Chat", argument: str) -> None:
    chat.conversation.load(_path(argument, "/load"))
    console.note(chat.conversation.summary())


def _model(chat: "Chat", _argument: str) -> None:
    session = chat.conversation.session
    info = session.model.info
    console.note_table(
        [
            ["model", f"{info.name or session.model.path.name}, {info.architecture}, {info.quantization}"],
            ["file", str(session.model.path)],
            ["parameters", console.human_count(info.parameter_count)],
            ["context", f"{session.n_ctx} of {info.context_length} tokens, in {session.config.kv_dtype}"],
            ["computed by", f"{session.model.executor} on {session.device}, {session.isa}"],
            ["threads", str(session.n_threads)],
        ]
    )


def _quit(_chat: "Chat", _argument: str) -> None:
    raise EOFError


COMMANDS = {
    "help": Command("", "list the commands", _help),
    "reset": Command("", "clear the conversation, but keep the system message", _reset),
    "system": Command("[TEXT]", "set the system message, or remove it; the conversation is kept", _system),
    "retry": Command("", "send the last message again, for another answer", _retry),
    "undo": Command("[N]", "remove the last turn, or the last N", _undo),
    "edit": Command("[TEXT]", "edit the last message, and send it again", _edit),
    "stats": Command("", "show the tokens and speeds of the last answer, and the size of the context", _stats),
    "tokens": Command("", "the same as /stats", _stats),
    "set": Command(
        "[NAME VALUE]", "set an option, as in /set temperature 0.7; without arguments, list the options", _set
    ),
    "save": Command("PATH", "save the conversation", _save),
    "load": Command("PATH", "replace this conversation with a saved one", _load),
    "model": Command("", "show the model", _model),
    "quit": Command("", "leave the chat; also /exit and /bye", _quit),
}


def _turns(chat: "Chat") -> str:
    turns = chat.conversation.turns
    return f"{turns} turn{'s' if turns != 1 else ''}"


def _count(argument: str) -> int:
    try:
        return int(argument or 1)
    except ValueError:
        raise InvalidOptionError(f"the number of turns must be an integer, got {argument!r}") from None


def _path(argument: str, command: str) -> Path:
    if not argument:
        raise InvalidOptionError(f"{command} needs the path of a file: {command} PATH")
    if len(argument) > 1 and argument[0] == argument[-1] and argument[0] in {"'", '"'}:
        argument = argument[1:-1]
    return console.at_home(Path(argument))


def _no_such_setting(name: str) -> str:
    meant = _checks.called_elsewhere(name, SETTINGS) or _checks.closest(name, SETTINGS)
    if meant is None and name in SessionOptions.__annotations__:
        return f"{name!r} is set when a chat begins: candle-phi chat --{name.replace('_', '-')}"
    hint = f"expected one of {', '.join(SETTINGS)}" if meant is None else f"did you mean {meant!r}?"
    return f"there is no setting {name!r}: {hint}"


def _value(name: str, text: str, usual: object) -> object:
    """Parse a setting's value; the package checks its range. ``usual`` is the default."""
    if text.lower() == "default":
        return usual
    if text.lower() == "none":
        return None
    kind = OPTIONS[name].kind
    if kind == "texts":
        return _texts(text)
    if kind not in _NUMBERS:
        return text
    convert, what = _NUMBERS[kind]
    try:
        return convert(text)
    except ValueError:
        raise _checks.invalid(name, f"must be {what}, got {text!r}") from None


def _texts(typed: str) -> list[str]:
    """Parse one literal text, or several texts in shell quotes."""
    if not typed.startswith(("'", '"')):
        return [typed]
    try:
        return shlex.split(typed)
    except ValueError:
        raise _checks.invalid("stop", f"must have a closing quote for each opening one, got {typed}") from None


def _written(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(repr, cast("tuple[object, ...]", value)))
    return "none" if value is None else str(value)


def offers() -> Iterator[tuple[str, str]]:
    """List the commands as they are typed, with their descriptions."""
    return ((f"/{name}", command.about) for name, command in COMMANDS.items())
