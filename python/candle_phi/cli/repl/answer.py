"""An answer on its way to the terminal: Ctrl-C ends it, and nothing else."""

import contextlib
import signal
from collections.abc import Generator
from types import FrameType

from candle_phi import Completion, TokenStream
from candle_phi.cli import console, results, status
from candle_phi.cli.repl.conversation import Conversation


class _Interrupt:
    """What Ctrl-C does meanwhile: it ends the answer after its next piece.

    A second one, or one before the first piece, ends it at once.
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
        """Takes the place of Python's own handler, which would raise in the middle of anything."""
        before = signal.signal(signal.SIGINT, self)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def show(conversation: Conversation, stream: TokenStream) -> Completion:
    """Prints an answer as it comes, and how fast it came; notes in the conversation whether it was said.

    Args:
        conversation: The conversation that the answer belongs to.
        stream: The answer.

    Returns:
        The answer.
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
    """What is said of an answer that did not end by itself."""
    match completion.finish_reason:
        case "length" if len(conversation.session.tokens) >= conversation.session.n_ctx:
            return ["the context is full: /undo or /reset make room, a larger --n-ctx more"]
        case "length":
            return ["cut off at max_tokens"]
        case "timeout":
            return ["the time was over, and nothing was said; /retry says it again"]
        case "cancelled" if is_kept:
            return ["stopped; what there is counts as said, /undo takes it back"]
        case "cancelled":
            return ["stopped before the answer began, and nothing was said; /retry says it again"]
        case _:
            return []
