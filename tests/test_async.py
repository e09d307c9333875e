"""Under asyncio the event loop goes on, and cancelling a task stops the computation."""

import asyncio
import contextlib
import contextvars
import threading
import time

import pytest

from candle_phi import (
    AsyncTokenStream,
    Chunk,
    Completion,
    ContextLengthError,
    GenerationConfig,
    InvalidOptionError,
    Phi3Session,
    SessionBusyError,
    SessionClosedError,
)

GREEDY = GenerationConfig.greedy(max_tokens=24)
HAIKU = "Write a haiku about ice hockey"


@pytest.fixture
def slow(slow_path):
    """A session that needs seconds for a long prompt."""
    with Phi3Session(slow_path, n_ctx=8192) as session:
        yield session


def test_what_is_awaited_is_what_is_called(session):
    async def main():
        generated = await session.agenerate("hello", GREEDY)
        streamed = [chunk async for chunk in session.astream("hello", GREEDY)]
        answer = await session.achat(HAIKU, GREEDY)
        stream = session.achat_stream("And one about snow", GREEDY)
        chunks = [chunk async for chunk in stream]
        assert "".join(map(str, chunks)) == stream.result.text
        return generated, streamed, answer, stream.result, session.messages

    generated, streamed, answer, second, messages = asyncio.run(main())
    session.reset()
    assert session.generate("hello", GREEDY).tokens == generated.tokens
    assert "".join(map(str, streamed)) == generated.text
    assert session.chat(HAIKU, GREEDY).tokens == answer.tokens
    assert session.chat("And one about snow", GREEDY).tokens == second.tokens
    assert session.messages == messages


def test_the_event_loop_goes_on_while_a_prompt_is_read(slow):
    async def heartbeat(gaps):
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.002)
            now = time.monotonic()
            gaps.append(now - last)
            last = now

    async def main():
        gaps = []
        beating = asyncio.create_task(heartbeat(gaps))
        started = time.monotonic()
        await slow.agenerate([1] * 1500, max_tokens=20, ignore_eos=True)
        async for _ in slow.astream([2] * 1500, max_tokens=20, ignore_eos=True):
            pass
        elapsed_s = time.monotonic() - started
        beating.cancel()
        return gaps, elapsed_s

    gaps, elapsed_s = asyncio.run(main())
    print(f"{len(gaps)} beats in {elapsed_s:.2f} s, longest gap {max(gaps) * 1000:.0f} ms")
    # A loop that stood still while it computes would beat once or twice for each call.
    assert len(gaps) >= 20 * elapsed_s


@pytest.mark.parametrize("call", ["agenerate", "astream", "achat", "achat_stream"])
def test_cancelling_a_task_stops_the_computation(slow, call):
    async def work():
        prompt = [1] * 8000 if "chat" not in call else "word " * 1500
        if call in {"agenerate", "achat"}:
            await getattr(slow, call)(prompt, ignore_eos=True)
        else:
            async for _ in getattr(slow, call)(prompt, ignore_eos=True):
                pass

    async def main():
        task = asyncio.create_task(work())
        await asyncio.sleep(0.3)
        assert not task.done()
        started = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        elapsed_s = time.monotonic() - started
        # The session is free at once.
        assert (await slow.agenerate([1, 2, 3], max_tokens=2, ignore_eos=True)).finish_reason == "length"
        return elapsed_s

    elapsed_s = asyncio.run(main())
    print(f"{call}: stopped after {elapsed_s * 1000:.0f} ms")
    assert elapsed_s < 2
    assert slow.messages == ()


def test_a_timeout_of_asyncio_stops_the_computation(slow):
    async def main():
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await slow.agenerate([1] * 8000)
        return time.monotonic() - started

    assert asyncio.run(main()) < 2


def test_nothing_is_computed_ahead_of_the_reader(session):
    async def main():
        stream = session.astream("hello", GREEDY, ignore_eos=True)
        assert "not begun" in repr(stream)
        with pytest.raises(asyncio.InvalidStateError):
            _ = stream.result
        first = await anext(stream)
        await asyncio.sleep(0.05)
        assert stream.result.tokens == [first.token_id]
        assert "open" in repr(stream)
        await stream.aclose()
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert stream.result.finish_reason == "cancelled"
        return await session.agenerate("hello", GREEDY)

    assert asyncio.run(main()).tokens


def test_a_stream_that_is_left_frees_the_session(session):
    async def main():
        async with session.astream("hello", GREEDY, ignore_eos=True) as stream:
            async for _ in stream:
                break
        assert stream.result.finish_reason == "cancelled"
        async for _ in session.achat_stream(HAIKU, GREEDY, ignore_eos=True):
            break
        assert session.messages == ()
        return await session.agenerate("hello", GREEDY)

    assert asyncio.run(main()).tokens


def test_a_stream_can_be_cancelled_before_and_while_it_is_read(session):
    async def main():
        early = session.astream("hello", GREEDY)
        early.cancel()
        assert [chunk async for chunk in early] == []
        late = session.astream("hello", GREEDY, ignore_eos=True)
        chunks = [await anext(late)]
        late.cancel()
        chunks += [chunk async for chunk in late]
        assert late.result.finish_reason == "cancelled"
        assert "".join(map(str, chunks)) == late.result.text

    asyncio.run(main())


def test_two_tasks_do_not_read_one_stream(slow):
    async def main():
        stream = slow.astream([1] * 1500, max_tokens=3, ignore_eos=True)
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.01)
        with pytest.raises(SessionBusyError):
            await anext(stream)
        assert (await reading).token_id is not None
        await stream.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("call", ["agenerate", "achat"])
def test_of_two_tasks_that_await_one_session_the_second_is_always_refused(session, call):
    async def both():
        tasks = [getattr(session, call)("Hello", GREEDY) for _ in range(2)]
        return await asyncio.gather(*tasks, return_exceptions=True)

    async def stream_too():
        stream = session.astream("Hello", GREEDY)
        return await asyncio.gather(anext(stream), getattr(session, call)("Hello", GREEDY), return_exceptions=True)

    for _ in range(20):
        assert [type(outcome) for outcome in asyncio.run(both())] == [Completion, SessionBusyError]
        assert [type(outcome) for outcome in asyncio.run(stream_too())] == [Chunk, SessionBusyError]
    assert session.generate("Hello", GREEDY).tokens


def test_a_fork_can_be_awaited_beside_its_origin(session):
    async def both():
        with session.fork() as fork:
            return await asyncio.gather(session.achat("Hello", GREEDY), fork.achat("Hello", GREEDY))

    first, second = asyncio.run(both())
    assert first.tokens == second.tokens


def test_a_task_that_was_refused_or_cancelled_leaves_the_session_to_others(slow):
    async def main():
        running = asyncio.ensure_future(slow.agenerate([1] * 1500, max_tokens=3, ignore_eos=True))
        await asyncio.sleep(0.01)
        with pytest.raises(SessionBusyError):
            await slow.agenerate([1], max_tokens=1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (await slow.agenerate([1], max_tokens=1, ignore_eos=True)).tokens

    asyncio.run(main())


def test_errors_arrive_where_they_are_awaited(session):
    async def main():
        for wrong in (session.astream, session.achat_stream):
            with pytest.raises(InvalidOptionError) as caught:
                wrong("hello", temperature=-1)
            assert caught.value.option == "temperature"
        with pytest.raises(TypeError, match="max_tokens"):
            await session.agenerate("hello", max_token=1)
        with pytest.raises(ContextLengthError):
            await session.agenerate([1] * (session.n_ctx + 1))
        with pytest.raises(TypeError, match="prompt"):
            async for _ in session.astream(5):
                pass
        session.close()
        with pytest.raises(SessionClosedError):
            await session.achat(HAIKU)

    asyncio.run(main())


def test_context_variables_are_the_callers(session):
    variable = contextvars.ContextVar("variable", default="outside")

    async def main():
        variable.set("inside")
        async for _ in session.astream("hello", GREEDY):
            assert variable.get() == "inside"
        await session.agenerate("hello", GREEDY)
        assert variable.get() == "inside"

    asyncio.run(main())
    assert variable.get() == "outside"


def test_sessions_work_side_by_side_in_one_loop(model):
    async def answer(prompt):
        with Phi3Session(model=model) as session:
            return (await session.agenerate(prompt, GREEDY)).tokens

    async def main():
        prompts = ["hello", "ice hockey", "winter"] * 4
        return await asyncio.gather(*map(answer, prompts)), [await answer(prompt) for prompt in prompts]

    together, alone = asyncio.run(main())
    assert together == alone


@pytest.mark.parametrize("call", ["achat", "achat_stream"])
def test_an_answer_that_nobody_heard_was_not_said(session, call):
    async def work():
        if call == "achat":
            await session.achat("hello", GREEDY)
        else:
            async for _ in session.achat_stream("hello", GREEDY, max_tokens=1):
                pass

    async def main():
        task = asyncio.create_task(work())
        for _ in range(3):
            await asyncio.sleep(0)
        time.sleep(0.3)  # noqa: ASYNC251 # the thread is done before the loop looks again
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert session.messages == ()
        return await session.achat("hello", GREEDY)

    heard = asyncio.run(main())
    assert len(session.messages) == 2
    session.reset()
    assert session.chat("hello", GREEDY).tokens == heard.tokens


def test_no_other_work_of_the_program_stands_before_it(session):
    async def main():
        loop = asyncio.get_running_loop()
        hold = threading.Event()
        stream = session.astream("hello", GREEDY, ignore_eos=True)
        await anext(stream)
        # More than the loop's own pool has threads.
        others = [loop.run_in_executor(None, hold.wait) for _ in range(80)]
        try:
            async with asyncio.timeout(20):
                await stream.aclose()
                assert (await session.agenerate("hello", GREEDY)).tokens
        finally:
            hold.set()
            await asyncio.gather(*others)

    asyncio.run(main())


def test_the_session_is_free_when_the_loop_ends_under_it(slow):
    found, running = [], []

    async def work():
        try:
            await slow.agenerate([1] * 8000)
        except asyncio.CancelledError:
            found.append(slow.generate([1, 2, 3], max_tokens=1, ignore_eos=True).finish_reason)
            raise

    async def main():
        running.append(asyncio.create_task(work()))
        await asyncio.sleep(0.2)

    asyncio.run(main())
    assert found == ["length"]


def test_a_loop_that_is_closed_stops_the_computation(slow):
    loop = asyncio.new_event_loop()
    work = slow.agenerate([1] * 8000)
    task = loop.create_task(work)
    loop.run_until_complete(asyncio.sleep(0.2))
    loop.close()
    started = time.monotonic()
    with contextlib.suppress(RuntimeError):
        task.get_coro().close()
    while True:
        try:
            slow.generate([1, 2, 3], max_tokens=1)
            break
        except SessionBusyError:
            time.sleep(0.001)
    assert time.monotonic() - started < 2


def test_stream_type(session):
    assert isinstance(session.astream("hello"), AsyncTokenStream)
