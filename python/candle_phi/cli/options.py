"""Options that several commands share."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from candle_phi import trace
from candle_phi.cli import complete, console
from candle_phi.config import Executor
from candle_phi.types import Isa, KvDtype


def _set_debug(value: bool) -> bool:
    if value:
        console.debug = True
    return value


Debug = Annotated[
    bool, typer.Option("--debug", callback=_set_debug, is_eager=True, help="Show the traceback of an error.")
]
Model = Annotated[
    str | None,
    typer.Argument(
        help="A GGUF file, a named model ('candle-phi models'), or OWNER/REPO:QUANTIZATION.",
        metavar="MODEL",
        show_default=False,
    ),
]
Demo = Annotated[bool, typer.Option("--demo", help="The embedded toy model, in the place of the file.")]
Quantization = Annotated[
    str | None,
    typer.Option(
        help="Which of a named model's files, for instance Q5_K_M.", autocompletion=complete.quantizations
    ),
]
File = Annotated[
    str | None, typer.Option("--file", help="The file in the repository.", autocompletion=complete.files)
]
Revision = Annotated[str | None, typer.Option(help="A branch, tag or commit of the repository.")]
CacheDir = Annotated[Path | None, typer.Option(help="The hub cache.  [default: as Hugging Face's tools use it]")]
Token = Annotated[str | None, typer.Option(help="A hub token.  [default: HF_TOKEN, or the one that is logged in]")]
Offline = Annotated[bool, typer.Option("--offline", help="Use the cache only; open no connection.")]
System = Annotated[str | None, typer.Option(help="A system message before the prompt.")]
Stats = Annotated[bool, typer.Option("--stats", help="Print counts and speeds to stderr at the end.")]
Trace = Annotated[
    Path | None,
    typer.Option(help="Write what is computed when into this file, for https://ui.perfetto.dev.", metavar="FILE"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ContextLength = Annotated[
    int | None,
    typer.Option("--n-ctx", min=1, help="Tokens the context holds.  [default: the file's, at most 4096]"),
]
KvCache = Annotated[KvDtype | None, typer.Option("--kv-dtype", help="The type of the KV cache.  [default: f16]")]
SlidingWindow = Annotated[
    int | None,
    typer.Option(min=0, help="Tokens that a token sees; 0 for all before it.  [default: the model's]"),
]
Device = Annotated[
    str | None,
    typer.Option(help=f"{complete.device_spellings()}.  [default: auto]", autocompletion=complete.devices),
]
WhatComputes = Annotated[
    Executor | None,
    typer.Option("--executor", help="What computes: the package's kernels, or Candle.  [default: auto]"),
]
Threads = Annotated[
    int | None,
    typer.Option("--n-threads", min=1, help="How many threads compute.  [default: the cores that may be used]"),
]
InstructionSet = Annotated[
    Isa | None, typer.Option("--isa", help="The instructions that the kernels use.  [default: the best there are]")
]


def traced(path: Path | None) -> AbstractContextManager[None]:
    """Writes a trace of what is done in it, if --trace asks for one."""
    return nullcontext() if path is None else trace(path)
