"""What a function between the logits and the draw can do wrong, and what that does to the session."""

import numpy as np
import pytest

from candle_phi import InvalidOptionError
from generating import GREEDY, HAIKU, in_each_way, is_right
from messages import mentions


class Fault(Exception):  # noqa: N818 # an error of nobody's
    pass


@in_each_way
def test_what_it_raises_comes_out_as_it_is(session, model, way):
    raised = Fault("mine")

    def third(tokens, _logits):
        seen.append(len(tokens))
        if len(seen) == 3:
            raise raised

    seen = []
    with pytest.raises(Fault) as caught:
        way(session, GREEDY.replace(logits_processor=third))
    assert caught.value is raised
    assert caught.value.__cause__ is None
    assert caught.traceback[-1].name == "third"
    # The turn was not said, the session is free, and it computes what a new one does.
    assert session.messages == ()
    assert is_right(session, model)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, GeneratorExit])
def test_what_ends_a_program_comes_out_too(session, model, error):
    def end(_tokens, _logits):
        raise error

    with pytest.raises(error):
        session.generate(HAIKU, GREEDY, logits_processor=end)
    stream = session.stream(HAIKU, GREEDY, logits_processor=end)
    with pytest.raises(error):
        next(stream)
    assert is_right(session, model)


@in_each_way
@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration])
def test_what_would_end_a_loop_in_silence_is_told(session, model, way, error):
    def end(_tokens, _logits):
        raise error

    with pytest.raises(RuntimeError, match=f"logits_processor.*{error.__name__}") as caught:
        way(session, GREEDY.replace(logits_processor=end))
    assert isinstance(caught.value.__cause__, error)
    assert is_right(session, model)


def test_a_stream_that_failed_has_what_came_before(session):
    expected = session.generate(HAIKU, GREEDY)

    def third(tokens, _logits):
        if len(tokens) == expected.usage.prompt_tokens + 3:
            raise Fault

    stream = session.stream(HAIKU, GREEDY, logits_processor=third)
    texts = [str(next(stream)) for _ in range(3)]
    with pytest.raises(Fault):
        next(stream)
    assert list(stream) == []
    assert stream.result.tokens == expected.tokens[:3]
    assert stream.result.text.startswith("".join(texts))
    assert stream.result.finish_reason == "cancelled"


@in_each_way
@pytest.mark.parametrize(
    ("value", "named"),
    [
        (np.nan, ["NaN", 0]),
        (np.inf, ["inf", 0]),
        (-np.inf, ["-inf"]),
    ],
)
def test_logits_that_are_none_are_an_error(session, model, way, value, named):
    def spoil(_tokens, logits):
        np.frombuffer(logits, np.float32)[:] = value

    with pytest.raises(InvalidOptionError) as caught:
        way(session, GREEDY.replace(logits_processor=spoil, temperature=0.7))
    assert caught.value.option == "logits_processor"
    mentions(caught.value, *named)
    assert is_right(session, model)


def test_the_largest_numbers_are_numbers(session):
    def force(_tokens, logits):
        array = np.frombuffer(logits, np.float32)
        array[:] = np.finfo(np.float32).min
        array[300] = np.finfo(np.float32).max

    for temperature in (0, 0.1, 1, 100):
        found = session.generate(HAIKU, GREEDY, temperature=temperature, logits_processor=force, seed=1)
        assert found.tokens == [300] * 8


@pytest.mark.parametrize("returned", [1, [], np.zeros(4, np.float32)], ids=lambda value: type(value).__name__)
def test_logits_that_are_returned_are_not_passed_over(session, model, returned):
    with pytest.raises(TypeError, match=f"logits_processor.*{type(returned).__name__}"):
        session.generate(HAIKU, GREEDY, logits_processor=lambda _tokens, _logits: returned)
    assert is_right(session, model)


def test_a_buffer_of_another_length_is_refused(session, model):
    def shrink(_tokens, logits):
        memory = logits.obj
        logits.release()
        memory.clear()

    with pytest.raises((TypeError, BufferError)):
        session.generate(HAIKU, GREEDY, logits_processor=shrink)
    assert is_right(session, model)


def test_one_of_the_wrong_arguments_says_so(session, model):
    with pytest.raises(TypeError, match="positional argument"):
        session.generate(HAIKU, GREEDY, logits_processor=lambda: None)
    assert is_right(session, model)
