"""The prompt's text before the completion's, with its log-probabilities where they are asked for."""

import asyncio
import math

import pytest

from candle_phi import GenerationConfig, Message, Phi3Session

GREEDY = GenerationConfig.greedy(max_tokens=12, ignore_eos=True)
ECHO = GREEDY.replace(echo=True)
# White space behind a control token is no token, so this text cannot be made out of its tokens.
PROMPT = "<|user|>\nWrite a haiku about ice hockey<|end|>\n<|assistant|>\n"


def test_a_text_comes_back_as_it_was_written(session):
    plain = session.generate(PROMPT, GREEDY)
    echoed = session.generate(PROMPT, ECHO)
    assert echoed.text == PROMPT + plain.text
    assert echoed.tokens == plain.tokens
    assert (echoed.logprobs, echoed.prompt_logprobs) == ([], [])
    assert echoed.usage.completion_tokens == plain.usage.completion_tokens
    # It costs nothing where no log-probabilities are asked for.
    assert echoed.usage.cached_tokens == echoed.usage.prompt_tokens - 1
    assert [completion.text for completion in session.generate_many(PROMPT, 2, ECHO)] == [echoed.text] * 2
    assert asyncio.run(session.agenerate(PROMPT, ECHO)).text == echoed.text


def test_token_ids_come_back_as_their_text(session):
    ids = session.tokenize(PROMPT, add_bos=True, parse_special=True)
    echoed = session.generate(ids, ECHO)
    assert echoed.text == session.detokenize(ids) + session.generate(ids, GREEDY).text
    assert "<|user|>" in echoed.text


def test_a_stream_begins_with_the_prompt(session):
    expected = session.generate(PROMPT, ECHO)
    stream = session.stream(PROMPT, ECHO)
    first = next(stream)
    assert (first.text, first.token_id, first.logprob) == (PROMPT, None, None)
    assert stream.result.text == PROMPT
    chunks = [first, *stream]
    assert "".join(map(str, chunks)) == stream.result.text == expected.text
    assert [chunk.token_id for chunk in chunks if chunk.token_id is not None] == expected.tokens

    async def read() -> str:
        async with session.astream(PROMPT, ECHO) as stream:
            return "".join([str(chunk) async for chunk in stream])

    assert asyncio.run(read()) == expected.text


def test_a_chat_comes_back_as_the_model_read_it_and_only_the_answer_is_said(session):
    plain = session.chat("Count from 3 to 7", GREEDY)
    said, read = session.messages, session.tokens[: plain.usage.prompt_tokens]
    session.rewind()
    echoed = session.chat("Count from 3 to 7", ECHO)
    assert echoed.text == session.detokenize(read) + plain.text
    assert session.messages == said
    streamed = "".join(map(str, session.chat_stream("And to 9", ECHO)))
    assert "Count from 3 to 7" in streamed
    assert streamed.endswith(session.messages[-1].content)


def test_stop_texts_are_looked_for_in_the_answer_only(session):
    completion = session.generate("hello hello", ECHO, stop="hello", max_tokens=3)
    assert completion.text.startswith("hello hello")
    assert len(completion.tokens) == 3


@pytest.mark.parametrize("prefill_chunk", [3, 512])
def test_the_prompts_log_probabilities_are_those_of_score(model, prefill_chunk):
    with Phi3Session(model=model, prefill_chunk=prefill_chunk) as session:
        ids = session.tokenize(PROMPT, add_bos=True, parse_special=True)
        completion = session.generate(PROMPT, ECHO, logprobs=3)
        assert [logprob.token_id for logprob in completion.prompt_logprobs] == ids[1:]
        assert [logprob.logprob for logprob in completion.prompt_logprobs] == session.score(ids)
        for logprob in completion.prompt_logprobs:
            assert len(logprob.top) == 3
            assert logprob.top[0][1] >= logprob.logprob
            assert math.exp(logprob.top[0][1]) <= 1
        assert len(completion.logprobs) == len(completion.tokens)
        assert session.generate([1], ECHO, logprobs=0).prompt_logprobs == []


def test_asking_for_them_changes_no_token(model):
    """With another way to the same logits a draw could turn out differently."""
    config = GenerationConfig(seed=3, temperature=1.5, max_tokens=40, logprobs=2)
    for executor in ("kernels", "candle"):
        with Phi3Session.demo(executor=executor) as one, Phi3Session.demo(executor=executor) as other:
            plain, echoed = one.generate(PROMPT, config), other.generate(PROMPT, config, echo=True)
            assert (plain.tokens, plain.logprobs) == (echoed.tokens, echoed.logprobs)


def test_all_of_the_prompt_is_computed_for_them(session):
    first = session.generate(PROMPT, ECHO, logprobs=1)
    again = session.generate(PROMPT, ECHO, logprobs=1)
    assert again.prompt_logprobs == first.prompt_logprobs
    assert again.usage.cached_tokens == 0
    assert again.usage.recomputed_tokens == again.usage.prompt_tokens - 1
    assert again.timings.prefill_tokens == again.usage.prompt_tokens
    assert session.generate(PROMPT, GREEDY).usage.cached_tokens == again.usage.prompt_tokens - 1


def test_a_prompt_that_was_shortened_comes_back_short(model):
    with Phi3Session(model=model, n_ctx=32) as session:
        completion = session.generate("ice hockey " * 40, ECHO, on_overflow="truncate_oldest", logprobs=0)
        left = completion.usage.prompt_tokens
        assert left < 32
        assert len(completion.prompt_logprobs) == left - 1
        ids = [1, *(logprob.token_id for logprob in completion.prompt_logprobs)]
        assert completion.text.startswith(session.detokenize(ids))


def test_a_stream_that_is_left_at_the_prompt_has_said_nothing(session, model):
    stream = session.chat_stream([Message.user("Hello")], ECHO)
    assert "Hello" in str(next(stream))
    stream.cancel()
    assert list(stream) == []
    assert session.messages == ()
    assert stream.result.finish_reason == "cancelled"
    with Phi3Session(model=model) as fresh:
        assert session.generate(PROMPT, GREEDY).tokens == fresh.generate(PROMPT, GREEDY).tokens
