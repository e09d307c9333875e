"""The options of generation on the command line."""

from typing import Annotated

import typer

from candle_phi import GenerationConfig, RecommendedSampling
from candle_phi._options import OPTIONS
from candle_phi.cli import options


@options.group("generation")
class Sampling:
    """The options that say when to stop and how to sample each token."""

    tutorial: Annotated[
        bool, typer.Option("--tutorial", help="Start from the tutorial's settings; other options still apply.")
    ] = False

    def config(self, recommended: RecommendedSampling | None = None) -> GenerationConfig:
        """Return the configuration of the options. The package checks the ranges and has the other defaults."""
        start = GenerationConfig.tutorial() if self.tutorial else defaults(recommended)
        return start.replace(**options.given(self, "generation"))


def defaults(recommended: RecommendedSampling | None) -> GenerationConfig:
    """Return the configuration without any option, from the file's recommended sampling if it has one."""
    return GenerationConfig() if recommended is None else GenerationConfig(**recommended.options())


# The options that /set of the chat can set.
SETTINGS = tuple(option.name for option in OPTIONS.values() if "set" in option.interfaces)
