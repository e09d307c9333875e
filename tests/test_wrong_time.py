"""What calls at the wrong time get: a session that is closed or busy, two threads at once, a stream that is over.

The members of the classes are found by looking at them (`public_surface`): a new one is tried here too.
"""

import asyncio
import gc
import inspect
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import public_surface
from candle_phi import (
    AsyncTokenStream,
    InferenceError,
    InvalidOptionError,
    Phi3Session,
    SavedConversationError,
    SessionBusyError,
    SessionClosedError,
    TokenStream,
)
from messages import mentions
from public_surface import CALLABLES, GREEDY, HAIKU, is_right, outcome, usual

# What is there of a session that computes nothing and keeps nothing.
STILL_THERE = {"cancel", "close", "closed", "config", "device", "isa", "model", "n_ctx", "n_threads"}
# What can be done while a stream is open.
NOT_DISTURBING = STILL_THERE | {
    "count_tokens",
    "detokenize",
    "messages",
    "render_chat",
    "render_chat_tokens",
    "reset",
    "tokenize",
    "tokens",
}
OPENING = {"demo", "from_pretrained"}
OF_A_SESSION = [member for member in public_surface.members(Phi3Session) if member not in OPENING]


def use(session, member, tmp_path):
    """Calls a member of a session, or looks at it."""
    public = CALLABLES.get(f"Phi3Session.{member}")
    if public is None:
        return getattr(session, member)
    return outcome(getattr(session, member), **usual(public, tmp_path))


@pytest.mark.parametrize("member", OF_A_SESSION)
def test_a_closed_session_says_so(member, model, tmp_path):
    session = Phi3Session(model=model)
    session.chat("Hello", GREEDY)
    session.close()
    if member in STILL_THERE:
        use(session, member, tmp_path)
        return
    with pytest.raises(SessionClosedError):
        use(session, member, tmp_path)


@pytest.mark.parametrize("member", OF_A_SESSION)
def test_a_session_with_an_open_stream_is_busy_and_says_what_to_do(member, session, model, tmp_path):
    stream = session.stream(HAIKU, GREEDY, max_tokens=20)
    first = next(stream)
    if member in NOT_DISTURBING:
        use(session, member, tmp_path)
        if member == "close":
            return
    else:
        with pytest.raises(SessionBusyError) as caught:
            use(session, member, tmp_path)
        mentions(caught.value, "close")
        with Phi3Session(model=model) as fresh:
            expected = fresh.generate(HAIKU, GREEDY, max_tokens=20).tokens
        assert [first.token_id, *(chunk.token_id for chunk in stream if chunk.token_id is not None)] == expected
    stream.close()
    assert is_right(session, model)


@pytest.mark.parametrize("member", [member for member in OF_A_SESSION if member not in NOT_DISTURBING - {"reset"}])
def test_a_session_that_another_thread_computes_with_is_busy(member, session, model, tmp_path):
    inside, done = threading.Event(), threading.Event()

    def wait(_tokens, _logits):
        inside.set()
        assert done.wait(60)

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(session.generate, HAIKU, GREEDY, logits_processor=wait)
        assert inside.wait(60)
        try:
            if member == "reset":
                session.reset()
            else:
                with pytest.raises(SessionBusyError):
                    use(session, member, tmp_path)
        finally:
            done.set()
        if member == "reset":
            # It says so where the work was.
            with pytest.raises(SessionBusyError) as caught:
                running.result()
            mentions(caught.value, "reset")
        else:
            assert len(running.result().tokens) == 6
    assert is_right(session, model)


def test_many_threads_at_once_are_refused_or_served(session, model, tmp_path):
    """Each call is served as a whole, perhaps with what another one cancelled, or is a `SessionBusyError`."""
    members = [member for member in OF_A_SESSION if member not in {"close", "closed"}]
    served = []

    def work(seed):
        # Each thread in an order of its own.
        for member in random.Random(seed).sample(members, len(members)):
            try:
                use(session, member, tmp_path)
            except SessionBusyError:
                continue
            except SavedConversationError:
                # What it loads is a model.
                assert member == "load"
            except InvalidOptionError as error:
                if error.option != "turns":
                    raise
            except InferenceError:
                # Another thread cancelled it, and it has no completion that could say so.
                assert member in {"load", "logits", "save", "score"}
            served.append(member)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(work, range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert set(served) >= STILL_THERE - {"close", "closed"}
    session.reset()
    assert is_right(session, model)


WAYS_TO_STREAM = ["stream", "chat_stream", "astream", "achat_stream"]


async def begin(stream):
    return await anext(stream)


@pytest.mark.parametrize("way", WAYS_TO_STREAM)
@pytest.mark.parametrize("chunks", [0, 1, 3])
def test_a_stream_that_was_left_in_the_middle_leaves_the_session_right(session, model, way, chunks):
    stream = getattr(session, way)(HAIKU, GREEDY)
    for _ in range(chunks):
        if isinstance(stream, TokenStream):
            next(stream)
        else:
            asyncio.run(begin(stream))
    del stream
    gc.collect()
    assert is_right(session, model)


@pytest.mark.parametrize("way", WAYS_TO_STREAM)
def test_a_loop_that_raises_leaves_the_session_right(session, model, way):
    async def loop(stream):
        async with stream:
            async for _ in stream:
                raise ZeroDivisionError

    def read():
        stream = getattr(session, way)(HAIKU, GREEDY)
        if isinstance(stream, AsyncTokenStream):
            asyncio.run(loop(stream))
        for _ in stream:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        read()
    gc.collect()
    assert is_right(session, model)


OF_A_STREAM = public_surface.members(TokenStream)
OF_AN_ASYNC_STREAM = public_surface.members(AsyncTokenStream)


@pytest.mark.parametrize("member", [*OF_A_STREAM, "__next__", "__iter__", "__enter__"])
@pytest.mark.parametrize("state", ["at its end", "cancelled", "closed", "without its session"])
def test_a_stream_that_is_over_takes_any_call(session, model, member, state):
    stream = session.stream(HAIKU, GREEDY)
    next(stream)
    if state == "at its end":
        list(stream)
    elif state == "cancelled":
        stream.cancel()
        list(stream)
    elif state == "closed":
        stream.close()
    else:
        other = Phi3Session(model=model)
        stream = other.stream(HAIKU, GREEDY)
        next(stream)
        other.close()
        with pytest.raises(SessionClosedError):
            next(stream)
    if member == "__next__":
        with pytest.raises(StopIteration):
            next(stream)
    elif member == "result":
        assert stream.result.tokens
    elif member == "prefill_progress":
        computed, prompt_tokens = stream.prefill_progress
        assert computed == prompt_tokens > 0
    else:
        getattr(stream, member)()
    assert list(stream) == []


@pytest.mark.parametrize("member", [*OF_AN_ASYNC_STREAM, "__anext__", "__aenter__"])
@pytest.mark.parametrize("state", ["not begun", "at its end", "closed"])
def test_an_async_stream_that_is_over_takes_any_call(session, model, member, state):
    async def main():
        stream = session.astream(HAIKU, GREEDY)
        if state == "at its end":
            assert [chunk async for chunk in stream]
        else:
            if state == "closed":
                await anext(stream)
            await stream.aclose()
        if member == "result" and state == "not begun":
            with pytest.raises(asyncio.InvalidStateError):
                stream.result  # noqa: B018 # looking at it is what is tested
        elif member == "result":
            assert stream.result.tokens
        elif member == "__anext__":
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        else:
            called = getattr(stream, member)()
            if inspect.isawaitable(called):
                await called
        assert [chunk async for chunk in stream] == []

    asyncio.run(main())
    assert is_right(session, model)
