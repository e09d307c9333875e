"""A program at a terminal, as a test types into it and reads from it."""

import codecs
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Takes the terminal for its own, so that Ctrl-C there is a signal to it, and becomes the program.
_AT_ITS_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-Z\\-_=>])")
_COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;\d+)*m")
_PATIENCE_S = 60

# Stand in the text for the moments at which the program begins to wait for a line and has it: in between it wants
# what is pasted in brackets.
READY = "\ue000"
TAKEN = "\ue001"


class Terminal:
    """What was printed so far and was not looked at yet is in `screen`, without colours and movements."""

    def __init__(self, process: "subprocess.Popen[bytes]", keyboard: int) -> None:
        self.process = process
        self.screen = ""
        self._keyboard = keyboard
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._raw = ""
        self._colours: list[str] = []

    def type(self, text: str) -> None:
        """Presses keys; "\\r" is Enter."""
        os.write(self._keyboard, text.encode())

    def wait_for_echo(self) -> None:
        """Waits until the program leaves the keyboard to the terminal: what is typed is shown, Ctrl-C a signal."""
        while "~" not in self.screen:
            self.type("~")
            assert self._read(time.monotonic() + 0.01), f"it ended:\n{self.screen}"

    def until(self, expected: str) -> str:
        """Reads until a text has come; returns what came before it."""
        deadline = time.monotonic() + _PATIENCE_S
        while expected not in self.screen:
            assert time.monotonic() < deadline, f"{expected!r} did not come:\n{self.screen}"
            assert self._read(deadline), f"it ended before {expected!r}:\n{self.screen}"
        before, _, self.screen = self.screen.partition(expected)
        return before

    def read(self) -> None:
        """Reads what comes next."""
        assert self._read(time.monotonic() + _PATIENCE_S), f"it ended:\n{self.screen}"

    def colours(self) -> list[str]:
        """The colours that were switched on so far."""
        return self._colours

    def end(self) -> int:
        """Reads until the program has ended; returns its exit code."""
        deadline = time.monotonic() + _PATIENCE_S
        while self._read(deadline):
            assert time.monotonic() < deadline, f"it does not end:\n{self.screen}"
        return self.process.wait(_PATIENCE_S)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._keyboard], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return True
        try:
            read = os.read(self._keyboard, 1 << 16)
        except OSError:  # what Linux says when the other side is gone
            return False
        self._raw += self._decoder.decode(read)
        self._colours += _COLOUR.findall(self._raw)
        # An escape sequence may be cut in two.
        whole, cut, rest = self._raw.rpartition("\x1b")
        if cut and not _ESCAPES.match(cut + rest) and len(rest) < 32:
            self.screen, self._raw = self.screen + _plain(whole), cut + rest
        else:
            self.screen, self._raw = self.screen + _plain(self._raw), ""
        return bool(read)


def _plain(text: str) -> str:
    text = text.replace("\x1b[?2004h", READY).replace("\x1b[?2004l", TAKEN)
    return _ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "")


@contextmanager
def started(
    *arguments: object,
    home: Path,
    command: tuple[str, ...] = (sys.executable, "-m", "candle_phi"),
    **environment: str,
) -> Iterator[Terminal]:
    """`candle-phi`, or another command, at a terminal of its own, with a home of its own."""
    import pty
    import termios

    keyboard, screen = pty.openpty()
    # Wide enough for the path of any test's folder: a line that is broken is not the text that was typed.
    termios.tcsetwinsize(screen, (40, 240))
    own = {"HOME": str(home), "XDG_STATE_HOME": str(home), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", _AT_ITS_TERMINAL, *command, *map(str, arguments)],
        stdin=screen,
        stdout=screen,
        stderr=screen,
        start_new_session=True,
        env={**os.environ, **own, **environment},
    )
    os.close(screen)
    try:
        yield Terminal(process, keyboard)
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait(_PATIENCE_S)
        os.close(keyboard)
