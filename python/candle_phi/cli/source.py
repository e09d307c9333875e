"""Where the model of a command comes from, and how it is loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from candle_phi import ModelNotFoundError, Phi3Session, inspect_model, named_models
from candle_phi.cli import complete, console, flags, options


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the model comes from: exactly one of a file, a name and the embedded one."""

    model: Annotated[Path | None, typer.Option("--model", "-m", help="A GGUF file.")] = None
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            "-n",
            help="A named model ('candle-phi models'), or OWNER/REPO with --file.",
            autocompletion=complete.names,
        ),
    ] = None
    demo: Annotated[bool, typer.Option("--demo", help="The embedded toy model: nothing is downloaded.")] = False
    quantization: options.Quantization = None
    file: options.File = None
    revision: options.Revision = None
    cache_dir: options.CacheDir = None
    token: options.Token = None
    offline: options.Offline = False

    def __post_init__(self) -> None:
        chosen = {"--model": self.model is not None, "--name": self.name is not None, "--demo": self.demo}
        given = [option for option, is_given in chosen.items() if is_given]
        if not given:
            raise console.UsageProblem(
                "no model was chosen: give --model FILE.gguf, --name NAME (see 'candle-phi models') or --demo"
            )
        if len(given) > 1:
            raise console.UsageProblem(f"{' and '.join(given)} exclude each other")
        # Options about the hub without a name would be ignored in silence.
        for option in flags.HUB.values():
            if self.name is None and getattr(self, option):
                raise console.UsageProblem(f"--{option.replace('_', '-')} is about the hub: it needs --name")
        # Before anything else is asked for, a prompt for one, which may be what was taken for the model.
        if self.model is not None and not self.model.exists():
            _refuse_missing(self.model)
        if self.name is not None and self.file is None:
            _refuse_no_name(self.name)

    def open(self, loading: "Loading") -> Phi3Session:
        """Loads the model and opens a session on it."""
        given = loading.given()
        if self.model is not None:
            return Phi3Session(self.model, **given)
        if self.name is not None:
            hub = {name: getattr(self, option) for name, option in flags.HUB.items()}
            return Phi3Session.from_pretrained(self.name, **hub, **given)
        return Phi3Session.demo(**given)


def _refuse_missing(model: Path) -> None:
    if str(model) in {known.name for known in named_models()}:
        raise ModelNotFoundError(f"no such file: {model}; did you mean --name {model}?")
    inspect_model(model)  # which has the words for it


def _refuse_no_name(name: str) -> None:
    if name.isdigit():
        raise console.UsageProblem(
            f"there is no model named {name}: -n is --name; did you mean --max-tokens {name}?"
        )
    is_known = name in {known.name for known in named_models()}
    if not is_known and console.at_home(Path(name)).is_file():
        raise console.UsageProblem(f"{name} is a file, and --name takes a name: did you mean --model {name}?")


@options.group("session", "loading")
class Loading:
    """How the model is loaded and computes."""

    def given(self) -> dict[str, Any]:
        """The options that were given, as keywords; the package has the defaults."""
        return options.given(self, "session", "loading")
