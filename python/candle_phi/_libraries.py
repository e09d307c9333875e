"""Imports the native module, and in a build for CUDA finds its libraries first.

Such a build is linked against the CUDA toolkit's libraries. Where the system's loader finds none, those of PyPI's
packages are taken (``pip install candle-phi[cuda13]``), or those of a toolkit that is in its usual place.
"""

import ctypes
import importlib
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

# First: whether the processor can run what is imported below.
from candle_phi import _processor  # noqa: F401  # pyright: ignore[reportUnusedImport]

_NOT_FOUND = re.compile(r"(lib[\w.+-]+\.so[\w.]*): cannot open shared object file")
_DRIVER = "libcuda.so"
# In this order, since one needs the ones before it.
_NAMES = ("libcudart", "libnvrtc-builtins", "libnvrtc", "libcublasLt", "libcublas", "libcurand")


def import_native() -> None:
    """Imports the native module.

    Raises:
        ImportError: It cannot be imported. If a library is missing, the message says which, and what to do.
    """
    try:
        _import()
    except ImportError as error:
        if missing_library(error) is None:
            raise
    else:
        return
    for folder in library_folders():
        load(folder)
    try:
        _import()
    except ImportError as error:
        missing = missing_library(error)
        if missing is None:
            raise
        raise ImportError(advice(missing), name=error.name, path=error.path) from error


def _import() -> None:
    importlib.import_module("candle_phi._native")


def missing_library(error: ImportError) -> str | None:
    """The library that an import failed for, if it was one.

    Args:
        error: What the import raised.

    Returns:
        The library's name.
    """
    found = _NOT_FOUND.search(str(error))
    return found[1] if found else None


def advice(missing: str) -> str:
    """What to do about a library that is missing.

    Args:
        missing: The library's name.

    Returns:
        A message.
    """
    if missing.startswith(_DRIVER):
        return (
            f'this build of candle-phi has the feature "cuda" and needs {missing}, which comes with NVIDIA\'s '
            "driver: install the driver, or on a machine without a GPU a build without that feature"
        )
    return (
        f'this build of candle-phi has the feature "cuda" and needs {missing} of the CUDA toolkit that it was '
        "built with: pip install candle-phi[cuda13] for CUDA 13, or name the folder of the toolkit's libraries in "
        "LD_LIBRARY_PATH"
    )


def library_folders() -> Iterator[Path]:
    """Where CUDA's libraries may be although the system does not look there.

    Yields:
        Folders, those of PyPI's packages first.
    """
    nvidia = importlib.util.find_spec("nvidia")
    for package in (nvidia and nvidia.submodule_search_locations) or ():
        yield from sorted(Path(package).glob("*/lib"))
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if home := os.environ.get(variable):
            yield Path(home, "lib64")
    yield Path("/usr/local/cuda/lib64")


def load(folder: Path) -> None:
    """Loads those of CUDA's libraries that are in a folder, for whatever needs one by its name.

    Args:
        folder: The folder. It need not exist.
    """
    for name in _NAMES:
        for library in sorted(folder.glob(f"{name}.so.*")):
            try:
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
            except OSError:
                continue  # of another version, or in need of what is not there: the import will say so


# When it is imported, which is the first thing that the package does.
import_native()
