"""`--install-completion` and `--show-completion`: the script with which a shell completes the command line."""

from typing import Annotated, Literal, TypeAlias

import typer
from typer import completion

from candle_phi.cli import console

Shell: TypeAlias = Literal["auto", "bash", "zsh", "fish", "powershell", "pwsh"]

_OPTIONS = ("--install-completion", "--show-completion")
_DETECTED = "auto"

# Tells typer what its shells are asked for and take, which it does nowhere else.
completion.get_completion_inspect_parameters()


def with_shells(args: list[str]) -> list[str]:
    """The words of a command line, with a shell behind each option that wants one: the one it is called from.

    An option whose value may be left out is nothing that typer has.

    Args:
        args: The words.

    Returns:
        The same words, and "auto" where a shell was left out.
    """
    words = list(args)
    for index, word in enumerate(args):
        if not word.startswith("-"):
            break
        if word in _OPTIONS:
            if index + 1 == len(args) or args[index + 1].startswith("-"):
                words.insert(index + 1, _DETECTED)
            break
    return words


def _install(ctx: typer.Context, param: typer.CallbackParam, shell: Shell | None) -> None:
    try:
        completion.install_callback(ctx, param, _named(shell))
    except typer.Exit:
        raise _unknown("--install-completion") from None


def _show(ctx: typer.Context, param: typer.CallbackParam, shell: Shell | None) -> None:
    try:
        completion.show_callback(ctx, param, _named(shell))
    except typer.Exit:
        raise _unknown("--show-completion") from None


def _named(shell: Shell | None) -> str | bool:
    """The shell as typer takes it: by its name, or True for the one that it finds out."""
    return bool(shell) if shell in {None, _DETECTED} else str(shell)


def _unknown(option: str) -> console.UsageProblem:
    return console.UsageProblem(f"name the shell: {option} bash, zsh, fish, powershell or pwsh")


InstallCompletion = Annotated[
    Shell | None,
    typer.Option(
        metavar="[SHELL]",
        callback=_install,
        is_eager=True,
        help="Install completion for bash, zsh, fish, powershell or pwsh.  [default: the current shell]",
    ),
]
ShowCompletion = Annotated[
    Shell | None,
    typer.Option(
        metavar="[SHELL]",
        callback=_show,
        is_eager=True,
        help="Print the script that completes in a shell, to put it where such things are kept.",
    ),
]
