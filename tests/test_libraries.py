"""A build for CUDA finds the toolkit's libraries where the system does not look, or says which one is missing."""

import ctypes
import importlib
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from candle_phi import _libraries


def refused(name: str) -> ImportError:
    """What Python raises on Linux for a module whose library is missing."""
    return ImportError(
        f"{name}: cannot open shared object file: No such file or directory", name="candle_phi._native"
    )


@pytest.fixture
def imports(monkeypatch):
    """Lets the native module fail to import as often as there are errors; tells what was loaded meanwhile."""
    loaded: list[str] = []

    def pretend(*errors: ImportError, folders: tuple[Path, ...] = ()) -> list[str]:
        left = list(errors)

        def import_module(name: str) -> None:
            assert name == "candle_phi._native"
            if left:
                raise left.pop(0)

        monkeypatch.setattr(importlib, "import_module", import_module)
        monkeypatch.setattr(_libraries, "library_folders", lambda: iter(folders))
        monkeypatch.setattr(ctypes, "CDLL", lambda path, mode: loaded.append(Path(path).name))
        return loaded

    return pretend


def toolkit(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("libcublas.so.13", "libcublasLt.so.13", "libcudart.so.13", "libcufft.so.12", "libnvrtc.so.13"):
        (folder / name).touch()
    return folder


def test_a_build_without_gpus_loads_nothing(imports, tmp_path):
    assert imports(folders=(toolkit(tmp_path / "lib"),)) == []
    _libraries.import_native()


def test_what_is_missing_is_loaded_in_the_order_of_need_and_the_import_repeated(imports, tmp_path):
    loaded = imports(refused("libcublas.so.13"), folders=(tmp_path / "none", toolkit(tmp_path / "lib")))
    _libraries.import_native()
    assert loaded == ["libcudart.so.13", "libnvrtc.so.13", "libcublasLt.so.13", "libcublas.so.13"]


def test_a_library_that_is_nowhere_is_named_with_what_to_install(imports):
    imports(refused("libcublas.so.13"), refused("libcublas.so.13"))
    with pytest.raises(ImportError, match=r"needs libcublas\.so\.13 .*pip install candle-phi\[cuda13\]") as raised:
        _libraries.import_native()
    assert raised.value.name == "candle_phi._native"


def test_a_machine_without_a_driver_is_told_so(imports):
    imports(refused("libcudart.so.13"), refused("libcuda.so.1"))
    with pytest.raises(ImportError, match=r"libcuda\.so\.1, which comes with NVIDIA's driver"):
        _libraries.import_native()


@pytest.mark.parametrize("text", ["undefined symbol: cuInit", "DLL load failed while importing _native", ""])
def test_another_failure_stays_what_it_is(imports, text):
    error = ImportError(text)
    imports(error)
    with pytest.raises(ImportError) as raised:
        _libraries.import_native()
    assert raised.value is error


def test_a_library_that_does_not_load_leaves_the_others(monkeypatch, tmp_path):
    loaded = []

    def load(path: str, mode: int) -> None:
        if "cublasLt" in path:
            raise OSError("of another version")
        loaded.append(Path(path).name)

    monkeypatch.setattr(ctypes, "CDLL", load)
    _libraries.load(toolkit(tmp_path / "lib"))
    assert loaded == ["libcudart.so.13", "libnvrtc.so.13", "libcublas.so.13"]


def test_pypis_packages_come_before_the_toolkit_that_is_installed(monkeypatch, tmp_path):
    packages = tmp_path / "nvidia"
    (packages / "cu13" / "lib").mkdir(parents=True)
    spec = SimpleNamespace(submodule_search_locations=[str(packages)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "nvidia" else None)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "toolkit"))
    monkeypatch.delenv("CUDA_PATH", raising=False)
    assert list(_libraries.library_folders()) == [
        packages / "cu13" / "lib",
        tmp_path / "toolkit" / "lib64",
        Path("/usr/local/cuda/lib64"),
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="the message is Linux's")
def test_the_message_of_this_systems_loader_is_understood():
    with pytest.raises(OSError, match="cannot open") as raised:
        ctypes.CDLL("libcandle-phi-has-none.so.1")
    assert _libraries.missing_library(ImportError(str(raised.value))) == "libcandle-phi-has-none.so.1"
