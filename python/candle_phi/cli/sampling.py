"""How to generate, as options of the command line."""

from dataclasses import asdict, dataclass, fields
from typing import Annotated

import typer

from candle_phi import GenerationConfig, RecommendedSampling
from candle_phi.types import OnOverflow


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """When to end, and how to choose each token."""

    max_tokens: Annotated[int | None, typer.Option(help="Stop after this many tokens.")] = None
    min_tokens: Annotated[
        int | None, typer.Option(help="The model doesn't end by itself before this many tokens.")
    ] = None
    timeout: Annotated[float | None, typer.Option(help="Stop after this many seconds.")] = None
    temperature: Annotated[
        float | None, typer.Option(help="0 always takes the most likely token.  [default: 1.0]")
    ] = None
    top_k: Annotated[int | None, typer.Option(help="Sample among the K most likely tokens.")] = None
    top_p: Annotated[float | None, typer.Option(help="Sample among the most likely tokens that sum up to P.")] = (
        None
    )
    min_p: Annotated[
        float | None, typer.Option(help="Leave out tokens less likely than P times the most likely one.")
    ] = None
    repetition_penalty: Annotated[float | None, typer.Option(help="1 is none; 1.1 discourages repeating.")] = None
    repeat_last_n: Annotated[int | None, typer.Option(help="How many tokens the penalties look back.")] = None
    presence_penalty: Annotated[float | None, typer.Option(help="Taken off a token that has come up.")] = None
    frequency_penalty: Annotated[
        float | None, typer.Option(help="Taken off a token for each time it has come up.")
    ] = None
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same text.  [default: random]")] = None
    stop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="Stop before this text, taken as it is: $'\\n' is a line break in bash. May be given again.",
        ),
    ] = None
    on_overflow: Annotated[
        OnOverflow | None,
        typer.Option(help="Where the context is full: leave out the oldest, or end.  [default: error]"),
    ] = None
    tutorial: Annotated[
        bool, typer.Option("--tutorial", help="Start from the tutorial's settings; other options still count.")
    ] = False

    def config(self, recommended: RecommendedSampling | None = None) -> GenerationConfig:
        """The package's configuration, which has the ranges and the defaults that no file recommends."""
        start = GenerationConfig.tutorial() if self.tutorial else defaults(recommended)
        given = {name: value for name, value in asdict(self).items() if value not in (None, [])}
        del given["tutorial"]
        return start.replace(**given)


def defaults(recommended: RecommendedSampling | None) -> GenerationConfig:
    """The configuration without any option given."""
    return GenerationConfig() if recommended is None else GenerationConfig(**recommended.options())


# What the chat's /set sets: what there are options for.
SETTINGS = tuple(field.name for field in fields(Sampling) if field.name != "tutorial")
