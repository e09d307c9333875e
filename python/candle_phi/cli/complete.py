"""Shell completions of values: names of models, their quantizations and files, and devices.

typer keeps the values that begin with the typed word.
"""

from collections.abc import Iterable

import typer

from candle_phi import CachedModel, Phi3Error, _native, cached_models, named_models

# A value and its description.
Offer = tuple[str, str]


def names() -> Iterable[Offer]:
    """List the models that are known by name, and the repositories in the cache."""
    known = {model.name: model.description for model in named_models()}
    in_names = {model.repo for model in named_models()}
    repos = {model.repo: "in the cache" for model in _cached() if model.repo not in in_names}
    return [*known.items(), *repos.items()]


def names_unless_chosen(ctx: typer.Context) -> Iterable[Offer]:
    """List the models, unless an option has chosen one."""
    return [] if any(ctx.params.get(option) for option in ("model", "name", "demo")) else names()


def cached_names() -> Iterable[Offer]:
    """List the models in the cache, by their short name if they have one."""
    short = {model.repo: model.name for model in named_models()}
    return [(short.get(model.repo, model.repo), model.file) for model in _cached()]


def quantizations(ctx: typer.Context) -> Iterable[Offer]:
    """List the quantizations of the named model on the command line."""
    name = ctx.params.get("name")
    model = next((model for model in named_models() if model.name == name), None)
    if model is None:
        return []
    others = ((name, "") for name in model.quantizations if name not in model.files)
    return [*model.files.items(), *others]


def files(ctx: typer.Context) -> Iterable[Offer]:
    """List the cached files of the repository on the command line."""
    name = ctx.params.get("name")
    return [(model.file, "in the cache") for model in _cached() if model.repo == name]


def devices() -> Iterable[Offer]:
    """List the devices that ``--device`` takes."""
    kinds = [(kind.name, kind.description) for kind in _native.device_kinds()]
    return [("auto", "the best device of this build"), *kinds]


def device_spellings() -> str:
    """List the spellings that ``--device`` accepts, with N for a number."""

    def spellings(kind: _native.DeviceKind) -> str:
        return ", ".join(kind.spellings)

    return ", ".join(["auto", *map(spellings, _native.device_kinds())])


def _cached() -> list[CachedModel]:
    try:
        return cached_models()
    except (Phi3Error, OSError):
        return []  # a completion does not report errors
