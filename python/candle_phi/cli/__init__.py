"""The command line, `candle-phi`. One file for each group of commands; `app.py` puts them together."""

from candle_phi.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Runs the command line and leaves the process with its exit code."""
    app()
