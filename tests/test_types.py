import copy
import logging
import pickle
from dataclasses import FrozenInstanceError, asdict, replace

import pytest

from candle_phi import (
    Chunk,
    Completion,
    GenerationConfig,
    InputTypeError,
    InvalidOptionError,
    Message,
    Phi3Model,
    Progress,
    Timings,
    TokenLogprob,
    Usage,
    cached_models,
    inspect_model,
    named_models,
)
from messages import mentions

TIMINGS = Timings(
    load_s=0.5,
    prefill_s=2.0,
    decode_s=4.0,
    time_to_first_token_s=2.25,
    prefill_tokens=10,
    decode_tokens=20,
)
COMPLETION = Completion(
    text="hello",
    tokens=[1, 2],
    finish_reason="stop",
    stop_reason=7,
    seed=3,
    usage=Usage(prompt_tokens=10, completion_tokens=2, cached_tokens=4),
    timings=TIMINGS,
    config=GenerationConfig(seed=3),
    logprobs=[TokenLogprob(1, -0.5, ((1, -0.5), (4, -1.0)))],
)
VALUES = [
    COMPLETION,
    Chunk("hi", 3, TokenLogprob(3, -1.0)),
    Message.user("hello"),
    Progress("x.gguf", 1, 4),
    named_models()[0],
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_are_frozen_and_survive_copying_and_pickling(value):
    name = next(iter(asdict(value)))
    with pytest.raises(FrozenInstanceError):
        setattr(value, name, None)
    assert pickle.loads(pickle.dumps(value)) == value
    assert copy.deepcopy(value) == value
    assert repr(value).startswith(f"{type(value).__name__}({name}=")


def test_a_chunk_and_a_completion_print_as_their_text():
    assert str(Chunk("hi", 3)) == "hi"
    assert str(COMPLETION) == "hello"
    assert f"{Chunk('a')}{Chunk('b')}" == "ab"


def test_completions_compare_without_their_timings():
    assert replace(COMPLETION, timings=replace(TIMINGS, load_s=9.0)) == COMPLETION
    assert replace(COMPLETION, text="bye") != COMPLETION


def test_speeds_follow_from_counts_and_times():
    assert TIMINGS.prefill_tokens_per_second == 5.0
    assert TIMINGS.decode_tokens_per_second == 5.0
    nothing = replace(TIMINGS, prefill_s=0.0, decode_s=0.0, prefill_tokens=0, decode_tokens=0)
    assert nothing.prefill_tokens_per_second == 0.0
    assert nothing.decode_tokens_per_second == 0.0
    assert COMPLETION.usage.total_tokens == 12


def test_progress_has_a_fraction_where_the_size_is_known():
    assert Progress("x", 1, 4).fraction == 0.25
    assert Progress("x", 1, None).fraction is None


def test_messages_are_made_by_role():
    assert Message.system("a") == Message("system", "a")
    assert Message.user("a") == Message(role="user", content="a")
    assert Message.assistant("a") == Message("assistant", "a")


@pytest.mark.parametrize(
    ("given", "content"),
    [
        ({"role": "user", "content": "hi"}, "hi"),
        ({"role": "user", "content": "hi", "name": None}, "hi"),
        ({"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}, "hi"),
        (Message.user("hi"), "hi"),
    ],
)
def test_messages_of_the_openai_shape(given, content):
    assert Message.of(given) == Message.user(content)


@pytest.mark.parametrize(
    ("given", "error", "values"),
    [
        ({"role": "user"}, InvalidOptionError, ["'content'", "['role']"]),
        ({"content": "hi"}, InvalidOptionError, ["'role'", "['content']"]),
        ({"role": "tool", "content": "hi"}, InvalidOptionError, ["role", "system, user, assistant", "'tool'"]),
        ({"role": "user", "content": "hi", "tool_calls": []}, InvalidOptionError, ["'tool_calls'"]),
        ({"role": "user", "content": [{"type": "image_url"}]}, InvalidOptionError, ["'text'", "'image_url'"]),
        ({"role": "user", "content": ["hi"]}, InputTypeError, ["content", "mapping", "str"]),
        ({"role": "user", "content": [{"type": "text"}]}, InputTypeError, ["'text'", "str", "NoneType"]),
        ({"role": "user", "content": None}, InputTypeError, ["content", "str", "NoneType"]),
        ({"role": 3, "content": "hi"}, InputTypeError, ["role", "str", "int"]),
        ("hi", InputTypeError, ["Message", "mapping", "str"]),
        (("user", "hi"), InputTypeError, ["Message", "mapping", "tuple"]),
        (None, InputTypeError, ["Message", "mapping", "NoneType"]),
    ],
)
def test_what_is_no_message_is_refused(given, error, values):
    with pytest.raises(error) as caught:
        Message.of(given)
    mentions(caught.value, *values)


def test_a_lone_surrogate_in_a_message_is_refused():
    with pytest.raises(InvalidOptionError) as caught:
        Message.user("a\ud800")
    mentions(caught.value, "content", r"'\ud800'", 1)


def test_model_info_is_the_same_with_and_without_the_weights(model):
    info = model.info
    assert inspect_model(model.path) == info
    assert info.architecture == "phi3"
    assert info.tokenizer == "llama"
    assert info.chat_format == "phi3"
    assert info.file_size_bytes == model.path.stat().st_size
    assert 0 < info.weights_bytes < info.file_size_bytes
    assert info.parameter_count > info.vocabulary_size * info.embedding_length
    assert pickle.loads(pickle.dumps(info)) == info


def test_the_cache_of_a_full_context_has_a_size(model):
    info = model.info
    per_token = 2 * info.block_count * info.head_count_kv * info.head_dim
    assert info.kv_cache_bytes(100) == 100 * per_token * 2
    assert info.kv_cache_bytes(100, "f16") == 100 * per_token * 2
    assert info.kv_cache_bytes(100, "f32") == 100 * per_token * 4
    assert info.kv_cache_bytes(100, None) == info.kv_cache_bytes(100)
    for bad, error in (("q4", InvalidOptionError), (5, TypeError)):
        with pytest.raises(error, match="kv_dtype"):
            info.kv_cache_bytes(100, bad)


def test_named_models_are_listed():
    models = {known.name: known for known in named_models()}
    mini = models["phi-3-mini-4k"]
    assert mini.repo == "microsoft/Phi-3-mini-4k-instruct-gguf"
    assert next(iter(mini.files.values())) == "Phi-3-mini-4k-instruct-q4.gguf"
    assert mini.revision == "main"


def test_an_empty_cache_has_no_models(tmp_path):
    assert cached_models(tmp_path / "none") == []


def test_a_model_says_what_it_is(model):
    assert isinstance(model, Phi3Model)
    assert "phi3" in repr(model)
    assert model.device == "cpu"


def test_a_model_says_why_it_computes_where_it_does(model, caplog):
    assert model.device_reason
    with caplog.at_level(logging.INFO, logger="candle_phi"):
        asked = Phi3Model.demo(device="cpu")
    assert asked.device_reason == "asked for"
    assert any("asked for" in record.message for record in caplog.records)
