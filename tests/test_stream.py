import threading
import time

import pytest

from candle_phi import (
    Chunk,
    GenerationConfig,
    InvalidOptionError,
    Message,
    Phi3Session,
    SessionBusyError,
    SessionClosedError,
    TokenStream,
)
from messages import mentions

GREEDY = GenerationConfig.greedy(max_tokens=24)
LONG = GenerationConfig.greedy(ignore_eos=True)
HAIKU = "Write a haiku about ice hockey"


def test_the_chunks_joined_are_the_text(session):
    prompt = session.render_chat([Message.user(HAIKU)])
    for options in (
        {"temperature": 0},
        {"seed": 3},
        {"temperature": 1.5, "seed": 4},
        {"stop": "e", "temperature": 0},
    ):
        stream = session.stream(prompt, max_tokens=60, **options)
        chunks = list(stream)
        result = stream.result
        assert "".join(map(str, chunks)) == "".join(chunk.text for chunk in chunks) == result.text
        assert [chunk.token_id for chunk in chunks if chunk.token_id is not None] == result.tokens
        assert session.generate(prompt, max_tokens=60, **(options | {"seed": result.seed})).tokens == result.tokens


def test_bytes_that_are_no_character_arrive_as_the_text_has_them(session):
    byte = session.tokenize("\x00")[-1] + 0xF0  # byte tokens follow one another
    stream = session.stream("a", logit_bias={byte: 1000.0}, max_tokens=3, temperature=0)
    chunks = list(stream)
    assert stream.result.tokens == [byte] * 3
    assert "".join(map(str, chunks)) == stream.result.text == "\ufffd" * 3


def test_a_character_of_several_tokens_comes_whole(session):
    emoji = session.tokenize("😀", add_bos=False)
    assert session.detokenize(emoji).endswith("😀")
    assert len(list(session.stream("a", max_tokens=1, temperature=0))) <= 2


def test_a_chunk_has_a_token_and_its_log_probability(session):
    chunks = list(session.stream("hello", GREEDY, logprobs=2, ignore_eos=True))
    for chunk in chunks:
        assert isinstance(chunk, Chunk)
        if chunk.token_id is not None:
            assert chunk.logprob is not None
            assert chunk.logprob.token_id == chunk.token_id
            assert chunk.logprob.logprob <= 0
            assert len(chunk.logprob.top) == 2
            assert chunk.logprob.top[0][0] == chunk.token_id  # greedy
    assert all(chunk.logprob is None for chunk in session.stream("hello", GREEDY))


def test_nothing_is_computed_before_the_stream_is_read(session):
    stream = session.stream("hello", GREEDY)
    assert stream.result.tokens == []
    assert stream.result.finish_reason is None
    assert stream.result.timings.prefill_s == 0
    assert stream.result.timings.time_to_first_token_s is None
    assert stream.result.usage.prompt_tokens == len(session.tokenize("hello", add_bos=True))
    assert iter(stream) is stream


def test_the_result_grows_with_the_stream(session):
    stream = session.stream("hello", LONG, max_tokens=6)
    first = next(stream)
    assert stream.result.tokens == [first.token_id]
    assert stream.result.text == first.text
    assert "open" in repr(stream)
    rest = list(stream)
    assert stream.result.tokens == [
        first.token_id,
        *(chunk.token_id for chunk in rest if chunk.token_id is not None),
    ]
    assert stream.result.finish_reason == "length"
    assert "end" in repr(stream)
    assert next(stream, None) is None
    assert stream.result == stream.result


def test_leaving_the_loop_stops_the_work_and_frees_the_session(session):
    for _ in session.stream("hello", LONG):
        break
    assert session.generate("hello", GREEDY).text is not None
    for _ in session.chat_stream("hello", LONG):
        break
    session.score([1, 2])


def test_a_stream_that_was_never_read_is_given_up_with_its_last_reference(session):
    stream = session.stream("hello")
    with pytest.raises(SessionBusyError):
        session.generate("hello")
    del stream
    session.generate("hello", GREEDY)


def test_an_exception_in_the_loop_frees_the_session_where_with_is_used(session):
    with pytest.raises(ZeroDivisionError), session.stream("hello", LONG) as stream:  # noqa: PT012 # all of it
        for _ in stream:
            raise ZeroDivisionError
    session.generate("hello", GREEDY)
    assert stream.result.finish_reason == "cancelled"
    assert len(stream.result.tokens) == 1


def test_the_session_is_busy_while_a_stream_is_open(session):
    stream = session.stream("hello", LONG)
    next(stream)
    for call in (
        lambda: session.generate("a"),
        lambda: session.stream("a"),
        lambda: session.chat("a"),
        lambda: session.chat_stream("a"),
        lambda: session.score([1, 2]),
        lambda: session.logits([1]),
    ):
        with pytest.raises(SessionBusyError) as caught:
            call()
        mentions(caught.value, "close")
    # Text is the model's business.
    assert session.tokenize("a")
    assert next(stream).token_id is not None
    stream.close()
    stream.close()
    assert next(stream, None) is None
    session.generate("a", GREEDY)


def test_a_stream_at_its_end_keeps_nothing_busy(session):
    stream = session.stream("hello", GREEDY)
    list(stream)
    again = session.generate("hello", GREEDY)
    assert stream.result.tokens == again.tokens
    assert stream.result.text == again.text


def test_a_cancelled_stream_ends(session):
    stream = session.stream("hello", LONG)
    texts = [str(next(stream)) for _ in range(3)]
    stream.cancel()
    texts += map(str, stream)
    result = stream.result
    assert result.finish_reason == "cancelled"
    assert result.stop_reason is None
    assert len(result.tokens) == 3
    assert "".join(texts) == result.text
    session.generate("hello", GREEDY)


def test_a_stream_cancelled_before_it_is_read_computes_nothing(session):
    stream = session.stream("hello")
    stream.cancel()
    assert list(stream) == []
    assert stream.result.finish_reason == "cancelled"
    assert stream.result.tokens == []


def test_text_that_was_held_back_comes_with_the_cancelling(session):
    byte = session.tokenize("\x00")[-1] + 0xF0  # the first byte of four of a character
    stream = session.stream("a", logit_bias={byte: 1000.0}, temperature=0)
    texts = [str(next(stream))]
    assert texts == [""]
    stream.cancel()
    texts += map(str, stream)
    assert "".join(texts) == stream.result.text
    assert stream.result.text


def test_cancelling_from_another_thread_stops_the_reading_of_a_prompt(slow_path):
    with Phi3Session(slow_path, n_ctx=8192) as session:
        stream = session.stream([1] * 8000)
        timer = threading.Timer(0.3, stream.cancel)
        timer.start()
        started = time.monotonic()
        assert list(stream) == []
        print("cancelled within", time.monotonic() - started - 0.3, "s")
        timer.join()
        assert stream.result.finish_reason == "cancelled"
        assert session.generate([1, 2], max_tokens=1, ignore_eos=True).tokens


@pytest.mark.parametrize("leave", ["break", "cancel", "close", "drop"])
def test_a_chat_stream_that_was_left_is_taken_back(session, model, leave):
    session.chat("Hello", GREEDY)
    stream = session.chat_stream("What comes now is not said", LONG, max_tokens=200)
    next(stream)
    if leave == "break":
        for _ in stream:
            break
        stream.close()
    elif leave == "cancel":
        stream.cancel()
        list(stream)
    elif leave == "close":
        stream.close()
    del stream
    answer = session.chat(HAIKU, GREEDY)
    with Phi3Session(model=model) as fresh:
        fresh.chat("Hello", GREEDY)
        expected = fresh.chat(HAIKU, GREEDY)
    assert answer.tokens == expected.tokens
    assert answer.usage.prompt_tokens == expected.usage.prompt_tokens


def test_a_chat_stream_that_was_read_is_part_of_the_conversation(session, model):
    list(session.chat_stream("Hello", GREEDY))
    answer = session.chat(HAIKU, GREEDY)
    with Phi3Session(model=model) as fresh:
        fresh.chat("Hello", GREEDY)
        assert fresh.chat(HAIKU, GREEDY).tokens == answer.tokens


def test_closing_the_session_ends_its_streams(model):
    session = Phi3Session(model=model)
    stream = session.stream("hello", LONG)
    next(stream)
    session.close()
    with pytest.raises(SessionClosedError):
        next(stream)
    assert next(stream, None) is None
    assert len(stream.result.tokens) == 1


def test_resetting_the_session_ends_its_streams(session):
    stream = session.stream("hello", LONG)
    next(stream)
    session.reset()
    with pytest.raises(SessionBusyError):
        next(stream)
    assert list(stream) == []
    session.generate("hello", GREEDY)


def test_a_stream_outlives_the_name_of_its_session(model):
    def stream():
        return Phi3Session(model=model).stream("hello", LONG, max_tokens=5)

    assert len([chunk for chunk in stream() if chunk.token_id is not None]) == 5


def test_two_threads_cannot_read_one_stream_at_once(slow_path):
    with Phi3Session(slow_path, n_ctx=8192) as session, session.stream([1] * 4000) as stream:
        thread = threading.Thread(target=lambda: next(stream, None))
        thread.start()
        time.sleep(0.3)
        with pytest.raises(SessionBusyError):
            next(stream)
        stream.cancel()
        thread.join()
        assert stream.result.finish_reason == "cancelled"


def test_a_stream_is_checked_when_it_is_made(session):
    with pytest.raises(InvalidOptionError):
        session.stream([])
    assert isinstance(session.stream("a"), TokenStream)


def test_a_cancelled_stream_frees_the_session_at_once_and_keeps_its_text(session):
    stream = session.chat_stream("Count from 3 to 7", temperature=0.0)
    text = "".join(str(next(stream)) for _ in range(4))
    stream.cancel()
    assert session.generate("hello", max_tokens=1, ignore_eos=True).tokens
    text += "".join(map(str, stream))
    stream.cancel()
    assert stream.result.text == text
    assert stream.result.finish_reason == "cancelled"


def test_the_progress_of_the_prompt_is_counted_in_tokens(session):
    with session.stream("Hello", max_tokens=3, ignore_eos=True) as stream:
        total = stream.result.usage.prompt_tokens
        assert stream.prefill_progress == (0, total)
        next(stream)
        assert stream.prefill_progress == (total, total)
        list(stream)
        assert stream.prefill_progress == (total, total)
    # What the cache has is not read again.
    with session.stream("Hello", max_tokens=1) as stream:
        assert stream.prefill_progress == (0, 1)


def test_the_progress_grows_while_another_thread_reads_the_prompt(slow_path):
    with Phi3Session(slow_path, n_ctx=4096) as session, session.stream([5] * 3000, max_tokens=1) as stream:
        reader = threading.Thread(target=next, args=(stream,))
        reader.start()
        seen = {stream.prefill_progress for _ in iter(reader.is_alive, False)}
        reader.join()
        assert len(seen) > 3
        assert all(0 <= done <= total == 3000 for done, total in seen)
