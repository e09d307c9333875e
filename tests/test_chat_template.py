"""The chat template in a file, as a user meets it."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tiny_phi2
from candle_phi import InvalidModelError, InvalidOptionError, Message, Phi3Model, Phi3Session, inspect_model
from candle_phi.config import ChatFormat
from messages import mentions, named
from tiny_gguf import TinyPhi3, write
from tiny_phi2 import TinyPhi2

FORMATS: tuple[ChatFormat, ...] = ("phi3", "phi4", "phi4-mini", "phi4-mini-reasoning")

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


def test_a_template_that_does_not_compile_leaves_raw_prompts_and_other_formats(tmp_path: Path) -> None:
    path = written(tmp_path, BROKEN)
    with Phi3Session(path) as session:
        assert session.model.info.chat_format is None
        assert session.generate("the ice", max_tokens=2, ignore_eos=True).usage.completion_tokens == 2
        for call in (session.chat, session.render_chat):
            with pytest.raises(InvalidModelError) as caught:
                call([Message.user("hello")])
            mentions(caught.value, path, 3, "chat_format", '"phi3"')
    model = Phi3Model(path, chat_format="phi3")
    assert model.render_chat([Message.user("hello")]) == "<|user|>\nhello<|end|>\n<|assistant|>\n"
    assert model.info.chat_format == "phi3"


@pytest.mark.parametrize(("template", "mention"), [(BROKEN, "3"), ("{{ messages[0].content | nl2br }}", "nl2br")])
def test_a_base_model_with_a_broken_template_takes_raw_prompts(
    tmp_path: Path, template: str, mention: str
) -> None:
    path = tiny_phi2.write(tmp_path / "base.gguf", TinyPhi2(metadata={"tokenizer.chat_template": template}))
    with Phi3Session(path) as session:
        assert session.generate("the ice", max_tokens=2, ignore_eos=True).usage.completion_tokens == 2
        with pytest.raises(InvalidModelError) as caught:
            session.chat("hello")
    mentions(caught.value, mention)
    # Its vocabulary has the control tokens of none.
    assert named(caught.value, FORMATS) == []
    for chat_format in FORMATS:
        with pytest.raises(InvalidOptionError) as refused:
            Phi3Model(path, chat_format=chat_format)
        assert named(refused.value, FORMATS) == [chat_format]


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process, as Linux does")
def test_no_time_zone_takes_memory_or_time(tmp_path: Path) -> None:
    path = written(tmp_path, "{{ strftime_now('%Y') }}{{ messages[0].content }}")
    program = (
        "import resource, sys, candle_phi\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "before = peak()\n"
        "print(candle_phi.Phi3Model(sys.argv[1]).render_chat([candle_phi.Message.user('hello')])[4:])\n"
        "print(peak() - before < 100 << 10)"
    )
    for zone in (":/dev/zero", "/dev/stdin"):
        ran = subprocess.run(
            [sys.executable, "-c", program, str(path)],
            env={**os.environ, "TZ": zone},
            stdin=subprocess.PIPE,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (ran.returncode, ran.stdout.split()) == (0, ["hello", "True"]), ran.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process, as Linux does")
def test_a_hostile_template_keeps_no_memory_and_no_thread(tmp_path: Path) -> None:
    # A list that holds itself twice, 60 deep, and what makes text of it, compares it or hashes it.
    nested = "{% set n = namespace(a=[1]) %}{% for i in range(60) %}{% set n.a = [n.a, n.a] %}{% endfor %}"
    batched = nested.replace("[n.a, n.a]", "n.a | batch(2, n.a) | list")
    doubled = nested.replace("[n.a, n.a]", "n.a + n.a")
    ends = ("{{ n.a | join }}", "{{ n.a ~ 'x' }}", "{{ n.a | upper }}", "{{ n.a | safe }}", "{{ n.a == [n.a] }}")
    paths = [
        write(tmp_path / f"{index}.gguf", TinyPhi3(metadata={"tokenizer.chat_template": start + end}))
        for index, (start, end) in enumerate(itertools.product((nested, batched, doubled), ends))
    ]
    program = (
        "import os, resource, sys, candle_phi\n"
        "from candle_phi import Message, Phi3Model\n"
        "Phi3Model(sys.argv[1])\n"
        "before, size = len(os.listdir('/proc/self/task')), int(open('/proc/self/statm').read().split()[0])\n"
        "most = size * resource.getpagesize() + (1 << 30)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
        "for path in sys.argv[1:]:\n"
        "    model = Phi3Model(path)\n"
        "    for _ in range(3):\n"
        "        try:\n"
        "            model.render_chat([Message.user('hello')])\n"
        "        except candle_phi.InvalidOptionError:\n"
        "            print('refused')\n"
        "assert len(os.listdir('/proc/self/task')) == before\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, *map(str, paths)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ran.returncode, ran.stdout.count("refused")) == (0, 3 * len(paths)), ran.stderr


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
        # The template begins a past answer with "[assistant] ", and not with "> " as it begins a new one.
        assert second.usage.cached_tokens >= first.usage.prompt_tokens - len(session.tokenize("> "))


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
