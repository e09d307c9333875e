"""`candle-phi doctor`: a report on this machine, with a test that the package works on it."""

import json

import typer
from rich.table import Table

from candle_phi.cli import console, options
from candle_phi.doctor import Diagnosis, diagnose


def doctor(*, as_json: options.Json = False, debug: options.Debug = False) -> None:
    """Describe this machine, and test that the package works on it."""
    del debug
    found = diagnose()
    if as_json:
        print(json.dumps(found.as_dict(), indent=2))
    else:
        _print(found)
    if found.problems:
        raise typer.Exit(1)


def _print(found: Diagnosis) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("candle-phi", f"{found.version}, Python {found.python}")
    table.add_row("system", found.system)
    threads = f"{found.n_threads} thread{'s' if found.n_threads != 1 else ''}"
    table.add_row("processor", f"{found.isa}, {threads}")
    for device in found.devices:
        table.add_row(device.name, "yes" if device.available else f"no: {device.reason}")
    table.add_row("auto", f"{found.device}: {found.device_reason}")
    files = f"{found.cached_models} file{'s' if found.cached_models != 1 else ''}"
    table.add_row("cache", f"{files}, {console.human_bytes(found.cached_bytes)}")
    for name, value in found.environment.items():
        table.add_row(name, console.visible_line(value))
    who = "the kernels" if found.device == "cpu" else f"the kernels, {found.device}"
    agrees = f"{who} and Candle agree" if found.agrees else "FAILED"
    table.add_row("self-test", f"{agrees}; {found.tokens_per_second:.0f} tokens/s with the embedded toy model")
    console.print_rich(table)
    for problem in found.problems:
        console.error(problem)
