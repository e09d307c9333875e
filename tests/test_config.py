import copy
import dataclasses
import inspect
import math
import os
import pickle
import pydoc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import FrozenInstanceError, fields
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal, get_args, get_type_hints

import numpy as np
import pytest

from candle_phi import (
    GenerationConfig,
    InvalidOptionError,
    Phi3Error,
    Phi3Model,
    Phi3Session,
    SessionConfig,
    _foreign,
    download,
    estimate_memory,
)
from candle_phi._options import OPTIONS
from candle_phi.config import GenerationOptions, LoadOptions, SessionOptions
from candle_phi.types import LogitsProcessor, Progress
from messages import mentions, named


def test_the_defaults_sample_from_the_models_own_distribution():
    config = GenerationConfig()
    assert config.temperature == 1.0
    assert config.max_tokens is None
    assert (config.top_k, config.top_p, config.min_p) == (None, None, None)
    assert (config.repetition_penalty, config.repeat_last_n) == (1.0, 64)
    assert config.seed is None


def test_the_tutorials_settings():
    config = GenerationConfig.tutorial()
    assert (config.max_tokens, config.temperature, config.repetition_penalty, config.repeat_last_n) == (
        100,
        1.0,
        1.2,
        64,
    )
    assert config.top_p is None
    assert GenerationConfig.tutorial(seed=4).seed == 4
    assert GenerationConfig.tutorial(max_tokens=4).max_tokens == 4


def test_greedy_takes_other_options():
    assert GenerationConfig.greedy(max_tokens=3) == GenerationConfig(temperature=0.0, max_tokens=3)


def test_the_keywords_are_the_fields():
    assert set(GenerationOptions.__annotations__) == {field.name for field in fields(GenerationConfig)}
    assert set(SessionOptions.__annotations__) == set(LoadOptions.__annotations__) | {
        "config",
        *(field.name for field in fields(SessionConfig)),
    }
    own = {"path", "model"}
    assert set(inspect.signature(Phi3Session).parameters) - own == set(SessionOptions.__annotations__)
    assert set(inspect.signature(Phi3Model).parameters) - own == set(LoadOptions.__annotations__)


def test_the_keywords_have_the_types_of_the_fields():
    hints = get_type_hints(GenerationConfig)
    keywords = {name: hints[name] | None for name in GenerationOptions.__annotations__}
    assert keywords == get_type_hints(GenerationOptions)


ALL_OPTIONS = {
    *GenerationOptions.__annotations__,
    *SessionOptions.__annotations__,
    *("path", "name_or_repo", "filename", "quantization", "revision"),
}
SCOPES = {"generation": GenerationOptions, "session": SessionOptions, "loading": LoadOptions}
TYPES = {
    "int": int,
    "float": float,
    "bool": bool,
    "bool_or_function": bool | Callable[[Progress], object],
    "text": str,
    "texts": str | Sequence[str],
    "token_ids": Sequence[int],
    "biases": Mapping[int, float],
    "path": str | os.PathLike[str],
    "function": LogitsProcessor,
}


@pytest.mark.parametrize("scope", SCOPES)
def test_the_keywords_are_the_options_of_the_table(scope):
    hints = get_type_hints(SCOPES[scope])
    table = {option.name: option for option in OPTIONS.values() if option.scope == scope}
    own = inspect.get_annotations(SessionConfig if scope == "session" else SCOPES[scope])
    assert [name for name in own if name != "config"] == list(table)
    for name, option in table.items():
        expected = Literal[tuple(option.choices)] if option.kind == "choice" else TYPES[option.kind]
        assert hints[name] == expected | None, name


@pytest.mark.parametrize(("scope", "config"), [("generation", GenerationConfig), ("session", SessionConfig)])
def test_the_fields_have_the_order_and_the_defaults_of_the_table(scope, config):
    table = [option for option in OPTIONS.values() if option.scope == scope]
    assert [field.name for field in fields(config)] == [option.name for option in table]
    made, of_nothing = config(), config(**dict.fromkeys(option.name for option in table))
    assert made == of_nothing
    for field, option in zip(fields(config), table, strict=True):
        assert field.default == option.default == getattr(made, option.name), option.name
        is_optional = type(None) in get_args(get_type_hints(config)[option.name])
        assert is_optional == (option.default is None), option.name


def test_none_is_the_default_everywhere(session):
    nothing = dict.fromkeys(GenerationOptions.__annotations__)
    assert GenerationConfig(**nothing) == GenerationConfig()
    assert GenerationConfig.greedy(temperature=None).temperature == 1.0
    assert session.generate("hello", **nothing | {"max_tokens": 1, "ignore_eos": True}).tokens
    with Phi3Session.demo(**dict.fromkeys(SessionOptions.__annotations__)) as opened:
        assert opened.config == SessionConfig()


BAD = [
    ("max_tokens", 0, (1, 0)),
    ("max_tokens", -5, (1, -5)),
    ("temperature", -0.1, (0, 1_000_000, -0.1)),
    ("temperature", 1e7, (0, 1_000_000, 10_000_000)),
    ("temperature", math.nan, (0, 1_000_000, "nan")),
    ("temperature", math.inf, (0, 1_000_000, "inf")),
    ("top_k", 0, (1, 0, "None")),
    ("top_k", -1, (1, -1, "None")),
    ("top_p", 0.0, (0, 1, "None")),
    ("top_p", 2, (0, 1, 2)),
    ("typical_p", 0, (0, 1, "None")),
    ("typical_p", 1.5, (0, 1, 1.5)),
    ("min_p", 1.5, (0, 1, 1.5)),
    ("min_p", -0.5, (0, 1, -0.5)),
    ("repetition_penalty", 0, (0.001, 1000, 0)),
    ("repetition_penalty", -1, (0.001, 1000, -1)),
    ("repetition_penalty", 1e-4, (0.001, 1000, 0.0001)),
    ("repetition_penalty", 1e6, (0.001, 1000, 1_000_000)),
    ("repeat_last_n", -1, (0, -1)),
    ("presence_penalty", 1e9, (-1_000_000, 1_000_000, 1_000_000_000)),
    ("presence_penalty", math.nan, (-1_000_000, 1_000_000, "nan")),
    ("frequency_penalty", -math.inf, (-1_000_000, 1_000_000, "-inf")),
    ("logit_bias", {3: math.nan}, (3, "nan")),
    ("logit_bias", {3: math.inf}, (3, "inf")),
    ("logit_bias", {-3: 1.0}, (0, 2**32 - 1, -3)),
    ("logit_bias", {3: 1e9}, (3, -1_000_000, 1_000_000, 1_000_000_000)),
    ("logit_bias", {3: -1e39}, (3, -1_000_000, 1_000_000, "-1e39")),
    ("stop", "", (0,)),
    ("stop", ["a", ""], (1,)),
    ("stop", "a\udc00", (1, r"'\udc00'")),
    ("stop_token_ids", [-1], (0, 2**32 - 1, -1)),
    ("stop_token_ids", [1, 2**32], (1, 2**32 - 1, 2**32)),
    ("seed", -1, (0, -1, "None")),
    ("seed", 2**64, (0, 2**64 - 1, 2**64)),
    ("seed", 10**400, (0, 2**64 - 1)),
    ("temperature", 10**400, (0, 1_000_000)),
    ("logprobs", -1, (0, -1)),
    ("timeout", 0, (0, "None")),
    ("on_overflow", "truncate", ('"error"', '"stop"', '"truncate_oldest"', '"truncate"')),
]
WRONG_TYPE = [
    ("max_tokens", "many"),
    ("max_tokens", 1.5),
    ("max_tokens", True),
    ("temperature", "hot"),
    ("top_p", [0.5]),
    ("logprobs", True),
    ("on_overflow", 5),
    ("logit_bias", [1, 2]),
    ("logit_bias", {"a": 1.0}),
    ("logit_bias", {1: "much"}),
    ("stop", 5),
    ("stop", b"bytes"),
    ("stop", [5]),
    ("stop_token_ids", 5),
    ("stop_token_ids", "5"),
    ("stop_token_ids", [1.5]),
    ("seed", 1.0),
    ("ignore_eos", 1),
]


@pytest.mark.parametrize(("name", "value", "values"), BAD)
def test_a_value_out_of_range_names_the_option_the_range_and_the_value(name, value, values):
    with pytest.raises(InvalidOptionError) as caught:
        GenerationConfig(**{name: value})
    assert caught.value.option == name
    assert str(caught.value).startswith(f"{name} ")
    assert isinstance(caught.value, ValueError)
    mentions(caught.value, *values)
    with pytest.raises(InvalidOptionError) as replaced:
        GenerationConfig().replace(**{name: value})
    assert (replaced.value.option, str(replaced.value)) == (name, str(caught.value))


def test_min_tokens_above_max_tokens_is_refused_when_the_configuration_is_made():
    with pytest.raises(InvalidOptionError) as caught:
        GenerationConfig(min_tokens=5, max_tokens=2)
    assert caught.value.option == "min_tokens"


@pytest.mark.parametrize(("name", "value"), WRONG_TYPE)
def test_a_value_of_the_wrong_type_names_the_option(name, value):
    with pytest.raises(TypeError, match=name) as caught:
        GenerationConfig(**{name: value})
    assert not isinstance(caught.value, Phi3Error)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -0.1),
        ("temperature", math.inf),
        ("top_k", 0),
        ("top_p", 0.0),
        ("top_p", 2.0),
        ("typical_p", 1.5),
        ("min_p", 1.5),
        ("repetition_penalty", 0.0),
        ("presence_penalty", math.nan),
        ("frequency_penalty", -math.inf),
        ("logit_bias", {3: math.nan}),
        ("logit_bias", {3: math.inf}),
        ("stop", ("",)),
    ],
)
def test_the_engine_refuses_on_its_own_what_the_configuration_refuses(session, name, value):
    with pytest.raises(InvalidOptionError) as caught:
        GenerationConfig(**{name: value})
    assert caught.value.option == name
    config = GenerationConfig()
    object.__setattr__(config, name, value)
    with pytest.raises(InvalidOptionError) as caught:
        session.generate("hello", config)
    assert caught.value.option == name
    assert session.generate("hello", max_tokens=1, ignore_eos=True).tokens


def test_numbers_of_numpy_are_numbers():
    config = GenerationConfig(
        max_tokens=np.int64(5),
        temperature=np.float32(0.5),
        top_k=np.uint8(3),
        stop_token_ids=np.array([1, 2]),
        logit_bias={np.int32(4): np.float64(-1.5)},
    )
    assert config == GenerationConfig(
        max_tokens=5,
        temperature=0.5,
        top_k=3,
        stop_token_ids=[1, 2],
        logit_bias={4: -1.5},
    )
    assert type(config.max_tokens) is int
    assert type(config.temperature) is float


def test_a_pickled_configuration_is_restored_by_name_and_checked():
    function, (config, options) = GenerationConfig(top_p=0.9).__reduce__()
    # As a version wrote it whose options were others: one of them is missing.
    del options["typical_p"]
    assert function(config, options) == GenerationConfig(top_p=0.9)
    with pytest.raises(InvalidOptionError):
        function(config, {**options, "top_p": 2.0})
    with pytest.raises(TypeError):
        function(config, {**options, "no_such_option": 1})


def test_a_configuration_is_frozen_pickles_and_hashes():
    config = GenerationConfig(stop=["a"], stop_token_ids=[1], logit_bias={1: 2.0}, seed=3)
    assert pickle.loads(pickle.dumps(config)) == config
    assert copy.deepcopy(config) == config
    assert hash(config) == hash(config.replace())
    assert "seed=3" in repr(config)
    with pytest.raises(FrozenInstanceError):
        config.seed = 4
    assert SessionConfig(n_ctx=5) == pickle.loads(pickle.dumps(SessionConfig(n_ctx=5)))


def test_what_was_given_can_change_later_without_effect():
    stop, bias = ["a"], {1: 2.0}
    config = GenerationConfig(stop=stop, logit_bias=bias)
    stop.append("b")
    bias[2] = 1.0
    assert config == GenerationConfig(stop="a", logit_bias={1: 2.0})


@pytest.mark.parametrize(
    ("call", "given", "meant"),
    [
        (GenerationConfig, "max_new_tokens", "max_tokens"),
        (GenerationConfig, "temprature", "temperature"),
        (GenerationConfig().replace, "repeat_penalty", "repetition_penalty"),
        (GenerationConfig.greedy, "num_predict", "max_tokens"),
        (SessionConfig, "num_ctx", "n_ctx"),
        (SessionConfig().replace, "threads", "n_threads"),
        (Phi3Session, "n_gpu_layers", "device"),
        (Phi3Session, "context_length", "n_ctx"),
        (Phi3Session.demo, "max_model_len", "n_ctx"),
        (Phi3Session.from_pretrained, "model_file", "filename"),
        (Phi3Model, "use_mmap", "mmap"),
        (Phi3Model.demo, "devise", "device"),
        (Phi3Model.from_pretrained, "quant", "quantization"),
        (Phi3Session.from_pretrained, "repo_id", "name_or_repo"),
        (Phi3Model.from_pretrained, "quantized_model_id", "name_or_repo"),
        (download, "revison", "revision"),
        (download, "repo_id", "name_or_repo"),
        (estimate_memory, "nctx", "n_ctx"),
    ],
)
def test_an_unknown_keyword_says_what_was_meant(call, given, meant):
    of_a_name = {Phi3Session.from_pretrained, Phi3Model.from_pretrained, download, estimate_memory}
    arguments = ["x"] if call in of_a_name else []
    with pytest.raises(TypeError) as caught:
        call(*arguments, **{given: 1})
    assert not isinstance(caught.value, Phi3Error)
    assert named(caught.value, {given, *ALL_OPTIONS}) == [given, meant]


def test_what_another_library_calls_the_first_argument_is_told_before_that_it_is_missing():
    for call in (Phi3Session.from_pretrained, Phi3Model.from_pretrained, download):
        with pytest.raises(TypeError) as caught:
            call(repo_id="microsoft/Phi-3-mini-4k-instruct-gguf", filename="Phi-3-mini-4k-instruct-q4.gguf")
        assert named(caught.value, {"repo_id", *ALL_OPTIONS}) == ["repo_id", "name_or_repo"]


def test_all_wrong_keywords_are_named_at_once():
    with pytest.raises(TypeError) as caught:
        Phi3Session(model_path="model.gguf", n_gpu_layers=1, verbose=False, xyzzy=1)
    given = ("model_path", "n_gpu_layers", "verbose", "xyzzy")
    hints, parameters = ["path", "device"], inspect.signature(Phi3Session).parameters
    assert named(caught.value, given) == list(given)
    # What was meant, and as one of them is like nothing, also all that there are.
    assert named(caught.value, parameters) == [*hints, *sorted(parameters)]


@pytest.mark.parametrize("word", [*_foreign.ADVICE, "stream"])
def test_a_word_of_another_library_is_answered_with_advice_and_no_guess(word):
    with pytest.raises(TypeError) as caught:
        GenerationConfig(**{word: True})
    advice = _foreign.advice("GenerationConfig", word)
    assert str(caught.value) == f"GenerationConfig() has no option {word!r}: {advice}"


def test_no_word_of_another_library_is_an_option():
    options = {*GenerationOptions.__annotations__, *SessionOptions.__annotations__}
    assert not options & {*_foreign.OPTIONS, *_foreign.ADVICE, "stream"}
    assert set(_foreign.OPTIONS.values()) <= options | {"filename", "name_or_repo", "path", "quantization"}


@pytest.mark.parametrize(
    ("call", "streams"),
    [("chat", "chat_stream"), ("generate", "stream"), ("achat", "achat_stream"), ("agenerate", "astream")],
)
def test_a_stream_is_another_call(call, streams):
    for function in (call, streams):
        mentions(str(_foreign.advice(function, "stream")), f"{streams}()")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("temprature", "temperature"),
        ("max_token", "max_tokens"),
        ("topk", "top_k"),
        ("presense_penalty", "presence_penalty"),
        ("logit_biases", "logit_bias"),
    ],
)
def test_only_what_is_alike_is_suggested(session, word, meant):
    options = {"config", *GenerationOptions.__annotations__}
    with pytest.raises(TypeError) as caught:
        session.chat("hello", **{word: 1})
    assert named(caught.value, options) == [meant]
    for far in ("sample", "store_it", "token", "batch", "logits"):
        with pytest.raises(TypeError) as caught:
            session.chat("hello", **{far: 1})
        # All that there are, as none is meant more than another.
        assert named(caught.value, options) == sorted(options), far


@pytest.mark.parametrize("option", ["n_ctx", "device", "kv_dtype"])
def test_an_option_of_a_session_is_not_one_of_a_call(session, option):
    with pytest.raises(TypeError) as caught:
        session.chat("hello", **{option: 1})
    mentions(caught.value, repr(option), "Phi3Session()")
    assert named(caught.value, ALL_OPTIONS) == [option]


@pytest.mark.parametrize("opens", [Phi3Session, Phi3Model, Phi3Session.demo, Phi3Model.demo, SessionConfig])
def test_an_option_of_a_call_is_not_one_of_a_session(opens):
    arguments = ["x"] if opens in {Phi3Session, Phi3Model} else []
    with pytest.raises(TypeError) as caught:
        opens(*arguments, temperature=0)
    mentions(caught.value, "'temperature'", "chat()", "generate()")
    assert named(caught.value, ALL_OPTIONS) == ["temperature"]


def test_help_shows_the_options():
    for config in (GenerationConfig, SessionConfig):
        parameters = inspect.signature(config).parameters
        assert list(parameters) == [field.name for field in fields(config)]
        assert "None" in pydoc.plain(pydoc.render_doc(config)).splitlines()[3]
    for opens in (Phi3Session, Phi3Model):
        parameters = inspect.signature(opens).parameters
        assert all(parameters[name].default == OPTIONS[name].default for name in parameters if name in OPTIONS)


@pytest.mark.parametrize("method", ["generate", "stream", "chat", "chat_stream"])
def test_everything_that_generates_takes_the_same_options(session, method):
    call = getattr(session, method)
    with pytest.raises(TypeError) as unknown:
        call("hello", temp=0.5)
    mentions(unknown.value, f"{method}()", "'temp'", "'temperature'")
    with pytest.raises(TypeError) as unknown:
        call("hello", xyzzy=0.5)
    mentions(unknown.value, f"{method}()", "'xyzzy'", *GenerationOptions.__annotations__)
    for config in ([], [GenerationConfig()]):
        with pytest.raises(InvalidOptionError) as caught:
            call("hello", *config, top_p=2)
        assert caught.value.option == "top_p"
    with pytest.raises(TypeError) as unknown:
        call("hello", {"temperature": 0.5})
    assert str(unknown.value).startswith("config ")
    mentions(unknown.value, "GenerationConfig", "dict")


def test_keywords_go_over_the_configuration(session):
    config = GenerationConfig.greedy(max_tokens=1, ignore_eos=True)
    assert len(session.generate("hello", config).tokens) == 1
    assert len(session.generate("hello", config, max_tokens=3).tokens) == 3
    assert len(session.generate("hello", config=config, max_tokens=2).tokens) == 2


@pytest.mark.parametrize(
    ("name", "value", "error", "values"),
    [
        ("n_ctx", 0, InvalidOptionError, (1, 0)),
        ("n_ctx", 1_000_000_000, InvalidOptionError, (1, 512, 1_000_000_000)),
        ("n_ctx", 1.5, TypeError, (1.5,)),
        ("kv_dtype", "f64", InvalidOptionError, ('"f16"', '"f32"', '"q8_0"', '"f64"')),
        ("kv_dtype", 16, TypeError, (16,)),
        ("n_threads", 0, InvalidOptionError, (1, 1024, 0)),
        ("n_threads", 1.5, TypeError, (1.5,)),
        ("n_threads", 1025, InvalidOptionError, (1, 1024, 1025)),
        ("isa", "mmx", InvalidOptionError, ('"scalar"', '"avx2"', '"neon"', '"mmx"')),
        ("isa", 2, TypeError, (2,)),
        ("prefill_chunk", 0, InvalidOptionError, (1, 0)),
        ("config", {}, TypeError, ("SessionConfig", "dict")),
    ],
)
def test_a_bad_option_of_a_session(model, name, value, error, values):
    with pytest.raises(error) as caught:
        Phi3Session(model=model, **{name: value})
    assert str(caught.value).startswith(f"{name} ")
    assert getattr(caught.value, "option", None) == (name if error is InvalidOptionError else None)
    mentions(caught.value, *values)


@pytest.mark.parametrize("n_threads", [1, 2, 3, 50])
def test_any_number_of_threads_computes(model, n_threads):
    with Phi3Session(model=model, n_threads=n_threads) as session:
        assert session.n_threads == n_threads
        assert session.generate("hello", max_tokens=1, ignore_eos=True).tokens


@pytest.mark.parametrize(
    ("name", "value", "values"),
    [
        ("n_threads", 777, (777, "RAYON_NUM_THREADS", "executor", '"kernels"')),
        ("isa", "scalar", ("executor", '"candle"', '"scalar"')),
        ("kv_dtype", "q8_0", ('"f16"', '"f32"', "executor", "candle", '"q8_0"')),
    ],
)
def test_what_only_the_kernels_can_do(name, value, values):
    with pytest.raises(InvalidOptionError) as caught:
        Phi3Session.demo(executor="candle", **{name: value})
    assert caught.value.option == name
    mentions(caught.value, *values)


def test_a_session_takes_its_options_one_by_one_or_as_a_configuration(model):
    with Phi3Session(model=model, config=SessionConfig(n_ctx=64, kv_dtype="f32"), n_ctx=32) as session:
        assert session.n_ctx == 32
        assert session.config == SessionConfig(n_ctx=32, kv_dtype="f32")
    with Phi3Session(model=model) as session:
        assert session.config == SessionConfig()
        assert session.n_ctx == min(4096, model.info.context_length)
    with Phi3Session(model=model, n_threads=session.n_threads) as session:
        assert session.n_threads >= 1


@pytest.mark.parametrize("wrong", [np.True_, np.array([1, 2]), Decimal("sNaN")])
@pytest.mark.parametrize("option", ["top_k", "temperature"])
def test_what_only_looks_like_a_number_is_a_type_error_that_names_the_option(option, wrong):
    with pytest.raises(TypeError) as caught:
        GenerationConfig(**{option: wrong})
    mentions(caught.value, option)


@pytest.mark.parametrize(("option", "wrong"), [("on_overflow", "\ud800"), ("temperature", Fraction(10**400))])
def test_what_the_engine_cannot_read_is_out_of_range(option, wrong):
    with pytest.raises(InvalidOptionError) as caught:
        GenerationConfig(**{option: wrong})
    assert caught.value.option == option


def test_a_function_without_items_is_a_function_all_the_same():
    told = []

    class Teller(list):
        def __call__(self, progress):
            told.append(progress)

    assert not Teller()
    Phi3Session.demo(prefault=Teller()).close()
    assert told


def test_the_biases_of_a_configuration_cannot_be_changed():
    given = {5: 1.0}
    config = GenerationConfig(logit_bias=given)
    given[6] = 2.0
    biases: Any = config.logit_bias
    for change in (
        lambda: biases.__setitem__(5, 3.0),
        lambda: biases.__delitem__(5),
        lambda: biases.update({5: 3.0}),
        lambda: biases.setdefault(7, 3.0),
        lambda: biases.pop(5),
        biases.popitem,
        biases.clear,
        lambda: biases.__ior__({5: 3.0}),
    ):
        with pytest.raises(TypeError):
            change()
    assert config.logit_bias == {5: 1.0}
    copied = pickle.loads(pickle.dumps(config))
    assert copied == copy.deepcopy(config) == config
    assert hash(copied) == hash(config)
    assert dataclasses.asdict(config)["logit_bias"] == {5: 1.0}


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1e7},
        {"temperature": float("nan")},
        {"repetition_penalty": 1e-9},
        {"repetition_penalty": 5000.0},
        {"presence_penalty": 2e6},
        {"frequency_penalty": float("-inf")},
        {"logit_bias": {1: 3e38}},
        {"logit_bias": {1: float("nan")}},
        {"min_tokens": 5, "max_tokens": 3},
        {"top_p": 0.0},
        {"min_p": 1.5},
        {"stop": ["x", ""]},
    ],
)
def test_an_option_out_of_range_is_refused_when_the_configuration_is_made(options: Any):
    with pytest.raises(InvalidOptionError) as caught:
        GenerationConfig(**options)
    assert caught.value.option in options
    with pytest.raises(InvalidOptionError):
        GenerationConfig().replace(**options)
