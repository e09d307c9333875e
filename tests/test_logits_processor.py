"""A function of the caller's between the logits and the draw."""

import asyncio
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from candle_phi import (
    Completion,
    GenerationConfig,
    Phi3Session,
    SessionBusyError,
    SessionClosedError,
)
from generating import GREEDY, HAIKU, in_each_way, is_right


def nothing(_tokens, _logits):
    pass


def only(token):
    """Forces one token."""

    def force(_tokens, logits):
        array = np.frombuffer(logits, np.float32)
        array[:] = -np.inf
        array[token] = 0

    return force


@in_each_way
def test_it_decides_whichever_way_one_generates(session, model, way):
    assert way(session, GREEDY.replace(logits_processor=only(300))).tokens == [300] * 8
    assert is_right(session, model)


@in_each_way
def test_one_that_does_nothing_changes_nothing(session, way):
    config = GenerationConfig(seed=5, temperature=1.3, max_tokens=20, logprobs=2)
    expected = way(session, config)
    session.reset()
    found = way(session, config.replace(logits_processor=nothing))
    assert (found.tokens, found.text, found.logprobs) == (expected.tokens, expected.text, expected.logprobs)
    assert found.usage.completion_tokens == expected.usage.completion_tokens


def test_it_gets_the_tokens_so_far_and_logits_to_edit(session):
    seen = []

    def look(tokens, logits):
        assert type(tokens) is list
        assert type(logits) is memoryview
        assert (logits.format, logits.readonly, logits.shape) == ("f", False, (vocabulary_size,))
        array = np.frombuffer(logits, np.float32)
        assert array.flags.writeable
        array[7] = 123.0
        assert logits[7] == 123.0
        array[7] = -50.0
        assert np.shares_memory(array, np.asarray(logits))
        seen.append(list(tokens))
        tokens.clear()  # a list of its own

    vocabulary_size = session.model.info.vocabulary_size
    prompt = session.tokenize(HAIKU, add_bos=True)
    completion = session.generate(HAIKU, GREEDY, logits_processor=look)
    assert seen == [[*prompt, *completion.tokens[:count]] for count in range(8)]


def test_its_tokens_are_all_there_where_the_context_let_go_of_some(model):
    seen = []
    with Phi3Session(model=model, n_ctx=16) as session:
        completion = session.generate(
            [1, 300, 301],
            GREEDY,
            max_tokens=40,
            on_overflow="truncate_oldest",
            logits_processor=lambda tokens, _: seen.append(tokens),
        )
    assert completion.usage.truncated_tokens
    assert seen == [[1, 300, 301, *completion.tokens[:count]] for count in range(40)]


def test_it_stands_behind_penalties_and_bias_and_before_the_temperature(session):
    own = session.logits(session.tokenize(HAIKU, add_bos=True))
    seen = []

    def look(_tokens, logits):
        seen.append(np.array(logits))

    session.generate(
        HAIKU,
        max_tokens=2,
        logit_bias={7: 100.0, 9: -np.inf},
        presence_penalty=3.0,
        temperature=0.5,
        top_k=1,
        ignore_eos=True,
        logits_processor=look,
    )
    first, second = seen
    expected = own.copy()
    expected[7] += 100.0
    expected[9] = -np.inf
    known = np.isfinite(first)
    # The padding of the vocabulary cannot be drawn, and is forbidden already.
    assert not first[~known].max() > -np.inf
    np.testing.assert_allclose(first[known], expected[known], atol=1e-5)
    # The bias of 100 made the first token 7, so the penalty is taken off.
    after = session.logits([*session.tokenize(HAIKU, add_bos=True), 7])
    np.testing.assert_allclose(second[7], after[7] + 100.0 - 3.0, atol=1e-4)


def test_log_probabilities_are_the_models_own(session):
    completion = session.generate(HAIKU, GREEDY, logprobs=1, logits_processor=only(300))
    assert completion.tokens == [300] * 8
    for logprob in completion.logprobs:
        assert logprob.token_id == 300
        assert logprob.logprob < -1
        assert logprob.top[0][0] != 300


def test_what_cannot_be_drawn_stays_so(session):
    end = session.tokenize("<|end|>", parse_special=True)[0]
    everything = session.generate(
        HAIKU,
        temperature=0,
        max_tokens=6,
        min_tokens=4,
        stop_token_ids=[300],
        logits_processor=lambda _, logits: (
            only(300)(_, logits) or only(end)(_, logits) or logits.__setitem__(301, -1.0)
        ),
    )
    # The end token may come after four.
    assert everything.tokens == [301] * 4
    assert (everything.finish_reason, everything.stop_reason) == ("stop", end)


def test_the_buffer_is_gone_after_the_call(session, model):
    kept = []

    def keep(_tokens, logits):
        kept.append(logits)

    session.generate(HAIKU, GREEDY, max_tokens=2, logits_processor=keep)
    for view in kept:
        with pytest.raises(ValueError, match="released"):
            view[0]
        with pytest.raises(ValueError, match="released"):
            view[0] = 1.0
    assert is_right(session, model)


def test_an_array_that_was_kept_is_memory_that_nobody_reads(session, model):
    kept = []

    def keep(_tokens, logits):
        for array in kept:
            array[:] = np.nan
        kept.append(np.frombuffer(logits, np.float32))

    completion = session.generate(HAIKU, GREEDY, logits_processor=keep)
    assert completion.tokens == session.generate(HAIKU, GREEDY).tokens
    gc.collect()
    kept[-1][:] = 1.0
    assert kept[-1].sum() == len(kept[-1])
    assert is_right(session, model)


@pytest.mark.parametrize("wrong", [1, "f", [nothing], {}])
def test_it_is_a_function(wrong):
    with pytest.raises(TypeError, match="logits_processor"):
        GenerationConfig(logits_processor=wrong)


def test_it_is_no_coroutine_function():
    async def later(_tokens, _logits):
        pass

    with pytest.raises(TypeError, match="logits_processor"):
        GenerationConfig(logits_processor=later)


@in_each_way
def test_calling_the_same_session_is_refused_and_hangs_nothing(session, model, way):
    refused = []

    def greedy_for_more(_tokens, _logits):
        for call in (
            lambda: session.generate("x", GREEDY),
            lambda: session.generate_many("x", 2, GREEDY),
            lambda: session.stream("x"),
            lambda: session.chat("x"),
            lambda: session.chat_stream("x"),
            lambda: session.score([1, 2]),
            lambda: session.logits([1]),
            session.fork,
            session.rewind,
        ):
            with pytest.raises(SessionBusyError) as caught:
                call()
            refused.append(caught.value)
        assert session.tokenize("x")
        assert session.messages == ()

    completion = way(session, GREEDY.replace(logits_processor=greedy_for_more, max_tokens=2))
    assert len(completion.tokens) == 2
    assert refused
    assert is_right(session, model)


def test_reading_its_own_stream_is_refused(session, model):
    errors = []

    def read_on(_tokens, _logits):
        with pytest.raises(SessionBusyError) as caught:
            next(stream)
        errors.append(caught.value)
        # What there is so far can be looked at.
        assert len(stream.result.tokens) == len(errors) - 1

    stream = session.stream(HAIKU, GREEDY, logits_processor=read_on)
    assert len([chunk for chunk in stream if chunk.token_id is not None]) == 8
    assert len(errors) == 8
    assert is_right(session, model)


def test_another_thread_that_uses_the_session_meanwhile_is_refused(session, model):
    inside, done = threading.Event(), threading.Event()

    def wait(_tokens, _logits):
        inside.set()
        assert done.wait(60)

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(session.generate, HAIKU, GREEDY, logits_processor=wait)
        assert inside.wait(60)
        with pytest.raises(SessionBusyError):
            session.generate("x")
        # Other threads run, and other sessions compute.
        with Phi3Session(model=model) as other:
            assert other.generate("x", GREEDY).tokens
        done.set()
        assert len(running.result().tokens) == 8
    assert is_right(session, model)


@pytest.mark.parametrize("end", ["session.cancel", "stream.cancel", "stream.close"])
def test_it_may_end_its_generation(session, model, end):
    calls = []

    def stop(tokens, _logits):
        calls.append(tokens)
        if len(calls) == 3:
            {"session.cancel": session.cancel, "stream.cancel": stream.cancel, "stream.close": stream.close}[end]()

    stream = session.chat_stream(HAIKU, GREEDY, logits_processor=stop)
    texts = "".join(map(str, stream))
    assert len(calls) == 3
    assert (len(stream.result.tokens), stream.result.finish_reason) == (2, "cancelled")
    assert stream.result.text.startswith(texts)
    assert session.messages == ()
    assert is_right(session, model)


def test_it_may_close_its_session(model):
    session = Phi3Session(model=model)
    with pytest.raises(SessionClosedError):
        session.generate(HAIKU, GREEDY, logits_processor=lambda _tokens, _logits: session.close())
    assert session.closed


def test_resetting_its_session_ends_it(session, model):
    resets = []

    def reset(_tokens, _logits):
        session.reset()
        resets.append(True)

    with pytest.raises(SessionBusyError):
        session.generate(HAIKU, GREEDY, logits_processor=reset)
    assert resets == [True]
    assert is_right(session, model)


def test_a_task_that_is_cancelled_waits_for_it(session, model):
    inside, done = threading.Event(), threading.Event()
    calls = []

    def wait(tokens, _logits):
        calls.append(tokens)
        inside.set()
        assert done.wait(60)

    async def main():
        task = asyncio.create_task(session.achat(HAIKU, GREEDY, logits_processor=wait))
        await asyncio.get_running_loop().run_in_executor(None, inside.wait, 60)
        task.cancel()
        # The task hears of it before the model goes on.
        for _ in range(3):
            await asyncio.sleep(0)
        done.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        # The session is free when the error has arrived.
        return await session.agenerate(HAIKU, GREEDY)

    assert len(asyncio.run(main()).tokens) == 8
    assert len(calls) == 1
    assert session.messages == ()
    assert is_right(session, model)


def test_it_runs_on_the_thread_that_computes(session):
    threads = set()

    def note(_tokens, _logits):
        threads.add(threading.current_thread())

    session.generate(HAIKU, GREEDY, logits_processor=note)
    assert threads == {threading.current_thread()}
    threads.clear()
    asyncio.run(session.agenerate(HAIKU, GREEDY, logits_processor=note))
    assert len(threads) == 1
    assert threads != {threading.current_thread()}


def test_an_iterator_that_was_left_in_the_middle_takes_its_function_along(session, model):
    """The function refers to the stream that refers to it: only the collector finds that."""

    class Hook:
        def __call__(self, _tokens, _logits):
            assert self.stream

    def leave():
        hook = Hook()
        hook.stream = session.stream(HAIKU, GREEDY, logits_processor=hook)
        next(hook.stream)
        return weakref.ref(hook), weakref.ref(hook.stream)

    alive = leave()
    gc.collect()
    assert [reference() for reference in alive] == [None, None]
    assert is_right(session, model)


@pytest.mark.parametrize("ending", ["read", "closed", "failed"])
def test_a_stream_at_its_end_lets_go_of_its_function(session, ending):
    class Hook:
        def __call__(self, _tokens, _logits):
            if ending == "failed":
                raise ZeroDivisionError

    hook = Hook()
    stream = session.stream(HAIKU, GREEDY, logits_processor=hook)
    if ending == "closed":
        next(stream)
        stream.close()
    elif ending == "failed":
        with pytest.raises(ZeroDivisionError):
            next(stream)
    else:
        list(stream)
    alive = weakref.ref(hook)
    del hook
    gc.collect()
    assert alive() is None
    assert isinstance(stream.result, Completion)


def test_it_is_a_part_of_a_configuration(session):
    config = GREEDY.replace(logits_processor=only(300))
    assert session.generate(HAIKU, config).tokens == [300] * 8
    assert session.generate(HAIKU, config, logits_processor=None).tokens == session.generate(HAIKU, GREEDY).tokens
    assert config == GREEDY.replace(logits_processor=config.logits_processor)
    assert config != GREEDY
    assert hash(config) == hash(GREEDY)


def test_it_works_with_candles_executor_too():
    with Phi3Session.demo(executor="candle") as session:
        assert session.generate(HAIKU, GREEDY, logits_processor=only(300)).tokens == [300] * 8
