"""What `compare.py` computes from its rounds: ratios pair by pair, shares of the machine's limits, a table."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

import gguf

if TYPE_CHECKING:
    from pathlib import Path

Values = dict[str, dict[str, list[float | None]]]

DISTURBED = 0.05  # the share of the processors that other programs may take

# Units, and how many digits. For a rate more is better, for everything else less.
UNITS = {
    "prefill": ("tokens/s", 1),
    "forward": ("tokens/s", 1),
    "decode": ("tokens/s", 2),
    "busy": ("share of idle speed", 2),
    "load_s": ("s", 3),
    "open_to_first_token_s": ("s", 3),
    "anonymous_beyond_cache_mb": ("MB", 0),
    "file_backed_mb": ("MB", 0),
}


def work(model: Path) -> dict[str, float]:
    """What the file asks of a machine: bytes read for a token, multiply-adds of a token, and of the output."""
    reader = gguf.GGUFReader(model)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    output = "output.weight" if "output.weight" in tensors else "token_embd.weight"
    layers = [tensor for name, tensor in tensors.items() if name.startswith("blk.") and len(tensor.shape) == 2]

    def number(key: str) -> int:
        return int(reader.fields[f"{architecture}.{key}"].contents())

    architecture = str(reader.fields["general.architecture"].contents())
    heads, kv_heads = number("attention.head_count"), number("attention.head_count_kv")
    head_dim = number("embedding_length") // heads
    return {
        "read_bytes": float(sum(int(tensor.n_bytes) for tensor in [*layers, tensors[output]])),
        "macs": float(sum(int(tensor.n_elements) for tensor in layers)),
        "output_macs": float(tensors[output].n_elements),
        "cache_bytes_per_token": 2.0 * 2 * number("block_count") * kv_heads * head_dim,
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _limit(figure: str, peak: dict[str, Any], need: dict[str, float]) -> float | None:
    """The tokens a second that the machine's peak would allow."""
    kind, _, number = figure.partition("-")
    if kind == "decode":
        cached = int(number) * need["cache_bytes_per_token"]
        return float(peak["stream_gb_s"]) * 1e9 / (need["read_bytes"] + cached)
    if kind in {"prefill", "forward"}:
        macs = need["macs"] + need["output_macs"] / int(number)
        return float(peak["int8_gmac_s"]) * 1e9 / macs
    return None


def make(
    need: dict[str, float], values: Values, peaks: list[dict[str, Any]], others: list[dict[str, Any]]
) -> dict[str, Any]:
    """The raw results of a comparison, as `record.py` keeps them.

    Args:
        need: What `work` says of the model.
        values: Values by figure and engine, one for each round, None where an engine cannot give it.
        peaks: What the machine could do, by round and figure.
        others: The share of the processors that other programs took, by round and figure.
    """
    return {"work": need, "figures": values, "peaks": peaks, "others": others}


def summary(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Medians, ratios and shares of the machine's limit, by figure.

    Returns:
        For each figure ``unit``, ``digits``, and by engine ``engines`` (its values), ``ratios`` (the first engine
        against this one, taken within each round) and ``of_limit``, each a `spread`.
    """
    found = {}
    for figure, by_engine in results["figures"].items():
        ours, *others = by_engine
        unit, digits = UNITS[figure.partition("-")[0]]
        entry: dict[str, Any] = {"unit": unit, "digits": digits, "ratios": {}, "of_limit": {}}
        entry["engines"] = {
            name: spread(known)
            for name, values in by_engine.items()
            if (known := [value for value in values if value is not None])
        }
        for other in others:
            pairs = zip(by_engine[ours], by_engine[other], strict=False)
            if ratios := [mine / theirs for mine, theirs in pairs if mine is not None and theirs]:
                entry["ratios"][other] = spread(ratios)
        limits = {
            peak["round"]: _limit(figure, peak, results["work"])
            for peak in results["peaks"]
            if peak["figure"] == figure
        }
        for name, values in by_engine.items():
            shares = [
                value / limit
                for number, value in enumerate(values, 1)
                if value is not None and (limit := limits.get(number)) is not None
            ]
            if shares:
                entry["of_limit"][name] = spread(shares)
        found[figure] = entry
    return found


def table(record: dict[str, Any]) -> str:
    """A record of `compare.py` for the terminal, as a Markdown table."""
    figures = summary(record["results"])
    names = list(record["versions"])
    ours, others = names[0], names[1:]
    limits = any(entry["of_limit"] for entry in figures.values())
    columns = ["figure", *names, *(f"{ours} / {other}" for other in others)]
    if limits:
        columns.append(f"{ours}, of the machine's limit")
    model, processor = record["model"]["file"], record["machine"]["processor"]
    threads, rounds = record["settings"]["threads"], record["rounds"]
    lines = [
        f"{model} on {processor}, {threads} threads, {rounds} rounds: median [min, max]",
        "",
        *(f"- {name}: {version}" for name, version in record["versions"].items()),
        *_machine(record["results"]["peaks"]),
        "",
        f"| {' | '.join(columns)} |",
        "|---" + "|---:" * (len(columns) - 1) + "|",
    ]
    for figure, entry in figures.items():
        row = [f"{figure}, {entry['unit']}", *cells(entry, names, limits=limits)]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def cells(entry: dict[str, Any], names: list[str], *, limits: bool) -> list[str]:
    """A row of a table without its first cell: each engine, each ratio, and the share of the machine's limit."""
    found = [cell(entry["engines"].get(name), entry["digits"]) for name in names]
    found += [cell(entry["ratios"].get(other), 2) for other in names[1:]]
    return [*found, cell(entry["of_limit"].get(names[0]), 2)] if limits else found


def cell(found: dict[str, float] | None, digits: int) -> str:
    """A spread as "median [min, max]"; the median alone where there is only one value."""
    if found is None:
        return "-"
    if math.isclose(found["min"], found["max"]):
        return f"{found['median']:,.{digits}f}"
    return f"{found['median']:,.{digits}f} [{found['min']:,.{digits}f}, {found['max']:,.{digits}f}]"


def _machine(peaks: list[dict[str, Any]]) -> list[str]:
    if not peaks:
        return []
    stream, macs = (spread([float(peak[key]) for peak in peaks]) for key in ("stream_gb_s", "int8_gmac_s"))
    return [f"- the machine: reads {cell(stream, 1)} GB/s, 8-bit multiply-adds {cell(macs, 0)} GMAC/s"]
