"""The command line, `candle-phi`. Each command group has a file; `app.py` combines them."""

from candle_phi.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line and exit with its exit code."""
    app()
