"""Commands and groups of them: what typer's do, and better words for what is wrong."""

import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from candle_phi.cli import console, usage


@contextmanager
def _named(ctx: Any, args: list[str] | None = None) -> Generator[None, None, None]:
    """Lets an error know the command that it is about, so that its message points to the right help."""
    try:
        yield
    except typer.TyperException as error:
        problem: Any = error
        if getattr(problem, "ctx", None) is None:
            problem.ctx = ctx
        if args and hasattr(problem, "possibilities"):
            problem.option_name = _whole(problem.option_name, args)
            problem.arguments = args
        raise


def _whole(option: str, args: list[str]) -> str:
    """The word that was written: the letters of -temp are read as options, and fail at the first."""
    words = (word for word in args if re.match(r"-[a-zA-Z]{2}", word) and option[1:] in word)
    return option if option.startswith("--") else next(words, option)


class Command(TyperCommand):
    """A command."""

    # Those that are too many are refused here, with what was probably meant by them.
    allow_extra_args = True

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the words behind the command."""
        with _named(ctx, list(args)):
            rest = super().parse_args(ctx, args)
            if rest and not ctx.resilient_parsing:
                raise console.UsageProblem(usage.unexpected(rest, ctx))
        # A shell leaves the ~ of --model=~/file alone.
        for name, value in ctx.params.items():
            if isinstance(value, Path):
                ctx.params[name] = console.at_home(value)
        return rest

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        with _named(ctx):
            return super().invoke(ctx)


class Group(TyperGroup):
    """Commands behind a common word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the words up to the command."""
        with _named(ctx, list(args)):
            return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Finds the command in the words."""
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            problem: Any = console.UsageProblem(usage.no_such_command(args[0], ctx))
            problem.ctx = ctx
            raise problem
        return super().resolve_command(ctx, args)
