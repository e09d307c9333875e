"""The chat template in a file, as a user meets it."""

from pathlib import Path

import pytest

from candle_phi import InvalidModelError, InvalidOptionError, Message, Phi3Model, Phi3Session, inspect_model
from messages import mentions
from tiny_gguf import TinyPhi3, write

BROKEN = "{% for m in messages %}\n{{ m.content }}\n{% if %}\n{% endfor %}"
APRIL_2024 = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') %}{{'<|user|>' + '\\n' + "
    "message['content'] + '<|end|>' + '\\n' + '<|assistant|>' + '\\n'}}{% elif (message['role'] == 'assistant') %}"
    "{{message['content'] + '<|end|>' + '\\n'}}{% endif %}{% endfor %}"
)
CUSTOM = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}> {% endif %}"
)


def written(tmp_path: Path, template: str) -> Path:
    return write(tmp_path / "template.gguf", TinyPhi3(metadata={"tokenizer.chat_template": template}))


def test_a_template_that_does_not_compile_says_where_and_what_goes_round_it(tmp_path: Path) -> None:
    path = written(tmp_path, BROKEN)
    with pytest.raises(InvalidModelError) as caught:
        Phi3Model(path)
    mentions(caught.value, path, 3, "chat_format", '"phi3"')
    model = Phi3Model(path, chat_format="phi3")
    assert model.render_chat([Message.user("hello")]) == "<|user|>\nhello<|end|>\n<|assistant|>\n"
    assert model.info.chat_format == "phi3"


def test_a_known_fault_is_corrected_and_reported(tmp_path: Path) -> None:
    path = written(tmp_path, APRIL_2024)
    info = inspect_model(path)
    assert info.chat_format == "phi3"
    # The dropped system message, and the answer that was begun after every message of the user.
    assert len(info.chat_corrections) == 2
    rendered = Phi3Model(path).render_chat([Message.system("Be brief."), Message.user("hello")])
    assert rendered.startswith("<|system|>\nBe brief.<|end|>\n<|user|>\nhello")


def test_a_template_of_its_own_holds_a_conversation(tmp_path: Path) -> None:
    with Phi3Session(written(tmp_path, CUSTOM)) as session:
        assert session.model.info.chat_format == "custom"
        assert session.render_chat([Message.user("hello")]) == "[user] hello<|end|>> "
        first = session.chat("the <|end|> ice", max_tokens=3, seed=1, ignore_eos=True)
        second = session.chat("hello", max_tokens=3, seed=1, ignore_eos=True)
        assert second.usage.cached_tokens >= first.usage.prompt_tokens


def test_the_options_are_checked(tmp_path: Path) -> None:
    path = written(tmp_path, CUSTOM)
    with pytest.raises(InvalidOptionError) as caught:
        Phi3Model(path, chat_format="llama")  # type: ignore[arg-type] # what a user may write
    assert caught.value.option == "chat_format"
    mentions(caught.value, "llama", "phi3", "phi4", "phi4-mini")
    with pytest.raises(InvalidOptionError) as caught:
        Phi3Model(path, chat_format="phi4")
    assert caught.value.option == "chat_format"
    mentions(caught.value, "phi4", "<|im_start|>")
