"""`candle-phi models`: the known and the cached models, and the removal of one."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from candle_phi import (
    InvalidOptionError,
    ModelNotFoundError,
    _checks,
    cached_models,
    named_models,
    remove_cached,
)
from candle_phi.cli import complete, console, options
from candle_phi.cli.command import Command, Group
from candle_phi.hub import repository
from candle_phi.types import NamedModel

# A narrower terminal shows a list: it would wrap the cells of a table to a few characters.
_TABLE_WIDTH = 140

models_app: typer.Typer = typer.Typer(
    cls=Group,
    help="List the known and the cached models, or remove one.",
    rich_markup_mode=None,
)


@models_app.callback(invoke_without_command=True)
def list_models(
    ctx: typer.Context,
    *,
    cache_dir: options.CacheDir = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """List the models that are known by name, and those in the cache."""
    del debug
    if ctx.invoked_subcommand is not None:
        return
    known, cached = named_models(), cached_models(cache_dir)
    if as_json:
        everything = {"known": [asdict(model) for model in known], "cached": [asdict(model) for model in cached]}
        print(json.dumps(everything, indent=2, default=str))
        return
    width = console.terminal_width()
    is_narrow = width is not None and width < _TABLE_WIDTH
    (_list if is_narrow else console.print_table)(
        "Known",
        ["name", "download", "description", "repository"],
        [[model.name, _downloads(model), model.description, model.repo] for model in known],
    )
    example = next((model for model in known if len(model.quantizations) > len(model.files)), None)
    if example is not None:
        last = example.quantizations[-1]
        print()
        console.print_line(
            f"Other quantizations are chosen as in {example.name}:{last}; 'candle-phi models --json' lists them"
        )
    print()
    if not cached:
        console.print_line("The cache is empty; 'candle-phi download NAME' downloads a model")
        return
    (_list if is_narrow else console.print_table)(
        "Cached",
        ["repository", "file", "revision", "size"],
        [[model.repo, model.file, model.revision, console.human_bytes(model.size_bytes)] for model in cached],
    )


def _downloads(model: NamedModel) -> str:
    """List the known files and their approximate sizes."""
    sizes = {name: console.human_bytes(size) for name, size in model.about_bytes.items()}
    return ", ".join(f"{name} (about {sizes[name]})" if name in sizes else name for name in model.files)


def _list(title: str, _columns: list[str], rows: list[list[str]]) -> None:
    """Print a table's rows as paragraphs, for a terminal that is too narrow for a table."""
    console.print_paragraphs(title, rows)


@models_app.command("remove", cls=Command)
def remove(
    name: Annotated[
        str, typer.Argument(help="A named model, or OWNER/REPO.", autocompletion=complete.cached_names)
    ],
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    cache_dir: options.CacheDir = None,
    debug: options.Debug = False,
) -> None:
    """Remove a model from the cache."""
    del debug
    if ":" in name:
        whole = name.partition(":")[0]
        raise console.UsageProblem(f"all files of a repository are removed together: did you mean {whole}?")
    repo = repository(name)
    cached = cached_models(cache_dir)
    files = [model for model in cached if model.repo == repo]
    if not files:
        is_known = repo != name
        others = [model.name for model in named_models()] + [model.repo for model in cached]
        meant = None if is_known else _checks.closest(name, others)
        hint = "'candle-phi models' lists the models" if meant is None else f"did you mean {meant}?"
        if not is_known and "/" not in name:
            raise InvalidOptionError(f"there is no model named {name}: {hint}")
        raise ModelNotFoundError(f"{repo} is not in the cache: {hint}")
    size = console.human_bytes(sum(model.size_bytes for model in files))
    names = ", ".join(model.file for model in files)
    if not yes:
        console.question(f"Remove {repo} ({names}; {size})? [y/N]")
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            print("nothing was removed", file=sys.stderr)
            raise typer.Exit(1)
    print(f"freed {console.human_bytes(remove_cached(repo, cache_dir))}")
