"""What a shell offers behind an option: names of models, and what belongs to them."""

from collections.abc import Iterable

import typer

from candle_phi import CachedModel, Phi3Error, cached_models, named_models

Offer = tuple[str, str]


def names(incomplete: str) -> Iterable[Offer]:
    """Models that are known by name, and repositories in the cache."""
    known = {model.name: model.description for model in named_models()}
    in_names = {model.repo for model in named_models()}
    repos = {model.repo: "in the cache" for model in _cached() if model.repo not in in_names}
    return _beginning(incomplete, {**known, **repos})


def cached_names(incomplete: str) -> Iterable[Offer]:
    """Models that are in the cache, by their short name where they have one."""
    short = {model.repo: model.name for model in named_models()}
    return _beginning(incomplete, {short.get(model.repo, model.repo): model.file for model in _cached()})


def quantizations(ctx: typer.Context, incomplete: str) -> Iterable[Offer]:
    """The files of the named model that the command line names."""
    name = ctx.params.get("name")
    model = next((model for model in named_models() if model.name == name), None)
    return [] if model is None else _beginning(incomplete, model.files)


def files(ctx: typer.Context, incomplete: str) -> Iterable[Offer]:
    """The files of the repository that the command line names, as far as they are in the cache."""
    name = ctx.params.get("name")
    return _beginning(incomplete, {model.file: "in the cache" for model in _cached() if model.repo == name})


def devices(incomplete: str) -> Iterable[Offer]:
    """Where it can compute."""
    known = {"auto": "the best there is", "cpu": "", "cuda": "an NVIDIA GPU", "metal": "an Apple GPU"}
    return _beginning(incomplete, known)


def _cached() -> list[CachedModel]:
    try:
        return cached_models()
    except (Phi3Error, OSError):
        return []  # a completion says nothing about what does not work


def _beginning(incomplete: str, offers: dict[str, str]) -> list[Offer]:
    return [(value, about) for value, about in offers.items() if value.startswith(incomplete)]
