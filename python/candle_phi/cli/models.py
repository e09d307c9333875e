"""`candle-phi models`: which models are known, which are cached, and away with one."""

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
    console.print_table(
        "Known",
        ["name", "quantizations", "repository", "description"],
        [[model.name, ", ".join(model.files), model.repo, model.description] for model in known],
    )
    print()
    if not cached:
        print("Nothing is cached yet: candle-phi download NAME")
        return
    console.print_table(
        "Cached",
        ["repository", "file", "revision", "size"],
        [[model.repo, model.file, model.revision, console.human_bytes(model.size_bytes)] for model in cached],
    )


@models_app.command("remove", cls=Command)
def remove(
    name: Annotated[
        str, typer.Argument(help="A named model, or OWNER/REPO.", autocompletion=complete.cached_names)
    ],
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    cache_dir: options.CacheDir = None,
    debug: options.Debug = False,
) -> None:
    """Remove a model from the cache."""
    del debug
    repo = repository(name)
    cached = cached_models(cache_dir)
    files = [model for model in cached if model.repo == repo]
    if not files:
        is_known = repo != name
        others = [model.name for model in named_models()] + [model.repo for model in cached]
        meant = None if is_known else _checks.closest(name, others)
        hint = "candle-phi models shows what is" if meant is None else f"did you mean {meant}?"
        if not is_known and "/" not in name:
            raise InvalidOptionError(f"there is no model named {name}: {hint}")
        raise ModelNotFoundError(f"{repo} is not in the cache: {hint}")
    size = console.human_bytes(sum(model.size_bytes for model in files))
    names = ", ".join(model.file for model in files)
    if not yes:
        print(f"Remove {repo} ({names}; {size})? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            print("nothing was removed", file=sys.stderr)
            raise typer.Exit(1)
    print(f"freed {console.human_bytes(remove_cached(repo, cache_dir))}")
