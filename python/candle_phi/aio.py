"""Generations for asyncio: the computation runs on threads, and the event loop keeps running."""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar, Unpack

from candle_phi._session import Generation, OneTask, SessionBase
from candle_phi._unpicklable import Unpicklable
from candle_phi.config import GenerationConfig, GenerationOptions, generation_config
from candle_phi.exceptions import SessionBusyError
from candle_phi.types import Chunk, Completion, MessageLike

__all__ = ["AsyncTokenStream"]

T = TypeVar("T")


class _Work:
    """A generation on a thread of its own, so that no other work of the program stands before it.

    What it says of a chat counts when it arrived: a task that is cancelled when the thread has just finished has
    not heard the answer, and its turn is not said.
    """

    __slots__ = ("_begin", "_generation", "_is_stopped", "_thread")

    def __init__(self, begin: Callable[[], Generation]) -> None:
        self._begin = begin
        self._generation: Generation | None = None
        self._is_stopped = False
        self._thread: ThreadPoolExecutor | None = None

    @property
    def begun(self) -> Generation | None:
        """The generation, if it was begun."""
        return self._generation

    @property
    def is_stopped(self) -> bool:
        """Whether it was asked to end."""
        return self._is_stopped

    def generation(self) -> Generation:
        """The generation; begins it. May take a moment: a prompt is made token ids."""
        if self._generation is None:
            generation = self._begin()
            generation.commit_later()
            self._generation = generation
            if self._is_stopped:
                generation.cancel()
        return self._generation

    async def on_its_thread(self, work: Callable[[], T]) -> T:
        """The outcome of work on the thread.

        Once this is cancelled the generation is stopped, and the work waited for: it has left the session when the
        `asyncio.CancelledError` goes on.
        """
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="candle-phi-async")
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()

        def on_the_thread() -> T:
            try:
                return context.run(work)
            finally:
                if loop.is_closed():
                    self.close()

        # A future and no task: whoever cancels all tasks of the loop does not cancel it.
        future = loop.run_in_executor(self._thread, on_the_thread)
        cancelled: asyncio.CancelledError | None = None
        while not future.done():
            try:
                await asyncio.wait({future})
            except asyncio.CancelledError as error:
                cancelled = error
                self.stop()
            except BaseException:
                # The coroutine was closed under it.
                self.stop()
                raise
        if cancelled is None:
            return future.result()
        if not future.cancelled():
            # What it raised is nobody's any more, and asked for here so that asyncio does not complain.
            future.exception()
        self.close()
        raise cancelled

    def commit(self) -> None:
        """Counts it as said, if it has ended."""
        if self._generation is not None and self._generation.finished:
            self._generation.commit()
            self._leave_thread()

    def stop(self) -> None:
        """Asks it to end, from any thread."""
        self._is_stopped = True
        if self._generation is not None:
            self._generation.cancel()

    def close(self) -> None:
        """Ends it and frees the session."""
        self.stop()
        if self._generation is not None:
            self._generation.close()
        self._leave_thread()

    def _leave_thread(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None


class Beginning:
    """How a task that awaits a session begins a generation in it."""

    __slots__ = ("begin", "one_task")

    def __init__(self, one_task: OneTask, begin: Callable[[], Generation]) -> None:
        self.one_task: OneTask = one_task
        self.begin: Callable[[], Generation] = begin


async def whole(beginning: Beginning) -> Completion:
    """The completion of a generation that is begun and run on a thread."""
    work = _Work(beginning.begin)
    loop = asyncio.get_running_loop()

    def run() -> None:
        generation = work.generation()
        # Nobody would hear the rest if the loop was closed.
        while generation.step() is not None and not loop.is_closed():
            pass

    with beginning.one_task:
        await work.on_its_thread(run)
        generation = work.generation()
        work.commit()
    return generation.completion()


class AsyncTokenStream(AsyncIterator[Chunk], Unpicklable):
    """An asynchronous iterator over the chunks of a generation, for ``async for``.

        async with session.astream(prompt) as stream:
            async for chunk in stream:
                print(chunk, end="", flush=True)
        print(stream.result.usage)

    Tokens are computed only while a chunk is awaited, so a slow reader never builds up a backlog. The event loop
    keeps running meanwhile. Cancelling the task that reads, as `asyncio.timeout` does, ends the stream and frees
    the session before the `asyncio.CancelledError` is raised. The session is busy until the stream ends or is
    closed; ``async with`` or `aclose` always frees it.

    In all other respects it works like `TokenStream`: the texts of the chunks, joined, are the text of the
    completion, and a chat turn is committed to the conversation when its answer is complete.
    """

    __slots__ = ("__weakref__", "_is_reading", "_one_task", "_work")

    _instead = "it computes in its session; what there is of its completion is its result, which can be"

    def __init__(self, begin: Beginning) -> None:
        if not isinstance(begin, Beginning):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError("an AsyncTokenStream is what Phi3Session.astream() and achat_stream() return")
        self._work = _Work(begin.begin)
        self._one_task = begin.one_task
        self._is_reading = False

    async def __anext__(self) -> Chunk:
        work = self._work
        if work.begun is None and work.is_stopped:
            raise StopAsyncIteration
        if self._is_reading:
            raise SessionBusyError("another task is reading this stream")
        self._is_reading = True
        try:
            with self._one_task:
                chunk = await work.on_its_thread(lambda: work.generation().step())
        finally:
            self._is_reading = False
        work.commit()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    def cancel(self) -> None:
        """Stop the stream, from any thread. No further chunk follows, except for text that was held back.

        The `finish_reason` of `result` is "cancelled".
        """
        self._work.stop()

    async def aclose(self) -> None:
        """End the stream and free the session for other calls. A second call does nothing."""
        self._work.stop()
        if self._is_reading:
            # On the thread it comes after the step that another task waits for.
            await self._work.on_its_thread(lambda: None)
        self._work.close()

    @property
    def result(self) -> Completion:
        """The completion so far; after the end of the stream, the whole completion.

        While a chunk is being computed, this waits for it.

        Raises:
            asyncio.InvalidStateError: No chunk has been read yet.
        """
        if self._work.begun is None:
            raise asyncio.InvalidStateError("the stream has no result yet: nothing was read of it")
        return self._work.begun.completion()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # The thread that computed last may still refer to the generation when the loop has gone on.
        if hasattr(self, "_work"):  # it is not there if it could not be made
            self._work.close()

    def __repr__(self) -> str:
        begun = self._work.begun
        state = "not begun" if begun is None else "at its end" if begun.finished else "open"
        return f"<AsyncTokenStream {state}>"


class AsyncMethods(SessionBase):
    """The part of a session for asyncio."""

    __slots__ = ()

    async def agenerate(
        self,
        prompt: str | Sequence[int],
        config: GenerationConfig | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Completion:
        """Continue a raw prompt on a thread and return the whole completion; `generate` for asyncio.

        The event loop keeps running. Cancelling the task, as `asyncio.timeout` does too, stops the computation.
        The session is free when the `asyncio.CancelledError` is raised.

        Args:
            prompt: A text or token ids, as in `generate`.
            config: How to generate.
            **options: Generation options that override ``config``; see `GenerationConfig`.

        Returns:
            The completion.

        Raises:
            Phi3Error: Any error that `generate` raises.
            TypeError: An argument is of the wrong type, or the option does not exist.
        """
        config = generation_config("agenerate", config, options)
        return await whole(Beginning(self._one_task, lambda: self._begin(prompt, config)))

    def astream(
        self,
        prompt: str | Sequence[int],
        config: GenerationConfig | None = None,
        **options: Unpack[GenerationOptions],
    ) -> AsyncTokenStream:
        """Continue a raw prompt and return a stream for ``async for``; `stream` for asyncio.

        Args:
            prompt: A text or token ids, as in `generate`.
            config: How to generate.
            **options: Generation options that override ``config``; see `GenerationConfig`.

        Returns:
            The stream. The generation begins when you first read the stream. All errors except those in the
            options are raised then.

        Raises:
            InvalidOptionError: An option is out of its range.
            TypeError: An option is of the wrong type, or does not exist.
        """
        config = generation_config("astream", config, options)
        return AsyncTokenStream(Beginning(self._one_task, lambda: self._begin(prompt, config)))

    async def achat(
        self,
        messages: str | Sequence[MessageLike],
        config: GenerationConfig | None = None,
        *,
        continue_final_message: bool = False,
        **options: Unpack[GenerationOptions],
    ) -> Completion:
        """Send a message to the model and return its whole answer; `chat` for asyncio.

        It runs on a thread, as `agenerate` does. A cancelled turn is undone.

        Args:
            messages: A text or messages, as in `chat`.
            config: How to generate, as in `chat`.
            continue_final_message: As in `chat`.
            **options: Generation options that override ``config``; see `GenerationConfig`.

        Returns:
            The answer.

        Raises:
            Phi3Error: Any error that `chat` raises.
            TypeError: An argument is of the wrong type, or the option does not exist.
        """
        config = self._chat_config("achat", config, options)
        return await whole(
            Beginning(self._one_task, lambda: self._begin_chat(messages, config, continue_final_message))
        )

    def achat_stream(
        self,
        messages: str | Sequence[MessageLike],
        config: GenerationConfig | None = None,
        *,
        continue_final_message: bool = False,
        **options: Unpack[GenerationOptions],
    ) -> AsyncTokenStream:
        """Send a message to the model and return its answer as a stream; `chat_stream` for asyncio.

        Args:
            messages: A text or messages, as in `chat`.
            config: How to generate, as in `chat`.
            continue_final_message: As in `chat`.
            **options: Generation options that override ``config``; see `GenerationConfig`.

        Returns:
            The stream, which begins when you first read it, as in `astream`. The turn is committed to the
            conversation when its answer is complete.

        Raises:
            InvalidOptionError: An option is out of its range.
            TypeError: An option is of the wrong type, or does not exist.
        """
        config = self._chat_config("achat_stream", config, options)
        return AsyncTokenStream(
            Beginning(self._one_task, lambda: self._begin_chat(messages, config, continue_final_message))
        )
