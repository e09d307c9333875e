"""The stream of a generation: an iterator of chunks that can be stopped."""

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from candle_phi._session import Generation
from candle_phi._unpicklable import Unpicklable
from candle_phi.types import Chunk, Completion

__all__ = ["TokenStream"]


class TokenStream(Iterator[Chunk], Unpicklable):
    """An iterator over the chunks of a generation.

    Tokens are computed inside ``next()``: nothing is computed before the stream is read, or after you stop reading
    it. The session is busy until the stream ends or is closed. After you leave the ``for`` loop, the session is
    free as soon as nothing else refers to the stream; a ``with`` statement always frees it:

        with session.stream(prompt) as stream:
            for chunk in stream:
                print(chunk, end="", flush=True)
        print(stream.result.usage)

    The texts of the chunks, joined, are the text of the completion. A chat turn is committed to the conversation
    when its answer is complete. If the stream is closed, cancelled, interrupted or times out before, the turn is
    undone; `keep` ends the stream and commits the partial answer.

    ``next()`` raises `KeyboardInterrupt` on Ctrl-C, which ends the stream and leaves the session usable;
    `SessionClosedError` if the session was closed; `SessionBusyError` if another thread is in ``next()``; and
    `InferenceError` or `DeviceError` if the computation failed. An exception in the body of the loop, including
    Ctrl-C there, leaves the stream open.
    """

    __slots__ = ("__weakref__", "_generation")

    _instead = "it is bound to its session; use its result instead, which is the completion so far"

    def __init__(self, generation: Generation) -> None:
        if not isinstance(generation, Generation):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"TokenStream() needs a generation, got {type(generation).__name__}; call Phi3Session.stream() or "
                "chat_stream() to get a stream"
            )
        self._generation = generation

    def __next__(self) -> Chunk:
        chunk = self._generation.step()
        if chunk is None:
            raise StopIteration
        return chunk

    def cancel(self) -> None:
        """Stop the stream, from any thread. No further chunk follows, except for text that was held back.

        The `finish_reason` of `result` is "cancelled". A prompt that is being computed is stopped midway. The
        session stays usable.
        """
        self._generation.cancel()

    def keep(self) -> bool:
        """Stop the stream and commit the partial answer of a chat.

        As after `cancel`, no further chunk follows, except for text that was held back, and the `finish_reason` of
        `result` is "cancelled". The conversation, however, continues from the message and the partial answer.
        While another thread is in ``next()``, this waits for it.

        Returns:
            True if a partial answer was committed. False if the stream had already ended, no token had been
            generated, or the stream is not that of a chat.
        """
        return self._generation.keep()

    def close(self) -> None:
        """End the stream and free the session for other calls. A second call does nothing."""
        self._generation.close()

    @property
    def prefill_progress(self) -> tuple[int, int]:
        """The number of prompt tokens computed so far, and the number to compute.

        Tokens that are already cached are not counted. Tokens that have passed half of the model's layers count
        half. Reading this never waits, so another thread can show the progress during the first ``next()``.
        """
        return self._generation.prefill_progress

    @property
    def result(self) -> Completion:
        """The completion so far; after the end of the stream, the whole completion.

        While another thread is in ``next()``, this waits for it.
        """
        return self._generation.completion()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "ended" if self._generation.finished else "open"
        return f"<TokenStream {state}>"
