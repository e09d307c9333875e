"""The options that choose a command's model and say how to load it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from candle_phi import (
    DownloadError,
    InvalidOptionError,
    ModelNotFoundError,
    Phi3Model,
    Phi3Session,
    hub,
    inspect_model,
)
from candle_phi.cli import complete, console, flags, foreign, options


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The choice of a model: a file, a name or the embedded model, by an option or an argument."""

    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help=options.MODEL_HELP,
            metavar="MODEL",
        ),
    ] = None
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            help="Like --model, but never a file. A repository with --file needs no quantization.",
            metavar="NAME",
            autocompletion=complete.names,
        ),
    ] = None
    demo: Annotated[bool, typer.Option("--demo", help="Use the embedded toy model, without a download.")] = False
    quantization: options.Quantization = None
    file: options.File = None
    revision: options.Revision = None
    cache_dir: options.CacheDir = None
    token: options.Token = None
    offline: options.Offline = False

    @property
    def options(self) -> list[str]:
        """The given options among those that choose a model."""
        chosen = {"--model": self.model is not None, "--name": self.name is not None, "--demo": self.demo}
        return [option for option, is_given in chosen.items() if is_given]

    def chosen(self, word: str | None = None) -> "Chosen":
        """Return the model that the options or an argument choose.

        Args:
            word: An argument that names the model.

        Returns:
            The model. Nothing is loaded or downloaded here.

        Raises:
            UsageProblem: No model is chosen, or several are, or the other options do not fit the model.
            ModelNotFoundError: The file does not exist.
        """
        given = [*self.options, *([] if word is None else [repr(word)])]
        if not given:
            raise console.UsageProblem(
                "no model is chosen: use --model FILE, --name NAME (see 'candle-phi models') or --demo"
            )
        if len(given) > 1:
            raise console.UsageProblem(f"{' and '.join(given)} exclude each other")
        if self.name is not None:
            _refuse_file(self.name, has_file=self.file is not None)
        text = self.model if word is None else word
        if "" in (text, self.name):
            raise console.UsageProblem(
                "the model's name is empty; give a file or a name (see 'candle-phi models')"
            )
        path = None if text is None else path_or_name(text)
        name = self.name if text is None else (None if path is not None else text)
        # Options of the hub without a name would be ignored silently.
        for option in flags.HUB.values():
            if name is None and getattr(self, option):
                hint = "; a prompt in a file is read from stdin: add < FILE" if option == "file" else ""
                raise console.UsageProblem(
                    f"--{option.replace('_', '-')} is for the hub and needs a model's name: --name NAME{hint}"
                )
        # Checked before the prompt is asked for: the prompt may have been taken for the model.
        if path is not None and not path.exists():
            inspect_model(path)  # raises the error for a missing file
        return Chosen(path, name, {name: getattr(self, option) for name, option in flags.HUB.items()})


@dataclass(frozen=True, slots=True)
class Chosen:
    """The model of a command: a file, a name with its options of the hub, or neither for the embedded model."""

    path: Path | None
    name: str | None
    hub: dict[str, Any]

    def open(self, loading: "Loading") -> Phi3Session:
        """Load the model, downloading it if necessary, and open a session on it."""
        given = loading.given()
        if self.path is not None:
            return Phi3Session(self.path, **given)
        if self.name is not None:
            return Phi3Session.from_pretrained(self.name, **self.hub, **given)
        return Phi3Session.demo(**given)


def path_or_name(text: str) -> Path | None:
    """Return the path that a word denotes; None for the name of a model.

    Args:
        text: The word.

    Returns:
        The path. The file may be missing.

    Raises:
        UsageProblem: The word is neither the path of a file nor the name of a model.
    """
    path = hub.local_file(text)
    if path is None and "/" not in text and hub.named_model(text) is None:
        try:
            # The hub module suggests the name that was probably meant.
            hub.download(text, local_files_only=True, progress=False)
        except InvalidOptionError as error:
            raise console.UsageProblem(f"there is no file {text!r}, and {error}") from None
    return path


def file_of(model: str | None, *, demo: bool, may_fetch: bool) -> Path:
    """Return the file of a model.

    Args:
        model: A path or a name.
        demo: Whether to use the embedded model.
        may_fetch: Whether to download a model that is not in the cache.

    Returns:
        The path.

    Raises:
        UsageProblem: Both or neither were given, or the model is neither a file nor a name.
        ModelNotFoundError: The model must be downloaded first.
    """
    if demo is (model is not None):
        raise console.UsageProblem(
            "expected either a model, which is a GGUF file or a name (see 'candle-phi models'), or --demo"
        )
    if model is None:
        return Phi3Model.demo().path
    path = path_or_name(model)
    if path is not None:
        return path
    if may_fetch:
        return hub.download(model)
    try:
        return hub.download(model, local_files_only=True)
    except DownloadError:
        download = f"'{foreign.command_line('download', model)}' downloads it{_about_size(model)}"
        raise ModelNotFoundError(f"{model} is not in the cache: {download}") from None


def _about_size(name: str) -> str:
    model = hub.named_model(name)
    if model is None:
        return ""
    quantization = name.partition(":")[2].upper() or next(iter(model.files))
    size = model.about_bytes.get(quantization)
    return "" if size is None else f" (about {console.human_bytes(size)})"


def _refuse_file(name: str, *, has_file: bool) -> None:
    if not has_file and hub.named_model(name) is None and hub.exists(console.at_home(Path(name)).is_file):
        raise console.UsageProblem(f"{name} is a file, and --name takes a name: did you mean --model {name}?")


@options.group("session", "loading")
class Loading:
    """The options that say how to load the model and how to compute."""

    def given(self) -> dict[str, Any]:
        """Return the given options as keywords; the package has the defaults."""
        return options.given(self, "session", "loading")
