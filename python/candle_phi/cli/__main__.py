"""`python -m candle_phi.cli`."""

from candle_phi.cli import main

main()
