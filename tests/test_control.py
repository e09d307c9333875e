"""What ends a generation from outside: a time, another thread; and what keeps it from ending early."""

import threading
import time

import pytest

from candle_phi import GenerationConfig, InvalidOptionError, Phi3Session, SessionBusyError
from messages import mentions

GREEDY = GenerationConfig.greedy(max_tokens=24)
HAIKU = "Write a haiku about ice hockey"


def answers_as_a_fresh_one(session, model):
    with Phi3Session(model=model) as fresh:
        return session.generate("hello", GREEDY).tokens == fresh.generate("hello", GREEDY).tokens


@pytest.fixture
def slow(slow_path):
    """A session that needs seconds for a long prompt."""
    with Phi3Session(slow_path, n_ctx=8192) as session:
        yield session


def test_a_prompt_that_takes_too_long_is_left(slow):
    started = time.monotonic()
    completion = slow.generate([1] * 8000, timeout=0.1, max_tokens=5)
    elapsed_s = time.monotonic() - started
    assert completion.finish_reason == "timeout"
    assert completion.tokens == []
    print(f"left after {elapsed_s:.2f} s")
    # It would take seconds.
    assert elapsed_s < 2
    assert slow.generate([1, 2, 3], max_tokens=1, ignore_eos=True).finish_reason == "length"


def test_an_answer_that_takes_too_long_ends_as_it_is(slow):
    stream = slow.stream([1, 2, 3], timeout=0.3, temperature=0, ignore_eos=True)
    chunks = list(stream)
    result = stream.result
    assert result.finish_reason == "timeout"
    assert result.tokens
    assert "".join(map(str, chunks)) == result.text
    again = slow.generate([1, 2, 3], max_tokens=len(result.tokens), temperature=0, ignore_eos=True)
    assert again.tokens == result.tokens


def test_a_turn_that_took_too_long_is_taken_back(session, model):
    session.chat(HAIKU, GREEDY)
    before = session.messages
    assert session.chat(HAIKU, GREEDY, ignore_eos=True, timeout=1e-9).finish_reason == "timeout"
    assert session.messages == before
    assert answers_as_a_fresh_one(session, model)


def test_time_enough_changes_nothing(session):
    expected = session.generate("hello", GREEDY)
    assert session.generate("hello", GREEDY, timeout=3600).tokens == expected.tokens
    assert session.generate("hello", GREEDY, timeout=1e300).finish_reason == expected.finish_reason


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_timeout_is_a_time(session, timeout):
    with pytest.raises(InvalidOptionError) as caught:
        session.generate("hello", timeout=timeout)
    assert caught.value.option == "timeout"
    mentions(caught.value, timeout)


def test_the_model_does_not_end_before_min_tokens(session):
    short = session.chat(HAIKU, temperature=0)
    assert short.finish_reason == "stop"
    session.rewind()
    least = len(short.tokens) + 5
    longer = session.chat(HAIKU, temperature=0, min_tokens=least, max_tokens=least + 40)
    assert len(longer.tokens) >= least
    assert longer.tokens[: len(short.tokens)] == short.tokens
    session.rewind()
    stopped = session.chat(HAIKU, temperature=0, min_tokens=least, stop=short.text[3:5])
    assert len(stopped.tokens) < least


def test_min_tokens_is_not_above_max_tokens(session):
    with pytest.raises(InvalidOptionError) as caught:
        session.generate("hello", min_tokens=4, max_tokens=3)
    mentions(caught.value, 3, 4)
    assert caught.value.option == "min_tokens"


def test_another_thread_cancels_what_is_under_way(slow):
    timer = threading.Timer(0.2, slow.cancel)
    timer.start()
    completion = slow.generate([1, 2, 3], temperature=0, ignore_eos=True)
    timer.join()
    assert completion.finish_reason == "cancelled"
    assert completion.tokens
    same = slow.generate([1, 2, 3], temperature=0, ignore_eos=True, max_tokens=len(completion.tokens))
    assert same.tokens == completion.tokens


def test_cancelling_ends_a_stream_that_nobody_reads_at_the_moment(session, model):
    stream = session.stream("hello", temperature=0, ignore_eos=True)
    first = next(stream)
    assert session.messages == ()  # a look at the session is not what is under way
    session.cancel()
    rest = list(stream)
    assert stream.result.finish_reason == "cancelled"
    assert "".join(map(str, [first, *rest])) == stream.result.text
    assert answers_as_a_fresh_one(session, model)


def test_cancelling_where_nothing_is_under_way_does_nothing(session, model):
    session.cancel()
    assert answers_as_a_fresh_one(session, model)
    session.cancel()
    assert answers_as_a_fresh_one(session, model)


def test_many_completions_of_one_prompt(session, model):
    prompt = session.tokenize("Write a haiku", add_bos=True)
    many = session.generate_many(prompt, 4, seed=2**64 - 2, temperature=1.5, max_tokens=20)
    assert [completion.seed for completion in many] == [2**64 - 2, 2**64 - 1, 0, 1]
    # The prompt was computed for the first; the others compute its last token.
    assert [completion.usage.cached_tokens for completion in many] == [0, *[len(prompt) - 1] * 3]
    with Phi3Session(model=model) as fresh:
        for completion in many:
            again = fresh.generate(prompt, seed=completion.seed, temperature=1.5, max_tokens=20)
            assert again.tokens == completion.tokens
    assert len({tuple(completion.tokens) for completion in many}) > 1
    assert session.generate_many("hello", 1, GREEDY)[0].tokens == session.generate("hello", GREEDY).tokens


@pytest.mark.parametrize("n", [0, -1, 1.5, "2", None])
def test_how_many_is_a_number(session, n):
    with pytest.raises((InvalidOptionError, TypeError), match=r"\bn\b") as caught:
        session.generate_many("hello", n)
    assert getattr(caught.value, "option", "n") == "n"


def test_cancelling_ends_all_of_many(slow):
    timer = threading.Timer(0.3, slow.cancel)
    timer.start()
    completions = slow.generate_many([1, 2, 3], 1000, temperature=0, ignore_eos=True, max_tokens=50)
    timer.join()
    assert 1 <= len(completions) < 1000
    assert completions[-1].finish_reason == "cancelled"
    assert all(completion.finish_reason == "length" for completion in completions[:-1])


def test_a_call_that_is_refused_does_not_shield_what_is_under_way(session):
    stream = session.stream("hello", temperature=0, ignore_eos=True, max_tokens=50)
    next(stream)
    for refused in (lambda: session.generate("x"), lambda: session.score([1, 2]), lambda: session.logits([1])):
        with pytest.raises(SessionBusyError):
            refused()
    session.cancel()
    list(stream)
    assert stream.result.finish_reason == "cancelled"


def test_nothing_left_to_choose_is_told(session):
    every = range(session.model.info.vocabulary_size)
    with pytest.raises(InvalidOptionError) as caught:
        session.generate("hello", min_tokens=5, max_tokens=9, stop_token_ids=every)
    mentions(caught.value, "logit_bias", "min_tokens")
