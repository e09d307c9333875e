"""A status line on stderr while a prompt is computed. It disappears when the answer begins."""

import contextlib
import threading
from collections.abc import Callable, Generator

from candle_phi import TokenStream
from candle_phi.cli import console

# A prompt that takes less time than this is not shown.
_QUIET_S = 1.0
_EVERY_S = 0.2


@contextlib.contextmanager
def reading(stream: TokenStream, *, is_shown: bool = True) -> Generator[Callable[[], None], None, None]:
    """Show how much of a stream's prompt has been computed, until its first chunk is ready.

    Args:
        stream: The stream.
        is_shown: Whether to show it if stderr is a terminal.

    Yields:
        A function that removes the line. Call it before printing anything; a second call does nothing.
    """
    screen = console.stderr_console()
    if not is_shown or not screen.is_terminal or screen.is_dumb_terminal:
        yield lambda: None
        return
    line = screen.status("")
    is_over = threading.Event()

    def show() -> None:
        if is_over.wait(_QUIET_S):
            return
        while not is_over.is_set():
            done, total = stream.prefill_progress
            line.update(f"reading {done:,} of {total:,} tokens")
            line.start()
            is_over.wait(_EVERY_S)

    shower = threading.Thread(target=show, name="candle-phi status", daemon=True)
    shower.start()

    def end() -> None:
        # Each can be done twice: Ctrl-C may have stopped the first time in the middle.
        is_over.set()
        shower.join()
        line.stop()

    try:
        yield end
    finally:
        end()
