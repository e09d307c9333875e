"""What happens where the context is full: `on_overflow`."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from candle_phi import (
    Completion,
    ContextLengthError,
    GenerationConfig,
    InvalidOptionError,
    Message,
    Phi3Model,
    Phi3Session,
)
from candle_phi.types import OnOverflow
from messages import mentions
from tiny_gguf import TinyPhi3, random_ids, write

N_CTX = 64
GREEDY = GenerationConfig.greedy(max_tokens=16)
OLDEST = GREEDY.replace(on_overflow="truncate_oldest")
STOP = GREEDY.replace(on_overflow="stop")
BOS = 1
HAIKU = "Write a haiku about ice hockey"
RULE = Message.system("Be brief.")

MODELS = {
    "plain": TinyPhi3(),
    "sliding window": TinyPhi3(sliding_window=10),
    "LongRoPE": TinyPhi3(
        rope_factors_short=(1.0, 1.05, 1.1, 1.2, 1.4, 1.7, 2.0, 2.5),
        rope_factors_long=(1.0, 1.5, 2.0, 4.0, 8.0, 16.0, 24.0, 32.0),
        original_context_length=N_CTX - 20,
        attn_factor=1.19,
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def exact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Phi3Model:
    """A model of F32 weights, so that two ways to the same logits find the same greedy token."""
    return Phi3Model(write(tmp_path_factory.mktemp("overflow") / "tiny.gguf", MODELS[request.param]))


@pytest.fixture
def short(model: Phi3Model) -> Iterator[Phi3Session]:
    """A session on the embedded model that is soon full."""
    with Phi3Session(model=model, n_ctx=N_CTX) as session:
        yield session


def of_exact(model: Phi3Model) -> Phi3Session:
    return Phi3Session(model=model, n_ctx=N_CTX, kv_dtype="f32")


def without_limits(tokens: list[int], count: int, model: Phi3Model) -> list[int]:
    """What truncation says it does, done by hand: a new session for each piece of the answer."""
    sequence, answer = list(tokens), []
    while len(answer) < count:
        if len(sequence) > N_CTX:
            sequence = [BOS, *sequence[-(N_CTX // 2 - 1) :]]
        with of_exact(model) as fresh:
            fits = N_CTX - len(sequence) + 1
            piece = fresh.generate(sequence, GREEDY, max_tokens=min(fits, count - len(answer)), ignore_eos=True)
        answer += piece.tokens
        sequence += piece.tokens
    return answer


def said(count: int) -> list[Message]:
    """A conversation of so many turns, the last one to be answered."""
    messages: list[Message] = []
    for index in range(count):
        messages += [Message.user(f"{HAIKU} {index}"), Message.assistant("Ice hockey at dusk")]
    return messages[:-1]


def counted(completion: Completion) -> tuple[int, int]:
    return completion.usage.prompt_tokens, completion.usage.truncated_tokens


def test_by_default_a_long_prompt_is_an_error_that_names_the_ways_out(short):
    with pytest.raises(ContextLengthError) as caught:
        short.generate([BOS] * 80)
    mentions(caught.value, 80, N_CTX, "n_ctx", short.model.info.context_length, "on_overflow", '"truncate_oldest"')
    assert (caught.value.prompt_tokens, caught.value.context_length) == (80, N_CTX)


def test_leaving_out_the_oldest_is_advised_only_where_it_helps(short):
    short_turn, long_turn = Message.user("go"), Message.user("winter " * 80)
    answer = Message.assistant("Ice hockey at dusk")
    for messages, helps in [
        (said(8), True),
        ([long_turn, answer, short_turn], True),
        (long_turn.content, False),
        ([RULE, long_turn], False),
        ([short_turn, answer, long_turn], False),
        ([Message.system("winter " * 80), short_turn, answer, short_turn], False),
    ]:
        with pytest.raises(ContextLengthError) as caught:
            short.chat(messages)
        assert ("truncate_oldest" in str(caught.value)) is helps, messages
        if helps:
            assert short.chat(messages, OLDEST).usage.truncated_tokens > 0
            short.reset()


def test_a_text_that_is_too_long_behind_others_is_told_the_same(model):
    with Phi3Session(model=model, n_ctx=N_CTX) as session:
        session.chat("go", GREEDY)
        with pytest.raises(ContextLengthError) as caught:
            session.chat("winter " * 80)
        assert "truncate_oldest" not in str(caught.value)
        with pytest.raises(ContextLengthError, match="truncate_oldest"):
            session.chat("winter " * 40)


def test_stop_ends_at_once_and_says_what_it_needs(short, model):
    for completion in (
        short.generate([BOS] * 80, STOP),
        short.generate([BOS] * 80, STOP, echo=True, logprobs=2),
        *short.generate_many([BOS] * 80, 2, STOP),
        asyncio.run(short.agenerate([BOS] * 80, STOP)),
        short.chat(said(8), STOP),
        asyncio.run(short.achat(said(8), STOP)),
    ):
        assert (completion.text, completion.tokens, completion.finish_reason) == ("", [], "length")
        assert completion.usage.prompt_tokens > N_CTX
        assert completion.usage.truncated_tokens == 0
        assert completion.prompt_logprobs == []
    assert short.chat(said(8), STOP).usage.prompt_tokens == len(model.render_chat_tokens(said(8)))
    stream = short.stream([BOS] * 80, STOP)
    # The session is not busy with what has ended.
    assert short.generate("hello", GREEDY).tokens
    assert list(stream) == []
    assert stream.result.finish_reason == "length"


def test_what_stop_ended_was_not_said(short, model):
    short.chat(HAIKU, GREEDY)
    before = short.messages, short.tokens
    assert short.chat("again and again " * 30, STOP).usage.prompt_tokens > N_CTX
    assert list(short.chat_stream("again and again " * 30, STOP)) == []

    async def read() -> None:
        async with short.achat_stream("again and again " * 30, STOP) as stream:
            assert [chunk async for chunk in stream] == []

    asyncio.run(read())
    assert (short.messages, short.tokens) == before
    with Phi3Session(model=model, n_ctx=N_CTX) as fresh:
        fresh.chat(HAIKU, GREEDY)
        assert fresh.chat("Hello", GREEDY, max_tokens=4).tokens == short.chat("Hello", GREEDY, max_tokens=4).tokens


@pytest.mark.parametrize("on_overflow", ["error", "stop"])
def test_an_answer_ends_where_the_context_is_full(short, on_overflow):
    full = short.generate([BOS, 300], GREEDY, max_tokens=None, ignore_eos=True, on_overflow=on_overflow)
    assert full.finish_reason == "length"
    assert full.usage.total_tokens == N_CTX + 1
    assert full.usage.truncated_tokens == 0


@pytest.mark.parametrize("on_overflow", ["stop", "truncate_oldest"])
def test_what_fits_is_left_as_it_is(short, on_overflow):
    prompt = [BOS, *random_ids(N_CTX - 16)]
    expected = short.generate(prompt, GREEDY, ignore_eos=True)
    completion = short.generate(prompt, GREEDY, ignore_eos=True, on_overflow=on_overflow)
    assert (completion.tokens, completion.finish_reason) == (expected.tokens, "length")
    assert counted(completion) == (len(prompt), 0)


def test_a_raw_prompt_loses_its_oldest_tokens_but_not_the_first(exact):
    prompt = [BOS, *random_ids(100)]
    with of_exact(exact) as session:
        completion = session.generate(prompt, OLDEST, ignore_eos=True)
        left = [BOS, *prompt[-(N_CTX - 16) :]]
        assert counted(completion) == (len(left), len(prompt) - len(left))
        assert completion.truncated_messages == []
        with of_exact(exact) as fresh:
            assert fresh.generate(left, GREEDY, ignore_eos=True).tokens == completion.tokens
        # What is left is in the cache as it is.
        again = session.generate(left, OLDEST, ignore_eos=True)
        assert again.tokens == completion.tokens
        assert again.usage.cached_tokens + again.usage.recomputed_tokens == len(left) - 1
    with of_exact(exact) as session:
        # Without a limit there is room for a quarter of the context.
        endless = session.generate(prompt, OLDEST, max_tokens=None, timeout=1e-9)
        assert endless.usage.prompt_tokens == N_CTX - N_CTX // 4
        assert session.generate([9] * 100, OLDEST).usage.prompt_tokens == N_CTX - 15


@pytest.mark.parametrize("executor", ["kernels", "candle"])
@pytest.mark.parametrize("kind", MODELS)
def test_an_answer_goes_on_past_the_end_of_the_context(tmp_path, kind, executor):
    model = Phi3Model(write(tmp_path / "tiny.gguf", MODELS[kind]), executor=executor)
    prompt = [BOS, *random_ids(20)]
    with of_exact(model) as session:
        stream = session.stream(prompt, OLDEST, max_tokens=150, ignore_eos=True)
        text = "".join(map(str, stream))
        result = stream.result
        assert result.tokens == without_limits(prompt, 150, model)
        assert (result.text, result.finish_reason) == (text, "length")
        cuts = 4  # at 44 tokens, and then each 33: 65 tokens are cut to 32
        assert counted(result) == (21, cuts * (N_CTX + 1 - N_CTX // 2))
        assert result.usage.recomputed_tokens >= cuts * (N_CTX // 2 - 2)
        # The session is as any other afterwards.
        with of_exact(model) as fresh:
            assert session.generate(prompt, GREEDY).tokens == fresh.generate(prompt, GREEDY).tokens
        same = session.generate_many(prompt, 2, OLDEST, max_tokens=150, ignore_eos=True)
        assert [completion.tokens for completion in same] == [result.tokens] * 2
        assert (
            asyncio.run(session.agenerate(prompt, OLDEST, max_tokens=150, ignore_eos=True)).tokens == result.tokens
        )


def test_penalties_and_stop_texts_see_past_what_was_left_out(short):
    prompt = [BOS, *random_ids(20)]
    whole = short.generate(prompt, OLDEST, max_tokens=120, ignore_eos=True)
    stop = whole.text[-20:-12]
    stopped = short.generate(prompt, OLDEST, max_tokens=120, ignore_eos=True, stop=stop)
    assert stopped.text == whole.text[: whole.text.index(stop)]
    forbidden = short.generate(
        prompt, OLDEST, max_tokens=200, ignore_eos=True, repeat_last_n=1000, presence_penalty=1e6
    )
    assert len(set(forbidden.tokens)) == 200


def test_a_chat_loses_its_oldest_turns_and_nothing_else(model):
    messages = [RULE, *said(12)]
    n_ctx = 3 * N_CTX
    with Phi3Session(model=model, n_ctx=n_ctx) as session:
        completion = session.chat(messages, OLDEST)
        gone = completion.truncated_messages
        assert gone == messages[1 : 1 + len(gone)]
        assert len(gone) % 2 == 0
        left = [RULE, *messages[1 + len(gone) :]]
        assert left[1].role == "user"
        assert left[-1] == messages[-1]
        assert len(left) > 4
        tokens = model.render_chat_tokens(left)
        assert counted(completion) == (len(tokens), len(model.render_chat_tokens(messages)) - len(tokens))
        # Half of the context at most, and no more was left out than that takes.
        assert len(tokens) <= n_ctx // 2 < len(model.render_chat_tokens([RULE, *messages[len(gone) - 1 :]]))
        with Phi3Session(model=model, n_ctx=n_ctx) as fresh:
            assert fresh.chat(left, GREEDY).tokens == completion.tokens
        # What was left out has left the conversation too.
        assert list(session.messages) == [*left, Message.assistant(completion.text)]
        assert session.tokens == [*tokens, *completion.tokens]


def test_a_long_turn_is_kept_where_nothing_else_would_be_left(model):
    """What was said last is what the next message is about."""
    long = [Message.user("ice hockey " * 27), Message.assistant("Ice hockey at dusk")]
    messages = [*said(3), Message.assistant("Ice."), *long, Message.user("Who are you?")]
    left = [*long, messages[-1]]
    with Phi3Session(model=model, n_ctx=128) as session:
        tokens = len(model.render_chat_tokens(left))
        assert 128 // 2 < tokens <= 128 - 15
        completion = session.chat(messages, OLDEST)
        assert completion.usage.prompt_tokens == tokens
        assert list(session.messages[:3]) == left
        # With no room for the answer it goes, too.
        assert session.chat("Hello", OLDEST, max_tokens=50).truncated_messages[:2] == long


def test_a_conversation_goes_on_for_ever(short, model):
    gone: list[Message] = []
    for turn in range(12):
        before = short.messages
        completion = short.chat(f"{HAIKU} {turn}", OLDEST)
        left = [*before, Message.user(f"{HAIKU} {turn}")][len(completion.truncated_messages) :]
        if completion.truncated_messages:
            with Phi3Session(model=model, n_ctx=N_CTX) as fresh:
                assert fresh.chat(left, GREEDY).tokens == completion.tokens
        else:
            assert completion.usage.cached_tokens >= len(before)
        assert list(short.messages) == [*left, Message.assistant(completion.text)]
        assert len(short.tokens) <= N_CTX
        gone += completion.truncated_messages
    # All that was ever said is here or was reported.
    assert [message.content for message in [*gone, *short.messages] if message.role == "user"] == [
        f"{HAIKU} {turn}" for turn in range(12)
    ]


def test_turns_are_taken_back_one_by_one_after_some_were_left_out(model):
    with Phi3Session(model=model, n_ctx=200) as session:
        session.chat([RULE, Message.user("Hello")], GREEDY)
        turns = [session.messages]
        while True:
            completion = session.chat(f"{HAIKU} {len(turns)}", OLDEST)
            turns.append(session.messages[-2:])
            if completion.truncated_messages:
                break
        left = session.messages
        assert left[0] == RULE
        assert len(left) >= 5
        while len(session.messages) > 3:
            before = session.messages
            assert session.rewind() == list(before[-2:])
            assert session.messages == before[:-2]
            answer = session.fork().chat("Count from 3 to 7", GREEDY)
            with Phi3Session(model=model, n_ctx=200) as fresh:
                expected = fresh.chat([*before[:-2], Message.user("Count from 3 to 7")], GREEDY)
            assert answer.usage.prompt_tokens == expected.usage.prompt_tokens
            assert answer.tokens == expected.tokens
        # What the system said is part of the oldest turn that is left.
        assert session.rewind() == list(left[:3])
        assert (session.messages, session.tokens) == ((), [])


@pytest.mark.parametrize("leave", ["cancel", "close", "timeout"])
def test_a_turn_that_is_taken_back_brings_back_what_was_left_out_for_it(short, leave):
    short.chat(said(2), GREEDY, max_tokens=4)
    before = short.messages, short.tokens
    timeout = 1e-9 if leave == "timeout" else None
    stream = short.chat_stream("again and again " * 3, OLDEST, ignore_eos=True, max_tokens=100, timeout=timeout)
    assert stream.result.truncated_messages
    next(stream, None)
    if leave == "cancel":
        stream.cancel()
    elif leave == "close":
        stream.close()
    list(stream)
    assert (short.messages, short.tokens) == before


def test_a_chats_answer_goes_on_without_its_oldest_turns(exact):
    messages = [RULE, Message.user("one two three"), Message.assistant("five six"), Message.user("go")]
    whole = exact.render_chat_tokens(messages)
    least = exact.render_chat_tokens([RULE, messages[-1]])
    before = N_CTX + 1 - len(whole)
    assert 15 < before < 40
    assert len(least) + before <= N_CTX * 3 // 4
    with of_exact(exact) as session:
        completion = session.chat(messages, OLDEST, max_tokens=40, ignore_eos=True)
        assert completion.usage.prompt_tokens == len(whole)
        assert completion.truncated_messages == messages[1:3]
        assert list(session.messages) == [RULE, messages[-1], Message.assistant(completion.text)]
        with of_exact(exact) as fresh:
            assert (
                fresh.generate(whole, GREEDY, max_tokens=before, ignore_eos=True).tokens
                == completion.tokens[:before]
            )
            rest = fresh.generate(
                [*least, *completion.tokens[:before]], GREEDY, max_tokens=40 - before, ignore_eos=True
            )
        assert rest.tokens == completion.tokens[before:]


def test_of_an_answer_without_turns_before_it_the_oldest_is_left_out(exact):
    prompt = exact.render_chat_tokens([Message.user("go")])
    with of_exact(exact) as session:
        completion = session.chat("go", OLDEST, max_tokens=120, ignore_eos=True)
        assert len(completion.tokens) == 120
        assert completion.truncated_messages == []
        place = N_CTX - len(prompt)
        sequence, answer = list(prompt), []
        while len(answer) < 120:
            if len(sequence) > N_CTX:
                sequence = [*prompt, *answer[-(place // 2) :]]
            with of_exact(exact) as fresh:
                most = min(N_CTX - len(sequence) + 1, 120 - len(answer))
                piece = fresh.generate(sequence, GREEDY, max_tokens=most, ignore_eos=True).tokens
            answer += piece
            sequence += piece
        assert completion.tokens == answer
        assert session.tokens == sequence
        assert list(session.messages) == [Message.user("go"), Message.assistant(completion.text)]
        # A full conversation can still be gone on with.
        after = session.chat("one two three four five six seven", OLDEST)
        assert after.truncated_messages == [Message.user("go"), Message.assistant(completion.text)]


def test_what_may_not_be_left_out_can_fill_the_context(short, model):
    long = Message.user("ice hockey " * 18)
    tokens = len(model.render_chat_tokens([long]))
    assert N_CTX * 3 // 4 < tokens <= N_CTX
    completion = short.chat([*said(2), long], OLDEST, max_tokens=None, ignore_eos=True)
    assert completion.truncated_messages == said(2)
    assert (completion.finish_reason, completion.usage.prompt_tokens) == ("length", tokens)
    assert completion.usage.total_tokens == N_CTX + 1
    too_long = Message.user("winter " * 80)
    for messages, kept in [
        ([too_long], [too_long]),
        ([RULE, too_long], [RULE, too_long]),
        ([*said(2), too_long], [too_long]),
    ]:
        with pytest.raises(ContextLengthError) as caught:
            short.chat(messages, OLDEST)
        assert caught.value.prompt_tokens == len(model.render_chat_tokens(kept))
        assert "truncate_oldest" not in str(caught.value)
    assert list(short.messages) == [long, Message.assistant(completion.text)]


def test_the_rest_of_an_answer_is_written_without_the_oldest_turns(short, model):
    messages = [*said(8), Message.assistant("Ice hockey at")]
    completion = short.chat(messages, OLDEST, continue_final_message=True)
    left = messages[len(completion.truncated_messages) :]
    assert 0 < len(left) < len(messages)
    with Phi3Session(model=model, n_ctx=N_CTX) as fresh:
        expected = fresh.chat(left, GREEDY, continue_final_message=True)
    assert completion.tokens == expected.tokens
    assert list(short.messages) == [*left[:-1], Message.assistant("Ice hockey at" + completion.text)]


def test_the_smallest_contexts_do_not_hang(model):
    for n_ctx in (1, 2, 3, 4, 5):
        with Phi3Session(model=model, n_ctx=n_ctx) as session:
            completion = session.generate([BOS, 5, 7, 9, 11, 13], OLDEST, max_tokens=12, ignore_eos=True)
            assert len(completion.tokens) == 12
            with pytest.raises(ContextLengthError):
                session.chat("hello", OLDEST)


def test_the_report_prints_what_was_left_out(short):
    completion = short.chat([RULE, *said(8)], OLDEST)
    assert "truncated_tokens=" in repr(completion.usage)
    assert str(completion.usage.truncated_tokens) in completion._repr_html_()


@pytest.mark.parametrize("wrong", ["shift", "", "Error", 1, ["stop"]])
def test_another_policy_is_refused_and_the_ones_that_there_are_named(wrong):
    error = InvalidOptionError if isinstance(wrong, str) else TypeError
    with pytest.raises(error) as caught:
        GenerationConfig(on_overflow=wrong)
    mentions(caught.value, "on_overflow")
    if isinstance(caught.value, InvalidOptionError):
        assert caught.value.option == "on_overflow"
        mentions(caught.value, *get_args(OnOverflow))


def test_a_file_names_no_policy(tmp_path: Path) -> None:
    """A prompt that is too long for another reason, an id that is none, is an error with each of them."""
    with Phi3Session(write(tmp_path / "tiny.gguf", TinyPhi3()), n_ctx=16) as session:
        for config in (GREEDY, STOP, OLDEST):
            with pytest.raises(InvalidOptionError):
                session.generate([], config)
            with pytest.raises(InvalidOptionError):
                session.generate([10**6] * 40, config)
