"""The import of the native module, which in a CUDA build finds CUDA's libraries first.

A CUDA build is linked against the CUDA toolkit's libraries. If the system's loader does not find them, those of
the PyPI packages are used (``pip install candle-phi[cuda13]``), or those of a toolkit in its usual place.
"""

import ctypes
import importlib
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

# Imported first: it checks that the processor can run the native module.
from candle_phi import _processor  # noqa: F401  # pyright: ignore[reportUnusedImport]

_NOT_FOUND = re.compile(r"(lib[\w.+-]+\.so[\w.]*): cannot open shared object file")
_DRIVER = "libcuda.so"
# In this order: each library may need the ones before it.
_NAMES = ("libcudart", "libnvrtc-builtins", "libnvrtc", "libcublasLt", "libcublas", "libcurand")


def import_native() -> None:
    """Import the native module.

    Raises:
        ImportError: The module cannot be imported. If a library is missing, the message names it and says what to
            do.
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
    """Return the missing library that made an import fail.

    Args:
        error: The import's exception.

    Returns:
        The library's name; None if the import failed for another reason.
    """
    found = _NOT_FOUND.search(str(error))
    return found[1] if found else None


def advice(missing: str) -> str:
    """Return what to do about a missing library.

    Args:
        missing: The library's name.

    Returns:
        A message.
    """
    if missing.startswith(_DRIVER):
        return (
            f'this build of candle-phi has the feature "cuda" and needs {missing}, which comes with NVIDIA\'s '
            "driver: install the driver; on a machine without a GPU, install a build without that feature"
        )
    return (
        f'this build of candle-phi has the feature "cuda" and needs {missing} of the CUDA toolkit that it was '
        "built with: pip install candle-phi[cuda13] for CUDA 13, or name the folder of the toolkit's libraries in "
        "LD_LIBRARY_PATH"
    )


def library_folders() -> Iterator[Path]:
    """Find the folders that may hold CUDA's libraries but that the system does not search.

    Yields:
        The folders, those of the PyPI packages first.
    """
    nvidia = importlib.util.find_spec("nvidia")
    for package in (nvidia and nvidia.submodule_search_locations) or ():
        yield from sorted(Path(package).glob("*/lib"))
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if home := os.environ.get(variable):
            yield Path(home, "lib64")
    yield Path("/usr/local/cuda/lib64")


def load(folder: Path) -> None:
    """Load the CUDA libraries of a folder, so that later imports find them by name.

    Args:
        folder: The folder. It may be missing.
    """
    for name in _NAMES:
        for library in sorted(folder.glob(f"{name}.so.*")):
            try:
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
            except OSError:
                continue  # another version, or a missing dependency: the import reports it


# On import, which is the first step of the package.
import_native()
