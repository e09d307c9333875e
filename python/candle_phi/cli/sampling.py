"""How to generate, as options of the command line."""

from typing import Annotated

import typer

from candle_phi import GenerationConfig, RecommendedSampling
from candle_phi._options import OPTIONS
from candle_phi.cli import options


@options.group("generation")
class Sampling:
    """When to end, and how to choose each token."""

    tutorial: Annotated[
        bool, typer.Option("--tutorial", help="Start from the tutorial's settings; other options still count.")
    ] = False

    def config(self, recommended: RecommendedSampling | None = None) -> GenerationConfig:
        """The package's configuration, which has the ranges and the defaults that no file recommends."""
        start = GenerationConfig.tutorial() if self.tutorial else defaults(recommended)
        return start.replace(**options.given(self, "generation"))


def defaults(recommended: RecommendedSampling | None) -> GenerationConfig:
    """The configuration without any option given."""
    return GenerationConfig() if recommended is None else GenerationConfig(**recommended.options())


# What the chat's /set sets.
SETTINGS = tuple(option.name for option in OPTIONS.values() if "set" in option.interfaces)
