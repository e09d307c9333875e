"""`--install-completion` and `--show-completion`: shell completion of the command line."""

from typing import Annotated, Literal, TypeAlias

import typer
from typer import completion

from candle_phi.cli import console

Shell: TypeAlias = Literal["auto", "bash", "zsh", "fish", "powershell", "pwsh"]

_OPTIONS = ("--install-completion", "--show-completion")
_DETECTED = "auto"

# Registers the shells in typer, which nothing else does.
completion.get_completion_inspect_parameters()


def with_shells(args: list[str]) -> list[str]:
    """Add the value "auto" after a completion option without a shell, which selects the current shell.

    typer does not support options whose value is optional.

    Args:
        args: The words of the command line.

    Returns:
        The words, with "auto" added if the shell was omitted.
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
    """Return the shell as typer takes it: its name, or True to detect it."""
    return bool(shell) if shell in {None, _DETECTED} else str(shell)


def _unknown(option: str) -> console.UsageProblem:
    return console.UsageProblem(
        f"the current shell is not known: set {option} to bash, zsh, fish, powershell or pwsh"
    )


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
        help="Print the shell completion script, so that you can install it yourself.",
    ),
]
