"""The Python package wraps all of the native module."""

import inspect
import re
import sys
from pathlib import Path

import pytest

import candle_phi
from candle_phi import _native

PACKAGE = Path(candle_phi.__file__).parent
SOURCE = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))


def public(thing):
    return {name for name in dir(thing) if not name.startswith("_")}


def test_everything_native_is_used_by_the_package():
    unused = {name for name in public(_native) if not re.search(rf"\b_native\.{name}\b", SOURCE)}
    assert unused == set()


@pytest.mark.parametrize("cls", [cls for cls in vars(_native).values() if inspect.isclass(cls)])
def test_every_member_of_a_native_class_is_used_by_the_package(cls):
    unused = {name for name in public(cls) if not re.search(rf"\.{name}\b", SOURCE)}
    assert unused == set()


@pytest.mark.parametrize("thing", [value for name, value in vars(_native).items() if not name.startswith("_")])
def test_everything_native_is_documented(thing):
    assert inspect.getdoc(thing)


def test_the_classes_have_the_names_of_the_package():
    for name in ("Phi3Model", "Phi3Session"):
        cls = getattr(_native, name)
        assert (cls.__name__, cls.__module__) == (name, "candle_phi._native")
        assert inspect.isclass(getattr(candle_phi, name))


def test_the_version_is_the_packages():
    from importlib.metadata import version

    assert candle_phi.__version__ == _native.__version__ == version("candle-phi")


@pytest.mark.skipif(sys.platform == "win32", reason="the name says nothing there")
def test_the_module_is_for_every_python_from_3_11_on():
    assert ".abi3." in Path(_native.__file__).name


def test_the_public_names_are_there_and_documented():
    assert candle_phi.__all__ == sorted(candle_phi.__all__)
    for name in candle_phi.__all__:
        thing = getattr(candle_phi, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), name
        if inspect.isclass(thing) and not issubclass(thing, Exception):
            for member in public(thing):
                assert inspect.getdoc(getattr(thing, member)) or member in thing.__dataclass_fields__, (
                    name,
                    member,
                )


def test_native_objects_cannot_be_made_or_changed_by_hand(model):
    for name in (
        "Chunk",
        "Completion",
        "DeviceKind",
        "Generation",
        "MemoryEstimate",
        "OptionSpec",
        "ModelInfo",
        "Progress",
        "NamedModel",
        "CachedModel",
    ):
        with pytest.raises(TypeError):
            getattr(_native, name)()
    with pytest.raises(AttributeError):
        _native.named_models()[0].name = "x"
