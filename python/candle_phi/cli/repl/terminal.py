"""The input line: its history, its keys, and its completions."""

import contextlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import create_output

from candle_phi.cli.repl import commands
from candle_phi.cli.sampling import SETTINGS

_PROMPT = "> "
_CONTINUATION = "… "
_BLOCK = '"""'


class Terminal:
    """The reader of the user's input. The prompt goes to stderr: stdout has only the answers.

    Args:
        history: The file of the input history, or None to keep no history.
    """

    def __init__(self, history: Path | None) -> None:
        self._prompt: PromptSession[str] = PromptSession(
            history=_history(history),
            multiline=True,
            key_bindings=_keys(),
            completer=_Commands(),
            complete_while_typing=False,
            prompt_continuation=_CONTINUATION,
            enable_suspend=True,
            output=create_output(stdout=sys.stderr),
        )

    def ask(self, text: str = "") -> str:
        """Read the user's input, which may have several lines.

        Args:
            text: The initial text of the input, for editing.

        Returns:
            The text; empty if the user discarded it with Ctrl-C.

        Raises:
            KeyboardInterrupt: Ctrl-C on an empty line.
            EOFError: Ctrl-D on an empty line.
        """
        try:
            # While the line is edited, Ctrl-C is a key. As a signal it arrives just after, and Python handles it.
            typed = self._prompt.prompt(_PROMPT, default=text, handle_sigint=False)
        except KeyboardInterrupt:
            if self._prompt.default_buffer.text:
                return ""
            raise
        return _without_quotes(typed)


def history_path() -> Path | None:
    """Return the file of the input history, in the system's place; None if the home directory is not known."""
    try:
        if os.name == "nt":
            folder = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        else:
            folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    except RuntimeError:
        return None
    return folder / "candle-phi" / "chat_history"


class _KeptHistory(FileHistory):
    """A history in a file. An error of writing it is ignored, so that it does not end the chat."""

    def store_string(self, string: str) -> None:
        with contextlib.suppress(OSError):
            super().store_string(string)


def _history(path: Path | None) -> History:
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The history is private to the user.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError:
        return InMemoryHistory()
    return _KeptHistory(path)


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter", filter=has_focus(DEFAULT_BUFFER))
    def say(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        before = buffer.document.text_before_cursor
        if before.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        elif _is_open(buffer.document.text):
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter", filter=has_focus(DEFAULT_BUFFER))
    def begin_a_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return keys


def _is_open(text: str) -> bool:
    """Return whether a block of lines has started but not ended."""
    return text.lstrip().startswith(_BLOCK) and text.count(_BLOCK) % 2 == 1


def _without_quotes(text: str) -> str:
    """Return the lines of a block, or any other text unchanged."""
    block = text.strip()
    if len(block) >= 2 * len(_BLOCK) and block.startswith(_BLOCK) and block.endswith(_BLOCK):
        return block.removeprefix(_BLOCK).removesuffix(_BLOCK)
    return text


class _Commands(Completer):
    """The completions of commands at the beginning of a line, and of their arguments."""

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        name, space, argument = document.text_before_cursor.partition(" ")
        if not space:
            offers = commands.offers() if name.startswith("/") else ()
            yield from (
                Completion(offer, -len(name), display_meta=about)
                for offer, about in offers
                if offer.startswith(name)
            )
        elif name == "/set":
            settings = (setting for setting in SETTINGS if setting.startswith(argument))
            yield from (Completion(setting, -len(argument)) for setting in settings)
        elif name in {"/save", "/load"}:
            path = Document(argument, len(argument))
            yield from PathCompleter(expanduser=True).get_completions(path, complete_event)
