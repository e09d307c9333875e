"""A line on a terminal's stderr while something takes long that prints nothing: gone when it has begun to."""

import contextlib
import threading
from collections.abc import Callable, Generator

from candle_phi import TokenStream
from candle_phi.cli import console

# What is shorter is not spoken of.
_QUIET_S = 1.0
_EVERY_S = 0.2


@contextlib.contextmanager
def reading(stream: TokenStream, *, is_shown: bool = True) -> Generator[Callable[[], None], None, None]:
    """Shows how much of a stream's prompt has been read, as long as its first chunk has not come.

    Args:
        stream: The stream.
        is_shown: Whether to show it at all; only a terminal is shown it.

    Yields:
        What takes the line away, to be called before anything is printed. A second call does nothing.
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
        if not is_over.is_set():
            is_over.set()
            shower.join()
            line.stop()

    try:
        yield end
    finally:
        end()
