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

# Other names of our commands that are as clear.
_SAME = {"bye": "quit", "exit": "quit"}
# How the numbers of a setting are read, by the table's kinds.
_NUMBERS: dict[str, tuple[Callable[[str], object], str]] = {
    "int": (int, "an integer"),
    "float": (float, "a number"),
}
# What other programs call our commands.
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
    """A command: what is written behind it, what it does, and how."""

    arguments: str
    about: str
    run: Callable[["Chat", str], None]


def run(chat: "Chat", line: str) -> None:
    """Does what a line says that begins with a slash.

    Args:
        chat: The chat.
        line: The line.

    Raises:
        InvalidOptionError: There is no such command, or what is behind it makes no sense.
        EOFError: The chat is to end.
    """
    name, _, argument = line.removeprefix("/").partition(" ")
    command = COMMANDS.get(_SAME.get(name, name))
    if command is None:
        meant = _ELSEWHERE.get(name.lower()) or _checks.closest(name.lower(), COMMANDS)
        hint = "/help lists them" if meant is None else f"did you mean /{meant}?"
        raise InvalidOptionError(
            f"there is no command /{name}: {hint}; what is said to the model and begins with a slash is "
            "written with two"
        )
    argument = argument.strip()
    if argument and not command.arguments:
        raise InvalidOptionError(f"/{name} takes nothing behind it, found {argument!r}")
    command.run(chat, argument)


def _help(_chat: "Chat", _argument: str) -> None:
    rows = [[f"/{name} {command.arguments}".rstrip(), command.about] for name, command in COMMANDS.items()]
    console.note_table(rows)
    console.note(
        "Enter says it. Alt-Enter, or a backslash at the end of a line, begins a new line; so does Enter between "
        'two """. Ctrl-C stops an answer. At an empty line Ctrl-D leaves, as does Ctrl-C pressed twice.'
    )


def _reset(chat: "Chat", _argument: str) -> None:
    chat.conversation.begin_anew()
    console.note("forgotten" + ("; the system message stays" if chat.conversation.system is not None else ""))


def _system(chat: "Chat", argument: str) -> None:
    chat.conversation.set_system(argument or None)
    console.note("system message set" if argument else "no system message")


def _retry(chat: "Chat", _argument: str) -> None:
    chat.show(chat.conversation.say_again())


def _undo(chat: "Chat", argument: str) -> None:
    said = chat.conversation.take_back(_count(argument))
    console.note(f"taken back: {short(said[0])}" + (f" and {len(said) - 1} more" if len(said) > 1 else ""))


def _edit(chat: "Chat", argument: str) -> None:
    last = chat.conversation.last_said
    if last is None:
        raise InvalidOptionError("nothing was said yet")
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
    "reset": Command("", "forget what was said, but not the system message", _reset),
    "system": Command("[TEXT]", "set the system message, or take it away; what was said stays", _system),
    "retry": Command("", "say the last message again, for another answer", _retry),
    "undo": Command("[N]", "take the last turn back, or the last N", _undo),
    "edit": Command("[TEXT]", "change the last message, and say it in its place", _edit),
    "stats": Command("", "count the tokens of the last answer and of the context", _stats),
    "tokens": Command("", "the same", _stats),
    "set": Command("[NAME VALUE]", "set an option, as in /set temperature 0.7; alone it lists them", _set),
    "save": Command("PATH", "save the conversation", _save),
    "load": Command("PATH", "go on with a conversation that was saved, in place of this one", _load),
    "model": Command("", "say what model this is", _model),
    "quit": Command("", "leave, as do /exit and /bye", _quit),
}


def _turns(chat: "Chat") -> str:
    turns = chat.conversation.turns
    return f"{turns} turn{'s' if turns != 1 else ''}"


def _count(argument: str) -> int:
    try:
        return int(argument or 1)
    except ValueError:
        raise InvalidOptionError(f"expected a number of turns, found {argument!r}") from None


def _path(argument: str, command: str) -> Path:
    if not argument:
        raise InvalidOptionError(f"expected the path of a file: {command} PATH")
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
    """A setting's value out of what was typed; the package has the ranges. ``usual`` is the value by default."""
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
    """One text as it is, or texts between quotes as a shell has them."""
    if not typed.startswith(("'", '"')):
        return [typed]
    try:
        return shlex.split(typed)
    except ValueError:
        raise InvalidOptionError(f"expected a quote at the end as at the beginning, found {typed}") from None


def _written(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(repr, cast("tuple[object, ...]", value)))
    return "none" if value is None else str(value)


def offers() -> Iterator[tuple[str, str]]:
    """The commands as they are written, and what they do."""
    return ((f"/{name}", command.about) for name, command in COMMANDS.items())
