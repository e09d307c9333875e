"""What the engine does and when, in a file that chrome://tracing and Perfetto show."""

import os
from collections.abc import Generator
from contextlib import AbstractContextManager, ContextDecorator, contextmanager
from pathlib import Path

from candle_phi import _checks, _native

__all__ = ["trace"]


def trace(path: str | os.PathLike[str]) -> AbstractContextManager[None]:
    """Writes a trace of everything that the engine does inside the ``with`` block, in any thread.

        with candle_phi.trace("generation.json"):
            session.generate(prompt)

    The file is JSON of the Chrome trace format: open it at https://ui.perfetto.dev or in chrome://tracing. It
    shows how a model is loaded, a prompt tokenized and read chunk by chunk, and each token computed layer by
    layer, drawn and made text. It is whole after Ctrl-C and after an exception, and up to its last second if the
    process is killed. Where a GPU computes, the layers show when work was handed to it.

    A token of a large model takes some tens of kilobytes in the file. While no trace is written, this costs
    nothing that can be measured.

    Args:
        path: The file; one that is there is overwritten.

    Returns:
        What ``with`` takes; it gives nothing.

    Raises:
        InvalidOptionError: A trace is being written already; a process has one at a time.
        OSError: The file cannot be written.
        TypeError: It is no path.
    """
    return _Trace(_checks.as_path(path, "path"))


class _Trace(ContextDecorator, AbstractContextManager[None]):
    """Can be entered again; the file is then written anew."""

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
    """Says what the file was for, and what is wrong with its path, as the errors of saving a conversation do."""
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
