"""The sampling options that a file recommends: read, checked, reported, and the defaults of a chat."""

import asyncio
import json
import logging
import pickle
from dataclasses import asdict

import pytest

from candle_phi import GenerationConfig, Phi3Model, Phi3Session, RecommendedSampling, inspect_model
from candle_phi.cli.repl import commands
from candle_phi.cli.repl.conversation import Conversation
from candle_phi.cli.repl.loop import Chat
from command_line import fail, flags_in, succeed
from tiny_gguf import write

KEYS = {
    "general.sampling.temp": 0.6,
    "general.sampling.top_k": ("int32", 40),
    "general.sampling.top_p": 0.95,
    "general.sampling.min_p": 0.05,
    "general.sampling.penalty_repeat": 1.1,
    "general.sampling.penalty_last_n": ("int32", 32),
}
OPTIONS = {
    "temperature": 0.6,
    "top_k": 40,
    "top_p": 0.95,
    "min_p": 0.05,
    "repetition_penalty": 1.1,
    "repeat_last_n": 32,
}
CHATS = ("chat", "chat_stream", "achat", "achat_stream")
RAW = ("generate", "stream", "agenerate", "astream")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write(tmp_path_factory.mktemp("recommended") / "recommended.gguf", metadata=KEYS)


@pytest.fixture(scope="module")
def recommending(path):
    return Phi3Model(path)


def config_of(session, method, *arguments, **options):
    """The options that a call used, as its result reports them."""
    made = getattr(session, method)("hello", *arguments, **{"max_tokens": 1, "seed": 1} | options)
    if hasattr(made, "__aiter__"):

        async def read():
            async with made as stream:
                async for _ in stream:
                    pass
            return stream.result

        return asyncio.run(read()).config
    if hasattr(made, "__await__"):
        return asyncio.run(made).config
    if hasattr(made, "__next__"):
        list(made)
        return made.result.config
    return made.config


def test_the_recommended_options_are_read(path, recommending):
    assert inspect_model(path).sampling == recommending.info.sampling == RecommendedSampling(**OPTIONS)
    assert recommending.info.sampling.options() == OPTIONS
    assert pickle.loads(pickle.dumps(recommending.info)) == recommending.info
    assert "top_k 40" in recommending.info._repr_html_()


def test_a_file_without_them_recommends_nothing(model):
    assert model.info.sampling == RecommendedSampling()
    assert model.info.sampling.options() == {}
    assert "sampling" not in model.info._repr_html_()


@pytest.mark.parametrize(
    ("key", "value", "option", "found"),
    [
        ("temp", 0.0, "temperature", 0.0),
        ("temp", 1, "temperature", 1.0),
        ("top_k", ("int32", 0), "top_k", None),
        ("top_k", ("int32", -1), "top_k", None),
        ("top_k", ("uint64", 50), "top_k", 50),
        ("top_p", 1.0, "top_p", 1.0),
        ("min_p", 0.0, "min_p", 0.0),
        ("penalty_last_n", ("int32", 0), "repeat_last_n", 0),
        ("penalty_last_n", ("int32", -1), "repeat_last_n", 512),
    ],
)
@pytest.mark.thread_unsafe(reason="loggers are the process's")
def test_values_at_the_edges(tmp_path, caplog, key, value, option, found):
    with caplog.at_level(logging.WARNING, logger="candle_phi"):
        sampling = inspect_model(write(tmp_path / "x.gguf", metadata={f"general.sampling.{key}": value})).sampling
    assert asdict(sampling)[option] == found
    assert not caplog.records


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temp", -1.0),
        ("temp", float("nan")),
        ("temp", "warm"),
        ("top_k", 40.5),
        ("top_k", "40"),
        ("top_k", ("uint64", 2**40)),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("min_p", -0.1),
        ("min_p", 2.0),
        ("penalty_repeat", 0.0),
        ("penalty_repeat", True),
        ("penalty_last_n", ("int32", -2)),
        ("xtc_probability", 0.5),
        ("mirostat", ("int32", 2)),
    ],
)
@pytest.mark.thread_unsafe(reason="loggers are the process's")
def test_a_value_that_cannot_be_used_is_ignored_with_a_warning(tmp_path, caplog, key, value):
    path = write(tmp_path / "x.gguf", metadata={f"general.sampling.{key}": value})
    with caplog.at_level(logging.WARNING, logger="candle_phi"):
        sampling = inspect_model(path).sampling
    assert sampling == RecommendedSampling()
    assert [(record.name, record.levelno) for record in caplog.records] == [
        ("candle_phi.recommended", logging.WARNING)
    ]
    assert f"general.sampling.{key}" in caplog.text
    with Phi3Session(path) as session:
        assert session.chat("hello", max_tokens=1).config.replace(seed=None) == GenerationConfig(max_tokens=1)


@pytest.mark.thread_unsafe(reason="loggers are the process's")
def test_loading_logs_what_the_file_recommends(path, caplog):
    with caplog.at_level(logging.INFO, logger="candle_phi"):
        Phi3Model(path)
        told = [record for record in caplog.records if "temperature=0.6" in record.getMessage()]
        assert [(record.name, record.levelno) for record in told] == [("candle_phi.loader", logging.INFO)]


@pytest.mark.parametrize("method", CHATS)
def test_they_are_the_defaults_of_a_chat(recommending, method):
    with Phi3Session(model=recommending) as session:
        usual = GenerationConfig(**OPTIONS, max_tokens=1, seed=1)
        assert config_of(session, method) == usual
        # A keyword counts more, None for none included; the others stay the file's.
        assert config_of(session, method, temperature=0.0) == usual.replace(temperature=0.0)
        assert config_of(session, method, top_k=None) == usual.replace(top_k=None)
        # A configuration is used as it is.
        assert config_of(session, method, GenerationConfig()) == GenerationConfig(max_tokens=1, seed=1)
        assert config_of(session, method, GenerationConfig.greedy(), top_k=2) == GenerationConfig.greedy(
            max_tokens=1, seed=1, top_k=2
        )


@pytest.mark.parametrize("method", RAW)
def test_a_raw_prompt_has_the_neutral_defaults(recommending, method):
    with Phi3Session(model=recommending) as session:
        assert config_of(session, method) == GenerationConfig(max_tokens=1, seed=1)


def test_they_change_what_is_drawn(recommending):
    with Phi3Session(model=recommending) as session:
        usual = session.chat("hello", max_tokens=30, seed=7, ignore_eos=True)
        session.reset()
        asked = session.chat("hello", **OPTIONS, max_tokens=30, seed=7, ignore_eos=True)
        session.reset()
        neutral = session.chat("hello", GenerationConfig(max_tokens=30, seed=7, ignore_eos=True))
    assert usual.tokens == asked.tokens != neutral.tokens


def test_a_completion_can_be_had_again_with_the_options_that_it_reports(session):
    first = session.generate("Once upon a time", top_p=0.9, max_tokens=12, ignore_eos=True, stop=["x"])
    assert first.config.seed == first.seed
    assert first.config == GenerationConfig(top_p=0.9, max_tokens=12, ignore_eos=True, stop=["x"], seed=first.seed)
    again = session.generate("Once upon a time", first.config)
    assert again.tokens == first.tokens


def test_a_function_is_not_reported(session):
    def change_nothing(_tokens, _logits):
        pass

    found = session.generate("hello", max_tokens=1, logits_processor=change_nothing)
    assert found.config.logits_processor is None
    assert pickle.loads(pickle.dumps(found)).config == found.config
    assert json.loads(json.dumps(asdict(found)))["config"]["max_tokens"] == 1


class TestCommandLine:
    def used(self, path, *arguments):
        lines = succeed("generate", "--model", path, "--json", "--max-tokens", 1, *arguments, "hello").stdout
        config = json.loads(lines.splitlines()[-1])["config"]
        return {name: config[name] for name in OPTIONS}

    def test_generate_uses_them_unless_raw_or_told_otherwise(self, path):
        neutral = {name: getattr(GenerationConfig(), name) for name in OPTIONS}
        assert self.used(path) == OPTIONS
        assert self.used(path, "--temperature", 0.3) == OPTIONS | {"temperature": 0.3}
        assert self.used(path, "--raw") == neutral
        assert self.used(path, "--tutorial") == neutral | {"repetition_penalty": 1.2, "repeat_last_n": 64}

    def test_chat_uses_them_and_stats_tell(self, path):
        told = succeed("chat", "--model", path, "--max-tokens", 1, "--stats", stdin="hello\n").stderr
        (line,) = [line for line in told.splitlines() if line.startswith("options")]
        for word in ("temperature 0.6", "top_k 40", "repeat_last_n 32"):
            assert word in line

    def test_a_setting_goes_back_to_the_files_value_or_to_the_neutral_one(self, recommending):
        with Phi3Session(model=recommending) as session:
            conversation = Conversation(session, GenerationConfig(temperature=0.1))
            chat = Chat(conversation, terminal=None, stats=False)
            commands.run(chat, "/set temperature default")
            assert conversation.config.temperature == 0.6
            commands.run(chat, "/set temperature none")
            assert conversation.config.temperature == 1.0

    def test_info_tells(self, path):
        assert "temperature 0.6, top_k 40" in succeed("info", path).stdout
        assert json.loads(succeed("info", "--json", path).stdout)["sampling"] == OPTIONS
        assert "sampling" not in succeed("info", "--demo").stdout

    def test_a_wrong_option_is_told_before_the_model_is_opened(self, tmp_path):
        line = fail(2, "generate", "--name", "phi-4-mini", "--offline", "--cache-dir", tmp_path, "--top-p", 2, "x")
        assert flags_in(line) == ["--top-p"]
