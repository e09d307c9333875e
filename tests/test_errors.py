import contextlib
import inspect
import pickle
from pathlib import Path
from typing import get_type_hints

import pytest

import candle_phi
from candle_phi import (
    ContextLengthError,
    ConversationFileError,
    ConversationNotFoundError,
    DeviceError,
    DownloadError,
    InferenceError,
    InputTypeError,
    InsufficientMemoryError,
    InvalidModelError,
    InvalidOptionError,
    Message,
    ModelLoadError,
    ModelNotFoundError,
    Phi3Error,
    Phi3Model,
    Phi3Session,
    SavedConversationError,
    SessionBusyError,
    SessionClosedError,
    UnsupportedModelError,
    download,
    exceptions,
    inspect_model,
    remove_cached,
)
from messages import mentions

BASES = {
    ModelLoadError: (Phi3Error,),
    ModelNotFoundError: (ModelLoadError, FileNotFoundError),
    InvalidModelError: (ModelLoadError, ValueError),
    UnsupportedModelError: (ModelLoadError,),
    DeviceError: (Phi3Error, RuntimeError),
    InvalidOptionError: (Phi3Error, ValueError),
    InputTypeError: (Phi3Error, TypeError),
    ContextLengthError: (Phi3Error, ValueError),
    SessionClosedError: (Phi3Error, RuntimeError),
    SessionBusyError: (Phi3Error, RuntimeError),
    SavedConversationError: (Phi3Error, ValueError),
    ConversationFileError: (Phi3Error, OSError),
    ConversationNotFoundError: (ConversationFileError, FileNotFoundError),
    InsufficientMemoryError: (Phi3Error, MemoryError),
    InferenceError: (Phi3Error, RuntimeError),
    DownloadError: (Phi3Error, OSError),
}


ARGUMENTS = {
    ContextLengthError: (7, 5),
    InsufficientMemoryError: (7, 5),
    SavedConversationError: ("damaged",),
    InvalidOptionError: ("top_p",),
}
"""What is given beside the message."""


@pytest.fixture(autouse=True)
def _backtraces_asked_for(monkeypatch):
    monkeypatch.setenv("RUST_BACKTRACE", "1")


def message(caught):
    text = str(caught.value)
    assert text
    assert "backtrace" not in text
    assert ".rs:" not in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize(("error", "bases"), BASES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_each_exception_is_also_the_builtin_that_fits(error, bases):
    assert all(issubclass(error, base) for base in bases)
    assert error.__doc__


def test_all_exceptions_are_exported():
    assert {*BASES, Phi3Error} == {
        value for value in vars(exceptions).values() if inspect.isclass(value) and issubclass(value, Exception)
    }
    assert set(exceptions.__all__) <= set(candle_phi.__all__)


@pytest.mark.parametrize("error", BASES, ids=lambda error: error.__name__)
def test_each_exception_survives_pickling(error):
    original = error("what", *ARGUMENTS.get(error, ()))
    assert set(vars(original)) == set(get_type_hints(error))
    returned = pickle.loads(pickle.dumps(original))
    assert type(returned) is error
    assert str(returned) == str(original) == "what"
    assert vars(returned) == vars(original)


@pytest.mark.parametrize("open_", [Phi3Model, Phi3Session, inspect_model], ids=lambda call: call.__name__)
@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/no/such/file.gguf", ModelNotFoundError),
        (Path("/no/such/file.gguf"), ModelNotFoundError),
        ("", InvalidOptionError),
        ("a\0b", InvalidOptionError),
        (5, TypeError),
        (b"bytes.gguf", TypeError),
        (["list.gguf"], TypeError),
    ],
    ids=repr,
)
def test_a_path_that_cannot_be(open_, path, error):
    with pytest.raises(error) as caught:
        open_(path)
    message(caught)


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(ModelNotFoundError, match="no-such-file"):
        Phi3Session("/tmp/no-such-file.gguf")


def test_a_session_needs_one_model(model):
    for arguments, values in [
        ({}, ["path", "model", "Phi3Session.from_pretrained()", "Phi3Session.demo()"]),
        ({"path": model.path, "model": model}, ["path", "model"]),
        ({"model": "x"}, ["model", "Phi3Model", "str", "path"]),
        ({"path": model}, ["path", "os.PathLike", "Phi3Model", "model"]),
        ({"model": model, "device": "cpu"}, ["device", "Phi3Model()"]),
        ({"model": model, "mmap": False}, ["mmap", "Phi3Model()"]),
    ]:
        with pytest.raises(TypeError) as caught:
            Phi3Session(**arguments)
        mentions(caught.value, *values)
        assert ("from_pretrained" in str(caught.value)) is (not arguments)
        assert ("Phi3Model()" in str(caught.value)) is bool({"device", "mmap"} & set(arguments))


@pytest.mark.parametrize("device", ["gpu", "", "cuda:x", "cpu:1"])
def test_an_unknown_device_says_which_there_are(device):
    for opens in (Phi3Session, Phi3Model):
        with pytest.raises(InvalidOptionError) as caught:
            opens.demo(device=device)
        assert caught.value.option == "device"
        mentions(caught.value, '"cpu"', '"cuda:N"', f'"{device}"')
        message(caught)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "metal"])
def test_a_device_that_is_not_there_is_never_replaced(device):
    with contextlib.suppress(DeviceError):
        assert Phi3Session.demo(device=device).device.startswith(device)


def test_bad_loading_options():
    for option, value, error, values in [
        ("device", 5, TypeError, ["device"]),
        ("executor", "fast", InvalidOptionError, ['"fast"']),
        ("executor", "Kernels", InvalidOptionError, ['"auto"', '"kernels"', '"candle"', '"Kernels"']),
        ("executor", 5, TypeError, ["executor", 5]),
        ("mmap", 1, TypeError, ["mmap"]),
        ("tokenizer", 5, TypeError, ["tokenizer"]),
        ("tokenizer", "/no/such/tokenizer.json", ModelNotFoundError, ["/no/such/tokenizer.json"]),
        ("rstrip_control_tokens", 0, TypeError, ["rstrip_control_tokens"]),
        ("sliding_window", -1, InvalidOptionError, [0, -1]),
        ("prefault", "yes", TypeError, ["prefault"]),
    ]:
        with pytest.raises(error) as caught:
            Phi3Model.demo(**{option: value})
        message(caught)
        assert getattr(caught.value, "option", None) == (option if error is InvalidOptionError else None)
        mentions(caught.value, *values)


@pytest.mark.parametrize("method", ["generate", "stream", "score", "logits"])
def test_what_is_no_prompt(session, method):
    call = getattr(session, method)
    vocabulary_size = session.model.info.vocabulary_size
    argument = next(iter(inspect.signature(call).parameters))
    for prompt, error, values in [
        ([], InvalidOptionError, []),
        ([1, -1], InvalidOptionError, [-1, 1]),
        ([vocabulary_size], InvalidOptionError, [0, vocabulary_size - 1, vocabulary_size]),
        ([2**70], InvalidOptionError, [2**70, 0]),
        ([1.5], InputTypeError, ["float", 0]),
        (["a"], InputTypeError, ["'a'", "str", 0]),
        ([True], InputTypeError, ["bool", 0]),
        (b"bytes", InputTypeError, ["bytes"]),
        (None, InputTypeError, ["NoneType"]),
        (5, InputTypeError, ["int"]),
    ]:
        with pytest.raises(error) as caught:
            call(prompt)
        message(caught)
        mentions(caught.value, *values)
        if error is InvalidOptionError:
            # A prompt without a token is the engine's own error, which calls it so for every call.
            option = caught.value.option
            assert option == argument or (prompt == [] and option == "prompt")
        else:
            mentions(caught.value, argument)
    assert session.score([1, 2])


DATA = {
    "generate": (None, 5, b"x", [None], ["a"], [1.5]),
    "stream": (None, 5, b"x", [None]),
    "score": (None, 5, "text", [None]),
    "logits": (None, 5, "text", [None]),
    "tokenize": (None, 5, b"x"),
    "count_tokens": (None, 5, b"x"),
    "detokenize": (None, 5, "text", [None]),
    "chat": (
        None,
        5,
        b"x",
        [None],
        ["text"],
        {"role": "user", "content": "x"},
        [{"role": "user", "content": None}],
    ),
    "chat_stream": (None, [None], [{"role": None, "content": "x"}]),
    "render_chat": (None, [None], [{"role": "user", "content": [None]}]),
    "render_chat_tokens": (None, [None], [{"role": "user", "content": [{"type": "text", "text": None}]}]),
}


@pytest.mark.parametrize("method", DATA)
def test_data_of_the_wrong_type_is_an_error_of_this_package(session, method):
    for value in DATA[method]:
        with pytest.raises(InputTypeError) as caught:
            getattr(session, method)(value)
        message(caught)
    for value in (None, 5):
        with pytest.raises(InputTypeError):
            Message.user(value)
        with pytest.raises(InputTypeError):
            Message(value, "hello")
        with pytest.raises(InputTypeError):
            Message.of(value)


def test_an_option_of_the_wrong_type_is_pythons_own_error(session):
    for options in ({"max_tokens": "5"}, {"stop": 5}, {"stop_token_ids": ["a"]}, {"logit_bias": {None: 1.0}}):
        with pytest.raises(TypeError) as caught:
            session.chat("hello", **options)
        assert not isinstance(caught.value, Phi3Error), options


@pytest.mark.parametrize("method", ["generate", "stream", "chat", "chat_stream", "tokenize", "count_tokens"])
def test_text_that_has_no_encoding(session, method):
    call = getattr(session, method)
    with pytest.raises(InvalidOptionError) as caught:
        call("a\ud800b")
    message(caught)
    assert caught.value.option == next(iter(inspect.signature(call).parameters))
    mentions(caught.value, r"'\ud800'", 1)


def test_text_that_is_none(session):
    for method in ("tokenize", "count_tokens"):
        for value in (5, None, b"x", ["x"]):
            with pytest.raises(InputTypeError) as caught:
                getattr(session, method)(value)
            mentions(caught.value, "text", "str", type(value).__name__)
    for tokens, error in [
        ("x", TypeError),
        (5, TypeError),
        ([2**31], InvalidOptionError),
        ([-1], InvalidOptionError),
    ]:
        with pytest.raises(error):
            session.detokenize(tokens)


@pytest.mark.parametrize("method", ["chat", "chat_stream", "render_chat", "render_chat_tokens"])
def test_what_are_no_messages(session, method):
    call = getattr(session, method)
    for messages, error in [
        ([], InvalidOptionError),
        (5, TypeError),
        (None, TypeError),
        ({"role": "user", "content": "one message, not a list"}, TypeError),
        ([5], TypeError),
        ([{"role": "robot", "content": "hi"}], InvalidOptionError),
        ([{"role": "user"}], InvalidOptionError),
    ]:
        with pytest.raises(error) as caught:
            call(messages)
        message(caught)


def test_a_prompt_longer_than_the_context(model):
    with Phi3Session(model=model, n_ctx=8) as session:
        for call in (session.generate, session.stream, session.score, session.logits):
            with pytest.raises(ContextLengthError) as caught:
                call([1] * 9)
            assert (caught.value.prompt_tokens, caught.value.context_length) == (9, 8)
            mentions(caught.value, 9, 8, "n_ctx")
            message(caught)
        with pytest.raises(ContextLengthError):
            session.chat("a very long message that cannot fit into eight tokens of context, whatever one does")
        assert len(session.score([1] * 8)) == 7


def test_a_token_that_the_options_name_must_exist(session):
    size = session.model.info.vocabulary_size
    for options in ({"logit_bias": {size: 1.0}}, {"stop_token_ids": [size]}):
        with pytest.raises(InvalidOptionError) as caught:
            session.generate("hello", **options)
        message(caught)
        assert [caught.value.option] == list(options)
        mentions(caught.value, size)


def test_chat_options_that_exclude_each_other(session):
    conversation = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    for options in (
        {"add_generation_prompt": True, "continue_final_message": True},
        {"add_generation_prompt": 1},
    ):
        with pytest.raises((InvalidOptionError, TypeError)):
            session.render_chat(conversation, **options)


def test_a_closed_session_says_so(model):
    session = Phi3Session(model=model)
    session.close()
    session.close()
    assert session.closed
    assert "closed" in repr(session)
    for call in (
        lambda: session.generate("a"),
        lambda: session.stream("a"),
        lambda: session.chat("a"),
        lambda: session.chat_stream("a"),
        lambda: session.score([1]),
        lambda: session.logits([1]),
        lambda: session.tokenize("a"),
        lambda: session.detokenize([1]),
        lambda: session.count_tokens("a"),
        lambda: session.render_chat([{"role": "user", "content": "a"}]),
        lambda: session.render_chat_tokens([{"role": "user", "content": "a"}]),
        session.reset,
    ):
        with pytest.raises(SessionClosedError) as caught:
            call()
        message(caught)
    with Phi3Session(model=model) as other:
        assert other.generate("a", max_tokens=1).usage.completion_tokens <= 1


def test_offline_and_bad_names_at_the_hub(tmp_path):
    with pytest.raises(DownloadError) as caught:
        download("phi-3-mini-4k", local_files_only=True, cache_dir=tmp_path)
    message(caught)
    assert isinstance(caught.value, OSError)
    for call in (Phi3Session.from_pretrained, Phi3Model.from_pretrained):
        with pytest.raises(DownloadError):
            call("phi-3-mini-4k", local_files_only=True, cache_dir=tmp_path)
    for arguments, error in [
        ({"name_or_repo": "no such model"}, (ModelNotFoundError, InvalidOptionError)),
        ({"name_or_repo": "owner/repo"}, InvalidOptionError),
        ({"name_or_repo": 5}, TypeError),
        ({"name_or_repo": "phi-3-mini-4k", "quantization": "Q99"}, (ModelNotFoundError, InvalidOptionError)),
        ({"name_or_repo": "owner/repo", "filename": "../../x.gguf"}, InvalidOptionError),
        ({"name_or_repo": "phi-3-mini-4k", "cache_dir": 5}, TypeError),
        ({"name_or_repo": "phi-3-mini-4k", "progress": "yes"}, TypeError),
        ({"name_or_repo": "phi-3-mini-4k", "local_files_only": "no"}, TypeError),
    ]:
        with pytest.raises(error) as caught:
            download(**({"cache_dir": tmp_path, "local_files_only": True} | arguments))
        message(caught)
    with pytest.raises(InvalidOptionError):
        remove_cached("../etc", tmp_path)
