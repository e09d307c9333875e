"""The stream of a generation: an iterator of chunks that can be stopped."""

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from candle_phi._session import Generation
from candle_phi._unpicklable import Unpicklable
from candle_phi.types import Chunk, Completion

__all__ = ["TokenStream"]


class TokenStream(Iterator[Chunk], Unpicklable):
    """The chunks of a generation, as they come.

    The work is done in ``next()``: nothing is computed until the stream is read, and nothing more once it is left.
    A stream that is neither at its end nor closed keeps its session busy; leaving the ``for`` loop frees it, if
    nothing else refers to the stream, and ``with`` frees it for certain:

        with session.stream(prompt) as stream:
            for chunk in stream:
                print(chunk, end="", flush=True)
        print(stream.result.usage)

    The chunks' texts, joined, are the completion's text. A chat turn counts as said when its stream came to its
    end, and is taken back when the stream was left, cancelled or interrupted before; `keep` ends it with what
    there is.

    ``next()`` raises `KeyboardInterrupt` on Ctrl-C, which ends the stream and leaves the session usable,
    `SessionClosedError` if the session was closed, `SessionBusyError` if another thread is in ``next()``, and
    `InferenceError` or `DeviceError` if the computation failed. What is raised in the body of the loop, by Ctrl-C
    too, leaves the stream as it is.
    """

    __slots__ = ("__weakref__", "_generation")

    _instead = "it computes in its session; what there is of its completion is its result, which can be"

    def __init__(self, generation: Generation) -> None:
        if not isinstance(generation, Generation):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError("a TokenStream is what Phi3Session.stream() and chat_stream() return")
        self._generation = generation

    def __next__(self) -> Chunk:
        chunk = self._generation.step()
        if chunk is None:
            raise StopIteration
        return chunk

    def cancel(self) -> None:
        """Ends the stream, from any thread: no more chunk comes, except for text that was held back.

        The `finish_reason` of `result` is "cancelled".

        A prompt that is being read is left in the middle. The session stays usable.
        """
        self._generation.cancel()

    def keep(self) -> bool:
        """Ends the stream here, and counts what there is of a chat's answer as said.

        As after `cancel`, no more chunk comes, except for text that was held
        back, and the `finish_reason` of `result` is "cancelled"; but the conversation
        goes on from what was said and the answer so far. While another thread is in ``next()``, this waits for it.

        Returns:
            Whether that is so: without a token there is no answer, and a stream that is at its end already is what
            it was.
        """
        return self._generation.keep()

    def close(self) -> None:
        """Ends the stream and frees the session for other calls; a second time does nothing."""
        self._generation.close()

    @property
    def prefill_progress(self) -> tuple[int, int]:
        """How far the prompt has been read: the tokens computed so far, and those to compute.

        Tokens that the cache already holds are not counted, and those that have passed half of the model's layers
        count half. Reading this never waits, so another thread can show it during the first ``next()``.
        """
        return self._generation.prefill_progress

    @property
    def result(self) -> Completion:
        """The completion: all of it after the stream's end, before that what there is so far.

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
        state = "at its end" if self._generation.finished else "open"
        return f"<TokenStream {state}>"
