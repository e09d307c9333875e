"""`python -m candle_phi` is the command `candle-phi`."""

from candle_phi.cli.app import app

if __name__ == "__main__":
    app()
