"""What bad input gets, everywhere: an error that says what is wrong, and a session that is still right.

The public surface is found by looking at it (`public_surface`). What is new there, and of which this does not say
what bad input looks like, fails these tests.
"""

import math
from dataclasses import is_dataclass

import pytest

import public_surface
from candle_phi import (
    DownloadError,
    GenerationConfig,
    Phi3Error,
    Phi3Model,
    Phi3Session,
    SessionConfig,
)
from candle_phi.bench import bench
from public_surface import CALLABLES, DEMO, GOOD, HAIKU, is_right, outcome, usual

# Records that the package fills in, and whose values it believes.
RECORDS = {
    "BenchReport",
    "CachedModel",
    "Chunk",
    "Completion",
    "DecodeSpeed",
    "Device",
    "Diagnosis",
    "LeftOut",
    "Memory",
    "MemoryEstimate",
    "MemoryUse",
    "ModelInfo",
    "NamedModel",
    "PrefillSpeed",
    "Progress",
    "RecommendedSampling",
    "Spread",
    "Timings",
    "TokenLogprob",
    "Usage",
}

JUNK = object()
NAN = math.nan
NOT_A_COUNT = (JUNK, "2", 1.5, -1, 2**70, True, [1])
NOT_A_NUMBER = (JUNK, "2", NAN, [1], True)
NOT_A_FLAG = (JUNK, 1, "yes", None)
NOT_A_SWITCH = (JUNK, 1, "yes")
NOT_A_TEXT = (JUNK, 5, b"bytes", ["x"])
NOT_TOKENS = (JUNK, 5, None, b"bytes", [1.5], ["a"], [-1], [2**40], [True], {"a": 1})
NOT_A_PATH = (JUNK, 5, b"bytes", ["x"], "", "a\0b")
LONE_SURROGATE = "a\ud800b"

BAD = {
    "add_bos": NOT_A_FLAG,
    "add_generation_prompt": NOT_A_FLAG,
    "begin": (JUNK, None, 5),
    "cache_dir": NOT_A_PATH,
    "chat_format": (JUNK, 5, "phi5", ""),
    "config": (JUNK, 5, {}, "greedy"),
    "content": (JUNK, 5, None, b"bytes", LONE_SURROGATE),
    "continue_final_message": NOT_A_FLAG,
    "decode_tokens": (*NOT_A_COUNT, 0),
    "depth": (JUNK, 5, "5", [-1], [1.5], ["a"], [10**9]),
    "device": (JUNK, 5, "gpu", "cuda:x", ""),
    "echo": NOT_A_SWITCH,
    "executor": (JUNK, 5, "fast", ""),
    "filename": (*NOT_A_TEXT, LONE_SURROGATE, "../x.gguf"),
    "frequency_penalty": (*NOT_A_NUMBER, math.inf),
    "generation": (JUNK, None, 5),
    "ignore_eos": NOT_A_SWITCH,
    "isa": (JUNK, 5, "mmx", ""),
    "kv_dtype": (JUNK, 5, "f64", ""),
    "local_files_only": NOT_A_FLAG,
    "logit_bias": (JUNK, 5, [1, 2], {"a": 1.0}, {1: "x"}, {1: NAN}, {-1: 1.0}, {2**40: 1.0}),
    "logits_processor": (JUNK, 5, "x", [len]),
    "logprobs": NOT_A_COUNT,
    "max_tokens": (*NOT_A_COUNT, 0),
    "messages": (JUNK, 5, None, b"x", [], [5], ["hello"], [{"role": "user"}], [{"role": "robot", "content": "x"}]),
    "typical_p": (*NOT_A_NUMBER, 0, -0.1, 1.1),
    "min_p": (*NOT_A_NUMBER, -0.1, 1.1),
    "min_tokens": NOT_A_COUNT,
    "mlock": NOT_A_SWITCH,
    "mmap": NOT_A_SWITCH,
    "model": (JUNK, 5, "model.gguf"),
    "n": (*NOT_A_COUNT, 0, None),
    "n_ctx": (*NOT_A_COUNT,),
    "n_threads": (*NOT_A_COUNT, 0),
    "name_or_repo": (*NOT_A_TEXT, None, "", "no such model", "a/b/c", LONE_SURROGATE),
    "on_overflow": (JUNK, 5, "shift", ""),
    "parse_special": NOT_A_FLAG,
    "path": NOT_A_PATH,
    "prefault": NOT_A_SWITCH,
    "prefill": (JUNK, 5, "5", [0], [-1], [1.5], ["a"], [10**9]),
    "prefill_chunk": (*NOT_A_COUNT, 0),
    "presence_penalty": (*NOT_A_NUMBER, -math.inf),
    "progress": (JUNK, 1, "yes"),
    "prompt": (*NOT_TOKENS, [], LONE_SURROGATE),
    "quantization": (*NOT_A_TEXT, "Q99"),
    "repeat_last_n": NOT_A_COUNT,
    "repetition_penalty": (*NOT_A_NUMBER, 0, -1),
    "repo": (*NOT_A_TEXT, None, "", "../etc", "name"),
    "revision": (*NOT_A_TEXT, LONE_SURROGATE, "../x"),
    "role": (JUNK, 5, None, "robot", ""),
    "rope_factors": (JUNK, 5, "medium", ""),
    "rounds": (*NOT_A_COUNT, 0, None),
    "rstrip_control_tokens": NOT_A_SWITCH,
    "seconds": (*NOT_A_NUMBER, None, -1, math.inf),
    "seed": NOT_A_COUNT,
    "skip_special": NOT_A_FLAG,
    "sliding_window": NOT_A_COUNT,
    "stop": (JUNK, 5, b"x", [5], "", ["a", ""], LONE_SURROGATE),
    "stop_token_ids": (JUNK, 5, "5", [1.5], [-1], [2**40]),
    "temperature": (*NOT_A_NUMBER, -1, math.inf),
    "text": (*NOT_A_TEXT, None, LONE_SURROGATE),
    "timeout": (*NOT_A_NUMBER, 0, -1, math.inf),
    "token": (*NOT_A_TEXT, LONE_SURROGATE),
    "tokenizer": (*NOT_A_PATH, "/no/such/tokenizer.json"),
    "tokens": NOT_TOKENS,
    "top_k": (*NOT_A_COUNT, 0),
    "top_p": (*NOT_A_NUMBER, 0, -0.1, 1.1),
    "turns": (*NOT_A_COUNT, None, 1),
    "value": (JUNK, 5, None, "hello", ("user", "x"), {"role": "user"}, {"role": "robot", "content": "x"}),
    "values": (JUNK, 5, None, [], ["a"]),
}
# The messages speak of these in other words.
IN_OTHER_WORDS = {
    "begin": "Phi3Session.astream",
    "generation": "Phi3Session.stream",
    "messages": "message|generation",
    "value": "message",
    "prompt": "prompt|token",
    "name_or_repo": "name_or_repo|model|repository|no such",
    "filename": "filename|file",
    "quantization": "quantization|quantized|Q99",
    "repo": "repo",
}


def error_of(call):
    """What a call raises, or None."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 # whatever it is, it is looked at
        return error
    return None


def instance(owner, model, session):
    """Something to call a method on."""
    return {
        Phi3Session: lambda: session,
        Phi3Model: lambda: model,
        GenerationConfig: GenerationConfig,
        SessionConfig: SessionConfig,
        type(model.info): lambda: model.info,
    }[owner]()


def test_every_callable_and_parameter_has_its_bad_values():
    known = {*BAD}
    for public in CALLABLES.values():
        if public.name not in RECORDS:
            assert set(public.parameters) <= known, public.name
            assert set(public.required) <= {*GOOD, "begin", "generation"}, public.name
    assert known <= {parameter for public in CALLABLES.values() for parameter in public.parameters}
    records = {name for name, cls in public_surface.classes().items() if is_dataclass(cls)}
    assert records - {"GenerationConfig", "SessionConfig", "Message"} == RECORDS


@pytest.mark.parametrize(
    "name", [name for name, public in CALLABLES.items() if public.parameters and name not in RECORDS]
)
def test_a_bad_argument_is_an_error_that_names_it(name, session, model, tmp_path):
    public = CALLABLES[name]
    call = public.call
    if public.owner is not None:
        call = getattr(instance(public.owner, model, session), name.rpartition(".")[2])
    for parameter in public.parameters:
        for value in BAD[parameter]:
            arguments = usual(public, tmp_path) | {parameter: value}
            if parameter == "model":
                del arguments["path"]
            case = f"{name}({parameter}={value!r})"
            error = error_of(lambda call=call, arguments=arguments: outcome(call, **arguments))
            assert isinstance(error, TypeError | Phi3Error), (case, error)
            # And not what comes along when a good name is looked for offline.
            assert not isinstance(error, DownloadError), case
            text = str(error)
            words = IN_OTHER_WORDS.get(parameter, parameter)
            assert any(word in text for word in words.split("|")), (case, text)
            assert "\n" not in text, case
            assert not any(leak in text for leak in (".rs", "PyErr", "Rust", "argument '", "unwrap")), (case, text)
    assert is_right(session, model)


@pytest.mark.parametrize("name", [name for name, public in CALLABLES.items() if name not in RECORDS])
def test_an_unknown_keyword_is_pythons_own_error(name, session, model, tmp_path):
    public = CALLABLES[name]
    call = public.call
    if public.owner is not None and public.parameters:
        call = getattr(instance(public.owner, model, session), name.rpartition(".")[2])
    with pytest.raises(TypeError, match="no_such_option") as caught:
        outcome(call, **usual(public, tmp_path), no_such_option=1)
    assert not isinstance(caught.value, Phi3Error)


class Fault(Exception):  # noqa: N818 # an error of nobody's
    pass


def test_what_a_hook_raises_comes_out_as_it_is(session, model):
    """Those of generations have tests of their own, in test_logits_processor.py, and downloads in test_hub.py."""
    raised = Fault()

    def fail(*_):
        raise raised

    for call in (
        lambda: Phi3Model(DEMO, prefault=fail),
        lambda: Phi3Session(DEMO, prefault=fail),
        lambda: bench(DEMO, progress=fail, rounds=1, prefill=[8], depth=[0], decode_tokens=1),
        lambda: session.generate(HAIKU, logits_processor=fail),
    ):
        with pytest.raises(Fault) as caught:
            call()
        assert caught.value is raised
    assert is_right(session, model)


def test_what_is_iterated_over_may_fail(session, model):
    class Broken(list):
        def __iter__(self):
            raise Fault

    for call in (
        lambda: session.generate(Broken([1])),
        lambda: session.chat(Broken([1])),
        lambda: session.score(Broken([1])),
        lambda: session.generate("x", stop=Broken(["a"])),
        lambda: session.generate("x", stop_token_ids=Broken([1])),
    ):
        with pytest.raises(Fault):
            call()
    assert is_right(session, model)
