"""How values show themselves, and what can be copied and pickled."""

import asyncio
import copy
import multiprocessing
import pickle
import re
from html.parser import HTMLParser

import pytest

import public_surface
from candle_phi import (
    AsyncTokenStream,
    Chunk,
    Completion,
    ContextLengthError,
    GenerationConfig,
    Message,
    ModelInfo,
    Phi3Model,
    Phi3Session,
    SessionConfig,
    Timings,
    TokenLogprob,
    TokenStream,
    Usage,
)

GREEDY = GenerationConfig.greedy(max_tokens=40, ignore_eos=True)
EVIL = "<script>alert(\"ice\") & 'hockey'</script>"
TIMINGS = Timings(
    load_s=0.123456789,
    prefill_s=2.0,
    decode_s=4.0,
    time_to_first_token_s=None,
    prefill_tokens=10,
    decode_tokens=1000,
)


def completion(**changes) -> Completion:
    whole = {
        "text": "Ice hockey at dusk",
        "tokens": list(range(300)),
        "finish_reason": "stop",
        "stop_reason": 7,
        "seed": 3,
        "usage": Usage(prompt_tokens=1234, completion_tokens=300, truncated_tokens=5),
        "timings": TIMINGS,
        "config": GenerationConfig(seed=3),
        "logprobs": [TokenLogprob(token, -0.5, ((token, -0.5), (4, -1.0))) for token in range(300)],
    }
    return Completion(**(whole | changes))


class Text(HTMLParser):
    """What a reader sees of HTML, and whether it is well nested."""

    def __init__(self, html):
        super().__init__()
        self.seen, self.open, self.tags = [], [], set()
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, _attributes):
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.seen.append(data)

    def __contains__(self, text):
        return text in " ".join(self.seen)


def test_a_completion_is_shown_on_a_line_or_two():
    shown = repr(completion())
    assert shown == (
        "Completion(text='Ice hockey at dusk', tokens=<300 items>, finish_reason='stop', stop_reason=7, seed=3, "
        "usage=Usage(prompt_tokens=1234, completion_tokens=300, truncated_tokens=5), logprobs=<300 items>, ...)"
    )
    assert repr(completion(tokens=[1, 2], logprobs=[])).count("tokens=[1, 2]") == 1
    endless = completion(text="ice " * 5000, truncated_messages=[Message.user("x" * 10_000)] * 3)
    assert len(repr(endless)) < 800
    assert "...(20,000 characters)" in repr(endless)


def test_a_real_completion_is_shown_on_a_line_or_two(session):
    found = session.chat("Write a haiku about ice hockey", GREEDY, logprobs=20, echo=True)
    assert len(repr(found)) < 400
    for alternatives in (0, 1, 5):
        found = session.generate("Once upon", max_tokens=20, logprobs=alternatives, echo=True)
        assert len(repr(found)) < 400
        assert "prompt_logprobs=<5 items>" in repr(found)
        assert all(len(repr(token)) < 150 for token in found.prompt_logprobs)
    assert len(repr(next(session.stream("hello", GREEDY, logprobs=20)))) < 200
    assert len(repr(session.model.info)) < 250
    assert "\n" not in repr(found)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Message.user("hi"), "Message(role='user', content='hi')"),
        (Chunk("hi", 3), "Chunk(text='hi', token_id=3)"),
        (Chunk("hi"), "Chunk(text='hi')"),
        (Usage(1, 2), "Usage(prompt_tokens=1, completion_tokens=2)"),
        (TokenLogprob(3, -1.25), "TokenLogprob(token_id=3, logprob=-1.25)"),
        (
            TokenLogprob(3, -1.23456789, ((4, -0.123456789), (3, -1.23456789))),
            "TokenLogprob(token_id=3, logprob=-1.23457, top=((4, -0.123457), (3, -1.23457)))",
        ),
        (GenerationConfig(stop="x" * 200), "GenerationConfig(stop=<1 item>)"),
        (GenerationConfig(logit_bias={4: -float("inf")}), "GenerationConfig(logit_bias={4: -inf})"),
        (GenerationConfig(), "GenerationConfig()"),
        (GenerationConfig.greedy(max_tokens=4), "GenerationConfig(max_tokens=4, temperature=0.0)"),
        (GenerationConfig(logit_bias=dict.fromkeys(range(99), 1.0)), "GenerationConfig(logit_bias=<99 items>)"),
        (GenerationConfig(stop="end", seed=0), "GenerationConfig(stop=('end',), seed=0)"),
        (GenerationConfig(logits_processor=print), "GenerationConfig(logits_processor=<built-in function print>)"),
        (SessionConfig(n_ctx=64), "SessionConfig(n_ctx=64)"),
        (SessionConfig(kv_dtype="q8_0", n_threads=1), "SessionConfig(kv_dtype='q8_0', n_threads=1)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_as_usual_is_left_out(value, shown):
    assert repr(value) == shown


def test_times_are_shown_as_people_write_them():
    shown = repr(TIMINGS)
    assert shown.startswith("Timings(load_s=0.123457, prefill_s=2.0, decode_s=4.0, time_to_first_token_s=None, ")


def test_a_configuration_that_is_shown_can_be_typed():
    config = GenerationConfig(temperature=0.7, top_k=40, stop="end", stop_token_ids=[1, 2], on_overflow="stop")
    assert eval(repr(config)) == config
    assert eval(repr(SessionConfig(kv_dtype="f32"))) == SessionConfig(kv_dtype="f32")


def test_notebooks_get_html(session):
    found = session.chat("Write a haiku about ice hockey", GREEDY)
    page = Text(found._repr_html_())
    assert found.text in page
    assert f"{found.usage.completion_tokens} generated" in page
    assert "ended by 'length'" in page
    info = Text(session.model.info._repr_html_())
    assert {"table", "caption", "th", "td"} <= info.tags
    assert "parameter count" in info
    assert f"{session.model.info.parameter_count:,}" in info
    assert "1,234" in Text(completion().usage._repr_html_())
    timings = Text(TIMINGS._repr_html_())
    assert "250.00" in timings  # tokens per second
    # There was no first token.
    assert "time to first token" not in timings
    assert "hello" in Text(Message.user("hello")._repr_html_())
    running = session.stream("hello", GREEDY)
    next(running)
    assert "still running" in Text(running.result._repr_html_())


def test_what_comes_from_outside_stays_text_in_html(model):
    fields = {name: getattr(model.info, name) for name in ModelInfo.__slots__}
    evil = ModelInfo(**(fields | {"name": EVIL, "quantization": EVIL, "chat_corrections": (EVIL, EVIL)}))
    for value in (completion(text=EVIL), Message.user(EVIL), evil):
        html = value._repr_html_()
        page = Text(html)
        assert "script" not in page.tags
        assert EVIL in page
        assert "<script" not in html


def test_html_is_for_values_that_say_so():
    """A class with HTML of its own has a test of it here."""
    has_html = {name for name, cls in public_surface.classes().items() if hasattr(cls, "_repr_html_")}
    assert has_html == {"Completion", "Message", "ModelInfo", "Timings", "Usage"}


def ban(tokens, logits):
    """A hook that can be pickled, as a function of a module can."""


@pytest.mark.parametrize(
    "value",
    [
        completion(prompt_logprobs=[TokenLogprob(1, -1.0)], truncated_messages=[Message.system("Be brief.")]),
        Message.user(EVIL),
        GenerationConfig(stop="x", logit_bias={1: -float("inf")}, logits_processor=ban, on_overflow="stop"),
        SessionConfig(n_ctx=7, rope_factors="long"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_values_survive_pickling_and_copying(value, protocol):
    for found in (pickle.loads(pickle.dumps(value, protocol)), copy.copy(value), copy.deepcopy(value)):
        assert found == value
        assert type(found) is type(value)
        assert repr(found) == repr(value)


def test_an_exception_keeps_its_fields_and_notes():
    error = ContextLengthError("too long", 9, 8)
    error.add_note("of the third prompt")
    for found in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert (type(found), str(found)) == (ContextLengthError, "too long")
        assert (found.prompt_tokens, found.context_length) == (9, 8)
        assert found.__notes__ == ["of the third prompt"]


def run_elsewhere(number):
    """In another process: its result and its exception come back."""
    with Phi3Session.demo(n_ctx=32, n_threads=1) as session:
        if number:
            return session.chat("Hello", GREEDY, max_tokens=4)
        return session.generate([1] * 40)


def test_results_and_exceptions_come_back_from_other_processes(session):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(run_elsewhere, (1,))
        assert there.tokens == session.chat("Hello", GREEDY, max_tokens=4).tokens
        with pytest.raises(ContextLengthError) as caught:
            pool.apply(run_elsewhere, (0,))
        assert (caught.value.prompt_tokens, caught.value.context_length) == (40, 32)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (Phi3Session, r"open one in each process.*fork\(\)"),
        (Phi3Model, "share it within the process, and load it in each other process"),
        (TokenStream, "use its result instead"),
        (AsyncTokenStream, "result, which can be"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_lives_in_this_process_says_what_to_do_instead(session, model, what, words):
    stream = session.stream("hello", GREEDY)
    value = {
        Phi3Session: session,
        Phi3Model: model,
        TokenStream: stream,
        AsyncTokenStream: session.astream("hello", GREEDY),
    }[what]
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy, lambda value: pickle.dumps({"deep": [value]}, 2)):
        with pytest.raises(
            TypeError, match=f"^{what.__name__} objects can be neither pickled nor copied: .*{words}"
        ):
            attempt(value)
    # Nothing happened to them.
    assert len(list(stream)) == 40
    assert asyncio.run(session.agenerate("hello", GREEDY)).tokens == stream.result.tokens


def test_every_public_class_can_be_pickled_or_says_why_not():
    values = {name for name, cls in public_surface.classes().items() if hasattr(cls, "__dataclass_fields__")}
    refuse = {Phi3Session, Phi3Model, TokenStream, AsyncTokenStream}
    assert set(public_surface.classes()) - values == {cls.__name__ for cls in refuse}
    for cls in refuse:
        assert re.search(r"[a-z]", cls._instead)
