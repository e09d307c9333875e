"""Where the model of a command comes from, and how it is loaded."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from candle_phi import ModelNotFoundError, Phi3Session, inspect_model, named_models
from candle_phi.cli import complete, console, flags, options
from candle_phi.types import ChatFormat, RopeFactors


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """How the model is loaded and computes."""

    n_ctx: options.ContextLength = None
    kv_dtype: options.KvCache = None
    chat_format: Annotated[
        ChatFormat | None, typer.Option(help="The chat format, in place of the file's own template.")
    ] = None
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer.json, in place of the vocabulary in the file.")
    ] = None
    rstrip_control_tokens: Annotated[
        bool | None,
        typer.Option(help="Control tokens swallow white space behind them; not in files of April 2024."),
    ] = None
    sliding_window: options.SlidingWindow = None
    rope_factors: Annotated[
        RopeFactors | None,
        typer.Option(help="LongRoPE's factors: long for what will be a long conversation.  [default: auto]"),
    ] = None
    device: options.Device = None
    executor: options.WhatComputes = None
    n_threads: options.Threads = None
    isa: options.InstructionSet = None
    mmap: Annotated[
        bool | None, typer.Option(help="Map the file, or read it into memory: where others may change it.")
    ] = None
    prefault: Annotated[bool, typer.Option("--prefault", help="Read all of the file before the first answer.")] = (
        False
    )
    mlock: Annotated[bool, typer.Option("--mlock", help="Lock the file into memory.")] = False

    def given(self) -> dict[str, Any]:
        """The options that were given, as keywords; the package has the defaults."""
        return {name: value for name, value in asdict(self).items() if value is not None}
