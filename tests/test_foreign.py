"""The words of people who come from another library: names of attributes, roles and keys, files and models."""

import copy
import pickle

import pytest

from candle_phi import (
    Chunk,
    Completion,
    InvalidOptionError,
    Message,
    ModelNotFoundError,
    Phi3Model,
    Phi3Session,
    _foreign,
    download,
    estimate_memory,
    inspect_model,
    named_models,
)
from messages import mentions

NAMES = [(owner, name) for owner, names in _foreign.ATTRIBUTES.items() for name in names]


@pytest.fixture
def objects(session, model):
    return {
        "Chunk": Chunk("hi"),
        "Completion": session.chat("hello", max_tokens=1),
        "Phi3Model": model,
        "Phi3Session": session,
    }


@pytest.mark.parametrize(("owner", "name"), NAMES)
def test_an_attribute_of_another_library_is_answered_with_what_to_use(objects, owner, name):
    found = objects[owner]
    assert not hasattr(found, name)
    with pytest.raises(AttributeError) as caught:
        getattr(found, name)
    assert str(caught.value).endswith(f"has no attribute {name!r}: {_foreign.ATTRIBUTES[owner][name]}")
    assert (caught.value.name, caught.value.obj) == (name, found)


def test_other_attributes_are_pythons_own_error(objects):
    for owner, found in objects.items():
        with pytest.raises(AttributeError) as caught:
            found.xyzzy  # noqa: B018 # looking at it is what is tested
        assert str(caught.value) == f"'{owner}' object has no attribute 'xyzzy'"
        assert not any(hasattr(found, name) for name in ("__getitem__", "__call__", "__len__"))


def test_a_subclass_gives_the_same_advice(model):
    class Mine(Phi3Session):
        pass

    with Mine(model=model) as session, pytest.raises(AttributeError) as caught:
        session.create_chat_completion  # noqa: B018 # looking at it is what is tested
    mentions(caught.value, "chat_stream()")


def test_results_still_copy_and_pickle(objects):
    for name in ("Chunk", "Completion"):
        found = objects[name]
        assert copy.copy(found) == copy.deepcopy(found) == pickle.loads(pickle.dumps(found)) == found
    assert isinstance(objects["Completion"], Completion)


@pytest.mark.parametrize("role", _foreign.ROLES)
def test_a_role_of_another_library_is_refused_with_what_to_use(role):
    with pytest.raises(InvalidOptionError) as caught:
        Message.of({"role": role, "content": "hello"})
    assert str(caught.value).endswith(f"got {role!r}: {_foreign.ROLES[role]}")


@pytest.mark.parametrize("key", _foreign.MESSAGE_KEYS)
def test_a_key_of_another_library_is_refused_with_the_reason(key):
    with pytest.raises(InvalidOptionError) as caught:
        Message.of({"role": "user", "content": "hello", key: "x", "extra": 1})
    mentions(caught.value, f"{key!r} ({_foreign.MESSAGE_KEYS[key]})", "'extra'")
    assert Message.of({"role": "user", "content": "hello", key: None}) == Message.user("hello")


OPENING = [download, Phi3Session.from_pretrained, Phi3Model.from_pretrained]


@pytest.mark.parametrize("call", OPENING)
@pytest.mark.parametrize("filename", ["*Q4_K_M.gguf", "*q4_k_m.gguf", "phi-?.gguf", "[Pp]hi.gguf"])
def test_a_pattern_is_not_the_name_of_a_file(call, filename, tmp_path):
    with pytest.raises(InvalidOptionError) as caught:
        call("phi-4-mini", filename, cache_dir=tmp_path, local_files_only=True)
    mentions(caught.value, "filename", repr(filename), "quantization")


@pytest.mark.parametrize("call", OPENING)
@pytest.mark.parametrize("quantization", ["Q4_K_M", "q8_0", "IQ4_XS", "BF16", "Q4_0"])
def test_a_quantization_is_not_the_name_of_a_file(call, quantization, tmp_path):
    """And that is known without asking the hub, or looking into its cache."""
    with pytest.raises(InvalidOptionError) as caught:
        call("phi-4-mini", quantization, cache_dir=tmp_path, local_files_only=True)
    mentions(caught.value, "filename", repr(quantization), "quantization")
    mentions(str(caught.value).rpartition("quantization")[2], quantization)


@pytest.mark.parametrize("call", [Phi3Model, Phi3Session, estimate_memory, inspect_model])
def test_a_models_name_is_not_the_path_of_a_file(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for model in named_models():
        for name in (model.name, model.repo):
            with pytest.raises(ModelNotFoundError) as caught:
                call(name)
            remedy = "from_pretrained" if call in {Phi3Model, Phi3Session} else "candle_phi.download"
            mentions(caught.value, f"{remedy}({name!r})")


def test_a_file_that_is_called_like_a_model_is_a_file(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phi-4-mini").write_bytes(model.path.read_bytes())
    assert inspect_model("phi-4-mini").parameter_count == model.info.parameter_count


def test_a_loaded_model_is_not_the_path_of_a_file(model):
    with pytest.raises(TypeError) as caught:
        Phi3Session(model)
    mentions(caught.value, "path", "os.PathLike", "Phi3Model", "model")
