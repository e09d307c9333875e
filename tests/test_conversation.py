"""A conversation can be looked at, taken back and forked."""

import logging

import pytest

from candle_phi import (
    GenerationConfig,
    InvalidOptionError,
    Message,
    Phi3Session,
    SessionBusyError,
    SessionClosedError,
)
from messages import mentions

GREEDY = GenerationConfig.greedy(max_tokens=24)
HAIKU = "Write a haiku about ice hockey"
WHO = "Who are you?"


def test_the_conversation_is_what_was_said_and_answered(session):
    assert session.messages == ()
    assert session.tokens == []
    first = session.chat(HAIKU, GREEDY).text
    second = session.chat(WHO, GREEDY).text
    assert list(session.messages) == [
        Message.user(HAIKU),
        Message.assistant(first),
        Message.user(WHO),
        Message.assistant(second),
    ]
    assert HAIKU in session.detokenize(session.tokens)
    assert session.detokenize(session.tokens).rstrip().endswith(second.strip())
    session.generate("not a part of it", GREEDY)
    assert len(session.messages) == 4


def test_the_messages_are_a_snapshot(session):
    session.chat(HAIKU, GREEDY)
    before = session.messages
    assert isinstance(before, tuple)
    session.chat(WHO, GREEDY)
    assert session.messages[:2] == before
    assert session.chat(before, GREEDY, continue_final_message=True).tokens is not None


def test_another_try_says_what_a_fresh_conversation_says(session, model):
    session.chat(HAIKU, GREEDY)
    before = session.tokens
    session.chat("something else", GREEDY)
    taken_back = session.rewind()
    assert [message.role for message in taken_back] == ["user", "assistant"]
    assert taken_back[0].content == "something else"
    assert session.tokens == before
    again = session.chat(WHO, GREEDY)
    # What is left of the conversation is in the cache.
    assert again.usage.cached_tokens >= len(before) - 1
    with Phi3Session(model=model) as fresh:
        fresh.chat(HAIKU, GREEDY)
        assert fresh.chat(WHO, GREEDY).tokens == again.tokens


def test_several_turns_are_taken_back_at_once(session, model):
    for text in (HAIKU, WHO, "Hello"):
        session.chat(text, GREEDY)
    assert [message.content for message in session.rewind(2)][::2] == [WHO, "Hello"]
    assert len(session.messages) == 2
    assert session.rewind(0) == []
    assert len(session.rewind(1)) == 2
    assert session.messages == ()
    with Phi3Session(model=model) as fresh:
        assert session.chat(HAIKU, GREEDY).tokens == fresh.chat(HAIKU, GREEDY).tokens


def test_a_whole_conversation_is_one_turn(session):
    said = [Message.user(HAIKU), Message.assistant("Ice."), Message.user(WHO)]
    session.chat(said, GREEDY)
    session.chat("Hello", GREEDY)
    assert len(session.rewind()) == 2
    assert len(session.messages) == 4
    assert session.rewind()[:3] == said
    assert session.messages == ()


def test_more_turns_than_there_are_cannot_be_taken_back(session):
    session.chat(HAIKU, GREEDY)
    with pytest.raises(InvalidOptionError) as caught:
        session.rewind(2)
    assert caught.value.option == "turns"
    mentions(caught.value, 1, 2)
    assert len(session.messages) == 2
    for wrong in (-1, 1.5, "1", True):
        with pytest.raises((InvalidOptionError, TypeError), match="turns"):
            session.rewind(wrong)
    session.reset()
    with pytest.raises(InvalidOptionError) as caught:
        session.rewind()
    assert caught.value.option == "turns"
    mentions(caught.value, 0, 1)


def test_a_fork_goes_its_own_way(session, model):
    session.chat(HAIKU, GREEDY)
    fork = session.fork()
    assert fork.messages == session.messages
    assert (fork.model, fork.config, fork.n_ctx) == (session.model, session.config, session.n_ctx)
    answer = fork.chat(WHO, GREEDY)
    assert answer.usage.cached_tokens > 0
    assert len(session.messages) == 2
    assert session.chat("Hello", GREEDY).tokens != []
    assert fork.messages[2] == Message.user(WHO)
    with Phi3Session(model=model) as fresh:
        fresh.chat(HAIKU, GREEDY)
        assert fresh.chat(WHO, GREEDY).tokens == answer.tokens
    session.close()
    # The fork does not need the session that it came from.
    assert fork.chat("Hello", GREEDY).tokens
    fork.close()


def test_a_fork_can_be_rewound(session):
    session.chat(HAIKU, GREEDY)
    with session.fork() as fork:
        assert len(fork.rewind()) == 2
        assert fork.messages == ()
    assert len(session.messages) == 2


def test_a_session_at_work_is_not_forked_or_rewound(session):
    session.chat(HAIKU, GREEDY)
    stream = session.chat_stream(WHO, GREEDY)
    next(stream)
    for call in (session.fork, session.rewind):
        with pytest.raises(SessionBusyError):
            call()
    # Looking at it disturbs nothing.
    assert len(session.messages) == 2
    list(stream)
    assert len(session.messages) == 4


def test_a_closed_session_has_no_conversation(session):
    session.close()
    for call in (session.fork, session.rewind, lambda: session.messages, lambda: session.tokens):
        with pytest.raises(SessionClosedError):
            call()
    session.cancel()


def test_the_last_message_is_gone_on_with(session, model):
    answer = session.chat(HAIKU, GREEDY)
    cut = answer.text[: len(answer.text) // 2].rstrip()
    said = [Message.user(HAIKU), Message.assistant(cut)]
    rest = session.chat(said, GREEDY, continue_final_message=True)
    expected = session.model.render_chat_tokens(said, add_generation_prompt=False, continue_final_message=True)
    with Phi3Session(model=model) as fresh:
        assert fresh.generate(expected, GREEDY).tokens == rest.tokens
    assert list(session.messages) == [Message.user(HAIKU), Message.assistant(cut + rest.text)]
    assert session.chat(WHO, GREEDY).tokens
    assert len(session.messages) == 4
    streamed = list(session.chat_stream(said, GREEDY, continue_final_message=True))
    assert "".join(map(str, streamed)) == rest.text


@pytest.mark.thread_unsafe(reason="loggers are the process's")
def test_a_last_message_of_the_assistant_is_answered_with_a_warning(session, caplog):
    said = [Message.user(HAIKU), Message.assistant("Ice")]
    with caplog.at_level(logging.WARNING, logger="candle_phi"):
        session.chat(said, GREEDY, continue_final_message=True)
        session.chat(WHO, GREEDY)
        assert not caplog.records
        answer = session.chat(said, GREEDY)
    assert [record.name for record in caplog.records] == ["candle_phi.chat"]
    assert list(session.messages) == [*said, Message.assistant(answer.text)]


def test_a_system_message_alone_is_answered(session):
    session.chat([Message.system("Count from 3 to 7")], GREEDY)
    assert [message.role for message in session.messages] == ["system", "assistant"]


def test_only_an_answer_is_gone_on_with(session):
    with pytest.raises(TypeError, match="continue_final_message"):
        session.chat(HAIKU, GREEDY, continue_final_message=True)
    with pytest.raises(InvalidOptionError):
        session.chat([Message.user(HAIKU)], GREEDY, continue_final_message=True)
    with pytest.raises(TypeError, match="continue_final_message"):
        session.chat([Message.user(HAIKU)], GREEDY, continue_final_message="yes")
    assert session.messages == ()
