"""`candle-phi bench`: the speed of a model on this machine, and its memory."""

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.table import Table

from candle_phi._provenance import provenance
from candle_phi.bench import BenchReport, Memory, Spread
from candle_phi.bench import bench as measure
from candle_phi.cli import console, options, source

if TYPE_CHECKING:
    from candle_phi.config import SessionOptions


def bench(
    model: options.Model = None,
    *,
    demo: options.Demo = False,
    prefill: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Prompt lengths for measuring prefill.  [default: those of 64,128,512 that fit]",
        ),
    ] = None,
    depth: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Tokens in the context before the generated ones.  [default: those of 0,1000,4000 that fit]",
        ),
    ] = None,
    decode_tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate at each depth.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="How many times to repeat each measurement.")] = 5,
    n_threads: options.Threads = None,
    n_ctx: Annotated[
        int | None,
        options.of_table("n_ctx", unset="the length that the measurements need"),
    ] = None,
    kv_dtype: options.KvCache = None,
    executor: options.WhatComputes = None,
    isa: options.InstructionSet = None,
    sliding_window: options.SlidingWindow = None,
    device: options.Device = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Measure a model's speed and memory."""
    del debug
    path = source.file_of(model, demo=demo, may_fetch=True)
    given = {
        "n_threads": n_threads,
        "n_ctx": n_ctx,
        "kv_dtype": kv_dtype,
        "executor": executor,
        "isa": isa,
        "sliding_window": sliding_window,
        "device": device,
    }
    chosen = cast("SessionOptions", {key: value for key, value in given.items() if value is not None})
    prefills, depths = _numbers("prefill", prefill), _numbers("depth", depth)
    with contextlib.ExitStack() as stack:
        progress = None
        if sys.stderr.isatty():
            status = stack.enter_context(console.stderr_console().status("loading"))
            progress = status.update
        report = measure(
            path,
            prefill=prefills,
            depth=depths,
            decode_tokens=decode_tokens,
            rounds=rounds,
            progress=progress,
            **chosen,
        )
    if as_json:
        print(json.dumps({**report.as_dict(), **provenance()}, indent=2))
        return
    _print(report)


def _numbers(option: str, text: str | None) -> list[int] | None:
    """Parse a list of integers separated by commas."""
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise console.UsageProblem(f"--{option} must be integers separated by commas, got {text!r}") from None


def _print(report: BenchReport) -> None:
    about = Table(box=None, show_header=False, pad_edge=False)
    about.add_column()
    about.add_column(overflow="fold")
    size = console.human_bytes(report.file_size_bytes)
    name = console.visible_line(report.name or report.file)
    about.add_row("model", f"{name}, {report.quantization}, {size}")
    threads = f"{report.n_threads} thread{'s' if report.n_threads != 1 else ''}"
    about.add_row("computed by", f"{report.executor} on {report.device}, {report.isa}, {threads}")
    about.add_row("context", f"{report.n_ctx} tokens in {report.kv_dtype}")
    console.print_rich(about)
    print()
    table = Table(box=None, pad_edge=False)
    table.add_column(f"median of {len(report.load_s.rounds)}")
    for column in ("", "min", "max"):
        table.add_column(column, justify="right")
    for name, spread, unit in _figures(report):
        table.add_row(name, *(f"{value:.{_digits(unit)}f} {unit}" for value in _three(spread)))
    console.print_rich(table)
    if report.left_out:
        print()
        print(_left_out(report))
    if report.memory is None:
        return
    print()
    memory = Table(box=None, pad_edge=False)
    memory.add_column("memory")
    for column in ("resident", "anonymous", "file-backed"):
        memory.add_column(column, justify="right")
    use = report.memory
    answer = f"after {use.prompt_tokens} + {use.answer_tokens} tokens"
    for name, state in (("at the start", use.at_start), ("loaded", use.after_load), (answer, use.after_answer)):
        memory.add_row(name, *map(console.human_bytes, _sizes(state)))
    console.print_rich(memory)
    grown = console.human_bytes(max(0, use.anonymous_beyond_cache_bytes))
    cache = console.human_bytes(use.kv_cache_bytes)
    print(f"{grown} anonymous memory in addition to the start and the {cache} of keys and values")


def _figures(report: BenchReport) -> list[tuple[str, Spread, str]]:
    return [
        ("load", report.load_s, "s"),
        ("open to first token", report.open_to_first_token_s, "s"),
        *((f"prefill {speed.tokens}", speed.tokens_per_second, "tokens/s") for speed in report.prefill),
        *((f"decode at depth {speed.depth}", speed.tokens_per_second, "tokens/s") for speed in report.decode),
    ]


def _left_out(report: BenchReport) -> str:
    names = {"prefill": "prefill {}", "decode": "decode at depth {}"}
    left_out = (
        f"{names[left.measure].format(left.tokens)} (needs {left.needed_tokens} tokens)"
        for left in report.left_out
    )
    return f"skipped because the context is too short: {', '.join(left_out)}"


def _digits(unit: str) -> int:
    return 3 if unit == "s" else 1


def _three(spread: Spread) -> tuple[float, float, float]:
    return spread.median, spread.min, spread.max


def _sizes(memory: Memory) -> tuple[Any, ...]:
    return memory.resident_bytes, memory.anonymous_bytes, memory.file_backed_bytes
