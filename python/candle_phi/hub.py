"""Models on the Hugging Face hub and in its local cache."""

import os
import re
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from candle_phi import _checks, _convert, _native, _redact
from candle_phi.exceptions import InvalidOptionError, ModelNotFoundError
from candle_phi.types import CachedModel, NamedModel, Progress

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["cached_models", "download", "named_models", "remove_cached"]

DOWNLOAD = "candle_phi.download({!r}) returns the path of its file"
"""The hint for a model name that was given in place of a file; see `model_path`."""

QUANTIZATION = re.compile(r"(?i)\b(?:UD-)?(?:(?:I?Q|TQ|MXFP|NVFP)\d(?:_[A-Z0-9]+)*|B?FP?16|F32)\b")
"""A quantization as file names have it."""
# The width of the bar, and of the figures next to it with some space for a ^C.
_BAR_WIDTH = 16
_FIGURES_WIDTH = 42
# A connection that takes less time than this is not shown.
_QUIET_S = 1.0


@_checks.suggests_keywords
def download(
    name_or_repo: str,
    filename: str | None = None,
    *,
    quantization: str | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | None = None,
    local_files_only: bool = False,
    progress: bool | Callable[[Progress], object] | None = None,
) -> Path:
    """Download a model into the cache, or find it there.

    An interrupted download resumes where it stopped. The file appears in the cache only when it is complete.

    Args:
        name_or_repo: A short name (`named_models` lists them), or a repository "owner/name". Either may end in a
            quantization: "owner/name:Q4_K_M".
        filename: The file in the repository. For a split file, any part ("name-00001-of-00003.gguf")
            selects all parts.
        quantization: The quantization of the file, such as "Q5_K_M". For a repository that is not in the table
            of models, the hub lists its files, or the cache does if it is offline. None: the first quantization of
            a named model; any other repository needs this or ``filename``.
        revision: The branch, tag or commit. None: "main".
        cache_dir: The cache. None: Hugging Face's own, at HF_HUB_CACHE or in HF_HOME.
        token: The access token. None: the token of HF_TOKEN or ``hf auth login``.
        local_files_only: Use only the cache; do not connect to the hub.
        progress: How to report progress: a function, which is called on this thread and whose exception ends the
            download; True for a bar on stderr; False for no report; None for a bar if stderr is a terminal.

    Returns:
        The path of the GGUF file, or of the first part of a split one.

    Raises:
        DownloadError: The download failed, the hub does not have the file, or offline mode forbids it.
        InvalidOptionError: The model name is not known, the quantization matches no file or several files of the
            repository, or an option is out of its range.
        TypeError: An argument is of the wrong type, or the option does not exist.
    """
    path, _tokenizer = fetch(
        name_or_repo,
        filename,
        quantization=quantization,
        revision=revision,
        cache_dir=cache_dir,
        token=token,
        local_files_only=local_files_only,
        progress=progress,
    )
    return path


def fetch(
    name_or_repo: object,
    filename: object,
    *,
    quantization: object,
    revision: object,
    cache_dir: object,
    token: object,
    local_files_only: object,
    progress: object,
) -> tuple[Path, Path | None]:
    """Download a model as `download` does, with its tokenizer.json if the hub has a separate one.

    Returns:
        The paths of the model file and of the tokenizer.json, or None for the latter.
    """
    text = _checks.optional_text
    name = _checks.as_text(name_or_repo, "name_or_repo")
    _refuse_patterns(text(filename, "filename"))
    try:
        with _listener(progress) as listener:
            path, tokenizer = _native.download(
                name,
                filename=text(filename, "filename"),
                quantization=text(quantization, "quantization"),
                revision=text(revision, "revision"),
                cache_dir=_cache_dir(cache_dir),
                token=text(token, "token"),
                local_files_only=_checks.as_bool(local_files_only, "local_files_only"),
                progress=listener,
            )
    except InvalidOptionError as error:
        # The word may also be a valid repository name: a local file of that name matters only if it is not.
        if filename is None and exists(Path(name).is_file):
            raise InvalidOptionError(f"{error} {_opened_by_its_path(name)}", error.option) from None
        raise
    return Path(path), tokenizer if tokenizer is None else Path(tokenizer)


def _opened_by_its_path(name: str) -> str:
    return f"A local file has this name; open it by its path: Phi3Session({name!r})"


def model_path(path: object, instead: str) -> str:
    """Return the path of a model file.

    Args:
        path: The caller's argument.
        instead: The hint for the name of a model or a repository, with a placeholder for the name.

    Returns:
        The path.

    Raises:
        ModelNotFoundError: The argument is the name of a model, not the path of a file.
        InvalidOptionError: The path is empty or contains a NUL character.
        TypeError: The argument is not a path.
    """
    text = _checks.as_path(path, "path")
    if not exists(Path(text).exists) and any(
        text.lower().partition(":")[0] in (model.name, model.repo.lower()) for model in named_models()
    ):
        raise ModelNotFoundError(f"no such file: {text}; it is the name of a model: {instead.format(text)}")
    return text


def _refuse_patterns(filename: str | None) -> None:
    """Refuse a filename that is a pattern or only the name of a quantization."""
    if filename is None:
        return
    found = QUANTIZATION.search(filename)
    if found is not None and found.group() == filename:
        raise _checks.invalid(
            "filename",
            f"must be the name of a file, got the quantization {filename!r}; set quantization to {filename}",
        )
    if set("*?[") & set(filename):
        remedy = "give the full name, or set quantization" + (f" to {found.group()}" if found else "")
        raise _checks.invalid("filename", f"must be the name of a file, got the pattern {filename!r}; {remedy}")


def local_file(text: str) -> Path | None:
    """Return the path that a text denotes, unless the text is the name of a model.

    Args:
        text: A path, a short name, or a repository with or without a quantization.

    Returns:
        The path if the file exists, or if the text cannot be a name: it ends in ".gguf", begins as a path does,
        or has several separators. None for a name, known or unknown, and for "owner/name".
    """
    path = Path(text)
    with suppress(RuntimeError):  # the home directory is not known
        path = path.expanduser()
    if text.lower().endswith(".gguf") or exists(path.is_file):
        return path
    if "://" in text or named_model(text) is not None:
        return None
    separators = text.count("/") + text.count("\\")
    is_path = text.startswith((".", "~", "/", "\\")) or separators > 1 or exists(path.is_dir)
    return path if is_path else None


def exists(look: Callable[[], bool]) -> bool:
    """Check the file system; return False for a text that cannot be a path."""
    try:
        return look()
    except (OSError, ValueError):
        return False


def named_model(name: str) -> NamedModel | None:
    """Return the model with a short name, which may end in a quantization; None if the name is not known."""
    short = name.partition(":")[0].strip().lower()
    return next((model for model in named_models() if model.name == short), None)


def named_models() -> list[NamedModel]:
    """List the models that have a short name.

    Returns:
        The models, in the order of the table.
    """
    return [_convert.named_model(model) for model in _native.named_models()]


def cached_models(cache_dir: str | os.PathLike[str] | None = None) -> list[CachedModel]:
    """List the GGUF files in the cache. A split file is listed as one model, once all of its parts are present.

    Args:
        cache_dir: The cache. None: Hugging Face's own, at HF_HUB_CACHE or in HF_HOME.

    Returns:
        The models; an empty list if the cache does not exist.

    Raises:
        DownloadError: The cache cannot be read.
        TypeError: The argument is not a path.
    """
    return [_convert.cached_model(model) for model in _native.cached_models(_cache_dir(cache_dir))]


def repository(name_or_repo: str) -> str:
    """Return the repository of a short name. Any other name is returned unchanged, as a repository.

    Args:
        name_or_repo: The short name, or the repository.

    Returns:
        The repository.
    """
    model = None if ":" in name_or_repo else named_model(name_or_repo)
    return name_or_repo if model is None else model.repo


def remove_cached(repo: str, cache_dir: str | os.PathLike[str] | None = None) -> int:
    """Remove a repository's model files from the cache.

    The tokenizer.json of a named model is removed too, unless its repository has other files in the cache.

    Args:
        repo: The repository, "owner/name", or the short name of a model that has one (`named_models` lists them).
        cache_dir: The cache. None: Hugging Face's own, at HF_HUB_CACHE or in HF_HOME.

    Returns:
        The number of bytes freed.

    Raises:
        ModelNotFoundError: The repository is not in the cache.
        DownloadError: The files cannot be removed.
        InvalidOptionError: The text is neither a short name nor the name of a repository.
        TypeError: An argument is of the wrong type.
    """
    return _native.remove_cached(repository(_checks.as_text(repo, "repo")), _cache_dir(cache_dir))


def _cache_dir(cache_dir: object) -> str | None:
    return None if cache_dir is None else _checks.as_path(cache_dir, "cache_dir")


@contextmanager
def _listener(progress: object) -> Generator[Callable[[_native.Progress], object] | None, None, None]:
    """Yield the function that the native module calls with the progress of a download."""
    if callable(progress):
        yield lambda native: progress(_convert.progress(native))
        return
    if progress is not None:
        _checks.as_bool(progress, "progress, if it is not a function,")
    if progress or (progress is None and _is_terminal(sys.stderr)):
        with _bars() as update:
            yield lambda native: update(_convert.progress(native))
        return
    yield None


def _is_terminal(stream: object) -> bool:
    isatty = getattr(stream, "isatty", None)  # sys.stderr is None in a program without a console
    return bool(isatty and isatty())


@contextmanager
def _bars() -> Generator[Callable[[Progress], None], None, None]:
    """Draw a progress bar for each file on stderr, and a status line while a connection takes long."""
    # Imported only when a bar is drawn: this import takes longer than the rest of the package.
    from rich import filesize  # noqa: PLC0415
    from rich import progress as rich  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    # The columns that remain for the name and the bar.
    room = console.width - _FIGURES_WIDTH if console.is_terminal else _FIGURES_WIDTH + _BAR_WIDTH
    bar_width = _BAR_WIDTH if room >= 2 * _BAR_WIDTH else 0
    name_width = room - bar_width
    columns = (
        *((rich.TextColumn("{task.description}", markup=False),) if name_width >= _BAR_WIDTH else ()),
        *((rich.BarColumn(bar_width),) if bar_width else ()),
        rich.DownloadColumn(),
        rich.TransferSpeedColumn(),
        rich.TimeRemainingColumn(),
    )
    tasks: dict[str, rich.TaskID] = {}
    last: Progress | None = None
    with _connecting(console) as connected:
        bars = rich.Progress(*columns, console=console)

        def update(progress: Progress) -> None:
            nonlocal last
            last = progress
            connected()
            bars.start()
            task = tasks.get(progress.file)
            if task is None:
                name = _redact.printable(progress.file)
                shown = name if len(name) <= name_width else f"…{name[1 - name_width :]}"
                task = tasks[progress.file] = bars.add_task(shown)
            bars.update(task, completed=progress.bytes_done, total=progress.bytes_total)

        try:
            yield update
        except KeyboardInterrupt:
            # The terminal has written ^C into the bar: without this, the bar would stay on the screen twice.
            bars.live.transient = True
            connected()
            if bars.live.is_started:
                bars.stop()
            if last is not None:
                size, name = filesize.decimal(last.bytes_done), _redact.printable(last.file)
                console.print(f"Interrupted after {size} of {name}; repeat the same call to resume the download.")
            raise
        finally:
            if bars.live.is_started:
                bars.stop()


@contextmanager
def _connecting(console: "Console") -> Generator[Callable[[], None], None, None]:
    """Show a status line if connecting takes longer than a second.

    Yields:
        A function that removes the line. It is also called at the end.
    """
    endpoint = _redact.without_secrets(os.environ.get("HF_ENDPOINT") or "huggingface.co")
    status = console.status(f"connecting to {_redact.printable(endpoint)}")
    timer = threading.Timer(_QUIET_S, status.start)
    timer.daemon = True
    timer.start()

    def connected() -> None:
        timer.cancel()
        timer.join()
        status.stop()

    try:
        yield connected
    finally:
        connected()
