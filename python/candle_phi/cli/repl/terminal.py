"""The line that is typed: its history, its keys, and what Tab offers."""

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
    """Asks for what is said next. The prompt is on stderr: stdout has the answers alone.

    Args:
        history: The file that keeps what was typed, or None to forget it.
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
        """What was typed, which may have several lines.

        Args:
            text: What is there already, to be changed.

        Returns:
            The text; empty if Ctrl-C threw it away.

        Raises:
            KeyboardInterrupt: Ctrl-C at an empty line.
            EOFError: Ctrl-D at an empty line.
        """
        try:
            # In the line Ctrl-C is a key. As a signal it comes when the line was just taken, and is Python's.
            typed = self._prompt.prompt(_PROMPT, default=text, handle_sigint=False)
        except KeyboardInterrupt:
            if self._prompt.default_buffer.text:
                return ""
            raise
        return _without_quotes(typed)


def history_path() -> Path | None:
    """The file that keeps what was typed, where the system has such files; None for somebody without a home."""
    try:
        if os.name == "nt":
            folder = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        else:
            folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    except RuntimeError:
        return None
    return folder / "candle-phi" / "chat_history"


class _KeptHistory(FileHistory):
    """A history in a file. What cannot be written is forgotten: it is no reason to end a chat."""

    def store_string(self, string: str) -> None:
        with contextlib.suppress(OSError):
            super().store_string(string)


def _history(path: Path | None) -> History:
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # What is said to a model is nobody else's business.
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
    """Whether a block of lines has begun and not ended."""
    return text.lstrip().startswith(_BLOCK) and text.count(_BLOCK) % 2 == 1


def _without_quotes(text: str) -> str:
    """The lines of a block, or the text as it is."""
    block = text.strip()
    if len(block) >= 2 * len(_BLOCK) and block.startswith(_BLOCK) and block.endswith(_BLOCK):
        return block.removeprefix(_BLOCK).removesuffix(_BLOCK)
    return text


class _Commands(Completer):
    """Commands at the beginning of a line, and what they take."""

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
