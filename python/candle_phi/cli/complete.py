"""What a shell offers behind an option: names of models, and what belongs to them.

Typer keeps what begins as the word does that was typed.
"""

from collections.abc import Iterable

import typer

from candle_phi import CachedModel, Phi3Error, _native, cached_models, named_models

# A value, and what it is.
Offer = tuple[str, str]


def names() -> Iterable[Offer]:
    """Models that are known by name, and repositories in the cache."""
    known = {model.name: model.description for model in named_models()}
    in_names = {model.repo for model in named_models()}
    repos = {model.repo: "in the cache" for model in _cached() if model.repo not in in_names}
    return [*known.items(), *repos.items()]


def names_unless_chosen(ctx: typer.Context) -> Iterable[Offer]:
    """Models, unless an option has chosen one."""
    return [] if any(ctx.params.get(option) for option in ("model", "name", "demo")) else names()


def cached_names() -> Iterable[Offer]:
    """Models that are in the cache, by their short name where they have one."""
    short = {model.repo: model.name for model in named_models()}
    return [(short.get(model.repo, model.repo), model.file) for model in _cached()]


def quantizations(ctx: typer.Context) -> Iterable[Offer]:
    """The files of the named model that the command line names."""
    name = ctx.params.get("name")
    model = next((model for model in named_models() if model.name == name), None)
    if model is None:
        return []
    others = ((name, "") for name in model.quantizations if name not in model.files)
    return [*model.files.items(), *others]


def files(ctx: typer.Context) -> Iterable[Offer]:
    """The files of the repository that the command line names, as far as they are in the cache."""
    name = ctx.params.get("name")
    return [(model.file, "in the cache") for model in _cached() if model.repo == name]


def devices() -> Iterable[Offer]:
    """The devices that ``--device`` takes."""
    kinds = [(kind.name, kind.description) for kind in _native.device_kinds()]
    return [("auto", "the best device of this build"), *kinds]


def device_spellings() -> str:
    """How ``--device`` can be written, with N for a number."""

    def spellings(kind: _native.DeviceKind) -> str:
        return ", ".join(kind.spellings)

    return ", ".join(["auto", *map(spellings, _native.device_kinds())])


def _cached() -> list[CachedModel]:
    try:
        return cached_models()
    except (Phi3Error, OSError):
        return []  # a completion says nothing about what does not work
