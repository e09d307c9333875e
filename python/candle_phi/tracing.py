"""Traces of the engine's work, in a file that chrome://tracing and Perfetto can show."""

import os
from collections.abc import Generator
from contextlib import AbstractContextManager, ContextDecorator, contextmanager
from pathlib import Path

from candle_phi import _checks, _native

__all__ = ["trace"]


def trace(path: str | os.PathLike[str]) -> AbstractContextManager[None]:
    """Write a trace of everything that the engine does inside the ``with`` block, on any thread.

        with candle_phi.trace("generation.json"):
            session.generate(prompt)

    The file is JSON of the Chrome trace format: open it at https://ui.perfetto.dev or in chrome://tracing. It
    shows the loading of a model, the tokenization of a prompt and its prefill chunk by chunk, and for each token
    the computation layer by layer, the sampling and the decoding to text. The file is complete after Ctrl-C and
    after an exception; if the process is killed, at most the last second is missing. On a GPU, the layers show
    when work was submitted to it.

    A token of a large model takes some tens of kilobytes in the file. While no trace is written, tracing has no
    measurable cost.

    Args:
        path: The file. An existing file is overwritten.

    Returns:
        A context manager, whose ``with`` block has no value.

    Raises:
        InvalidOptionError: A trace is already being written; a process writes one trace at a time.
        OSError: The file cannot be written.
        TypeError: The argument is not a path.
    """
    return _Trace(_checks.as_path(path, "path"))


class _Trace(ContextDecorator, AbstractContextManager[None]):
    """A context manager that can be entered again, which overwrites the file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        with _told(self._path):
            _native.start_trace(self._path)

    def __exit__(self, *_error: object) -> None:
        with _told(self._path):
            _native.stop_trace()

    def __repr__(self) -> str:
        return f"<trace to {self._path!r}>"


@contextmanager
def _told(path: str) -> Generator[None, None, None]:
    """Raise errors that name the file's purpose and what is wrong with its path."""
    try:
        yield
    except OSError as error:
        folder = Path(path).absolute().parent
        if isinstance(error, FileNotFoundError) and not folder.is_dir():
            why = f"there is no folder {folder}"
        elif isinstance(error, IsADirectoryError):
            why = "it is a directory; expected the path of a file in it"
        else:
            why = error.strerror or str(error)
        told = type(error)(f"cannot write a trace to {path}: {why}")
        told.errno = error.errno
        raise told from error
