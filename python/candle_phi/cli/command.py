"""typer's commands and command groups, with better error messages."""

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
    """Attach the command to a usage error, so that its message points to the right help."""
    try:
        yield
    except typer.TyperException as error:
        problem: Any = error
        if getattr(problem, "ctx", None) is None:
            problem.ctx = ctx
        if args and hasattr(problem, "possibilities"):
            problem.option_name = _typed(problem.option_name, args)
            problem.arguments = args
        raise


def _typed(option: str, args: list[str]) -> str:
    """Return the typed word: the parser reads each letter of -temp as an option, and reports the first."""
    words = (word for word in args if re.match(r"-[a-zA-Z]{2}", word) and option[1:] in word)
    return option if option.startswith("--") else next(words, option)


class Command(TyperCommand):
    """A command."""

    # Unexpected arguments are refused in `parse_args`, with a hint.
    allow_extra_args = True

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words after the command."""
        with _named(ctx, list(args)):
            rest = super().parse_args(ctx, args)
            if rest and not ctx.resilient_parsing:
                raise console.UsageProblem(usage.unexpected(rest, ctx))
        # A shell does not expand the ~ of --model=~/file.
        for name, value in ctx.params.items():
            if isinstance(value, Path):
                ctx.params[name] = console.at_home(value)
        return rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with _named(ctx):
            return super().invoke(ctx)


class Group(TyperGroup):
    """A command group."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words before the command."""
        with _named(ctx, list(args)):
            return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command among the words."""
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            problem: Any = console.UsageProblem(usage.no_such_command(args[0], ctx))
            problem.ctx = ctx
            raise problem
        return super().resolve_command(ctx, args)
