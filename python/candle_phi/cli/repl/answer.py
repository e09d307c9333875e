"""The display of an answer in the terminal. Ctrl-C stops the answer, not the program."""

import contextlib
import signal
from collections.abc import Generator
from types import FrameType

from candle_phi import Completion, TokenStream
from candle_phi.cli import console, results, status
from candle_phi.cli.repl.conversation import Conversation


class _Interrupt:
    """The handler of Ctrl-C during an answer, which stops the answer after its next chunk.

    A second Ctrl-C, or one before the first chunk, stops it at once.
    """

    def __init__(self, stream: TokenStream) -> None:
        self._stream = stream
        self.has_begun = False
        self.is_asked = False

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        if self.is_asked or not self.has_begun:
            self._stream.cancel()
        self.is_asked = True

    @contextlib.contextmanager
    def heard(self) -> Generator[None, None, None]:
        """Replace Python's own handler, which would raise at an arbitrary point."""
        before = signal.signal(signal.SIGINT, self)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def show(conversation: Conversation, stream: TokenStream) -> Completion:
    """Stream an answer to the terminal, print its speed, and commit its turn to the conversation.

    Args:
        conversation: The conversation that the answer belongs to.
        stream: The stream of the answer.

    Returns:
        The completion.
    """
    interrupt = _Interrupt(stream)
    is_kept = False
    with stream, interrupt.heard(), status.reading(stream) as has_begun:
        try:
            for chunk in stream:
                has_begun()
                interrupt.has_begun = True
                console.write(chunk.text)
                if interrupt.is_asked:
                    is_kept = is_kept or stream.keep()
        finally:
            has_begun()
            console.write("\n")
        completion = stream.result
    if is_kept or completion.finish_reason in {"stop", "length"}:
        conversation.answered()
    remarks = [results.speed(completion), *_remarks(conversation, completion, is_kept=is_kept)]
    console.note(f"[{'; '.join(remarks)}]")
    return completion


def _remarks(conversation: Conversation, completion: Completion, *, is_kept: bool) -> list[str]:
    """Return the remarks about an answer that did not end by itself."""
    match completion.finish_reason:
        case "length" if len(conversation.session.tokens) >= conversation.session.n_ctx:
            return ["the context is full: use /undo or /reset, or a larger --n-ctx"]
        case "length":
            return ["cut off at max_tokens"]
        case "timeout":
            return ["stopped by the timeout, and the turn was discarded; /retry sends the message again"]
        case "cancelled" if is_kept:
            return ["stopped; the partial answer is kept, and /undo removes it"]
        case "cancelled":
            return ["stopped before the answer began, and the turn was discarded; /retry sends the message again"]
        case _:
            return []
