"""What the next turn reads: the text that a new session reads for the same messages."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from candle_phi import InvalidOptionError, Message, Phi3Model, Phi3Session
from tiny_gguf import CHAT_TEMPLATE, TinyPhi3, write

MINI = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)
OWN = (
    "{{% for m in messages %}}<|{{{{ m.role }}}}|>"
    "{{{{ m.content{0} if m.role == 'assistant' else m.content }}}}<|end|>"
    "{{% endfor %}}{{% if add_generation_prompt %}}<|assistant|>{{% endif %}}"
)
TEMPLATES = {
    "phi3": CHAT_TEMPLATE,
    "phi4-mini": MINI,
    "custom": OWN.format("").replace("<|end|>", "<|end|>;"),
    "trim": OWN.format("|trim"),
    "lower": OWN.format("|lower"),
    "think": OWN.format(".split('</think>')[-1]"),
}
SAID = "<think>The ice</think> hockey puck "


def draw(ids: Iterable[int]) -> Callable[..., None]:
    """A logits processor that forces these tokens, one after the other."""
    left = iter(ids)

    def processor(_tokens: object, logits: "memoryview[float]") -> None:
        wanted = next(left, None)
        if wanted is not None:
            for index in range(len(logits)):
                logits[index] = float("-inf")
            logits[wanted] = 0.0

    return processor


@pytest.fixture(scope="module", params=TEMPLATES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Phi3Model:
    template = TEMPLATES[request.param]
    path = tmp_path_factory.mktemp("turns") / "tiny.gguf"
    return Phi3Model(write(path, TinyPhi3(metadata={"tokenizer.chat_template": template})))


def answer(session: Phi3Session, end: str) -> tuple[list[int], int]:
    """Forces SAID as the answer, ended in one of the ways; returns the drawn ids and the length of the prompt."""
    words = session.tokenize(SAID)
    (end_id,) = session.tokenize("<|end|>", parse_special=True)
    (user_id,) = session.tokenize("<|user|>", parse_special=True)
    if end == "keep":
        with session.chat_stream("Hello", logits_processor=draw(words), max_tokens=60) as stream:
            for _ in zip(range(len(words) - 2), stream, strict=False):
                pass
            assert stream.keep()
        return stream.result.tokens, stream.result.usage.prompt_tokens
    if end == "control":
        middle = len(words) // 2
        drawn = [*words[:middle], user_id, *words[middle:], end_id]
        completion = session.chat("Hello", logits_processor=draw(drawn), max_tokens=60)
        return completion.tokens, completion.usage.prompt_tokens
    stop = {"inside": "ockey pu", "boundary": " hockey", "stop control": "<|user|>"}.get(end)
    drawn = [*words, user_id if end == "stop control" else end_id]
    limit = len(words) - 3 if end == "max_tokens" else 60
    ignore = end == "ignore_eos"
    limit = len(drawn) if ignore else limit
    completion = session.chat(
        "Hello", logits_processor=draw(drawn), max_tokens=limit, stop=stop or (), ignore_eos=ignore
    )
    return completion.tokens, completion.usage.prompt_tokens


def read(session: Phi3Session, question: str | list[Message]) -> str:
    """The prompt that a turn reads."""
    count = session.chat(question, temperature=0, max_tokens=1).usage.prompt_tokens
    return session.detokenize(session.tokens[:count])


ENDS = ["end", "inside", "boundary", "stop control", "control", "ignore_eos", "max_tokens", "keep"]
CUT = ("inside", "boundary")


@pytest.mark.parametrize("end", ENDS)
def test_the_next_turn_reads_what_a_new_session_reads(model: Phi3Model, tmp_path: Path, end: str) -> None:
    with Phi3Session(model=model) as session, Phi3Session(model=model) as fresh:
        drawn, prompt_length = answer(session, end)
        said = session.messages
        text = said[-1].content
        assert session.detokenize(session.tokens).endswith(text)
        # The kept part of the answer are the drawn ids, all or up to a token that was cut.
        control = session.tokenize("<|user|><|end|>", parse_special=True)
        visible = [token for token in drawn if token not in control]
        if end not in CUT:
            assert session.tokens[-len(visible) :] == visible
        else:
            assert visible[:4] == session.tokens[prompt_length : prompt_length + 4]
        session.save(tmp_path / "saved")
        with session.fork() as fork:
            wanted = read(fresh, [*said, Message.user("what is")])
            assert read(session, "what is") == wanted
            assert read(fork, "what is") == wanted
        with Phi3Session(model=model) as loaded:
            loaded.load(tmp_path / "saved")
            assert read(loaded, "what is") == wanted
        session.rewind()
        assert session.messages == said
        assert read(session, "what is") == wanted


def test_a_control_token_as_stop_string_stops_where_it_is_drawn(model: Phi3Model) -> None:
    with Phi3Session(model=model) as session:
        words = session.tokenize("hello")
        (user,) = session.tokenize("<|user|>", parse_special=True)
        found = session.generate(
            "hello", logits_processor=draw([*words, user]), max_tokens=9, stop=["zz", "<|user|>"]
        )
        assert (found.finish_reason, found.stop_reason) == ("stop", "<|user|>")
        assert found.text.strip() == "hello"


def test_a_control_token_between_other_text_is_refused_as_stop_string(model: Phi3Model) -> None:
    with Phi3Session(model=model) as session, pytest.raises(InvalidOptionError) as caught:
        session.generate("hello", max_tokens=1, stop="\n<|user|>")
    assert caught.value.option == "stop"
    assert "stop_token_ids" in str(caught.value)
