"""The program `candle-phi`: its commands, and the handling of their errors."""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from candle_phi import InvalidOptionError, Phi3Error, __version__
from candle_phi.cli import console, flags, shells, usage
from candle_phi.cli.bench import bench
from candle_phi.cli.chat import chat
from candle_phi.cli.command import Command, Group
from candle_phi.cli.doctor import doctor
from candle_phi.cli.download import download
from candle_phi.cli.generate import generate
from candle_phi.cli.info import info
from candle_phi.cli.models import models_app
from candle_phi.cli.options import Debug

# The exit codes of the command line; 0 is success.
EXIT_FAILURE = 1
EXIT_USAGE = 2


class CommandLine(Group):
    """All commands, with one rule for their errors: a line on stderr, and an exit code for the kind of error.

    A reader that closes the pipe (`| head`) is not an error.
    """

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: ARG002 # the errors are handled here, for programs and for tests
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command in `args` and exit with `SystemExit`."""
        console.debug = False
        try:
            console.open_closed_streams()
            code = super().main(
                args,
                prog_name=prog_name or "candle-phi",
                complete_var=complete_var,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                **extra,
            )
            sys.stdout.flush()
        except BrokenPipeError:
            leave_quietly()
            code = 0
        except typer.TyperException as error:
            console.error(usage.message(error))
            code = EXIT_USAGE
        except typer.Abort:
            console.error("cancelled")
            code = EXIT_FAILURE
        except Exception as error:  # noqa: BLE001 # the last resort: a user sees a sentence, not a traceback
            if console.debug:
                console.write_note(traceback.format_exc().rstrip())
            else:
                console.error(failure_message(error, self))
            # An invalid value of an option is a usage error, also if the package has found it.
            code = EXIT_USAGE if isinstance(error, InvalidOptionError) else EXIT_FAILURE
        sys.exit(code if isinstance(code, int) else 0)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words before the command."""
        return super().parse_args(ctx, shells.with_shells(args))

    def make_context(self, *arguments: Any, **extra: Any) -> Any:
        """Parse the command line, which may print the help and exit."""
        try:
            return super().make_context(*arguments, **extra)
        except BrokenPipeError:
            leave_quietly()
            raise typer.Exit(0) from None

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            leave_quietly()
            raise typer.Exit(0) from None
        return result


def leave_quietly() -> None:
    """Redirect stdout to the null device, so that the interpreter can flush it at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def failure_message(error: Exception, command: Any) -> str:
    """Return the message for an error. The message for an unexpected error names its class."""
    if isinstance(error, Phi3Error):
        return flags.worded(error, command)
    if isinstance(error, OSError):
        if error.strerror and error.filename:
            return f"{error.strerror.lower()}: {error.filename}"
        return str(error)
    return f"unexpected {type(error).__name__}: {error} (--debug shows where)"


def show_version(wanted: bool) -> None:
    """Print the version and exit, if `wanted`."""
    if wanted:
        print(f"candle-phi {__version__}")
        raise typer.Exit


app: typer.Typer = typer.Typer(
    cls=CommandLine,
    name="candle-phi",
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,  # typer's own options for it know the current shell only
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def candle_phi(
    ctx: typer.Context,
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Debug = False,
    install_completion: shells.InstallCompletion = None,
    show_completion: shells.ShowCompletion = None,
) -> None:
    """Run Microsoft's Phi models from GGUF files on this machine."""
    del version, debug, install_completion, show_completion  # their callbacks have acted
    if ctx.invoked_subcommand is None:
        print(ctx.get_help(), file=sys.stderr)
        raise typer.Exit(EXIT_USAGE)


app.command("generate", cls=Command)(generate)
app.command("chat", cls=Command)(chat)
app.command("info", cls=Command)(info)
app.command("download", cls=Command)(download)
app.command("bench", cls=Command)(bench)
app.command("doctor", cls=Command)(doctor)
app.add_typer(models_app, name="models")
