"""What `compare.py` makes of its rounds: ratios pair by pair, shares of the machine's limits, a table."""

from __future__ import annotations

import math
import platform
import statistics
from pathlib import Path
from typing import Any

import gguf

Values = dict[str, dict[str, list[float | None]]]

# Units, and how many digits; a rate is better the greater it is, everything else the less.
UNITS = {
    "prefill": ("tokens/s", 1),
    "forward": ("tokens/s", 1),
    "decode": ("tokens/s", 2),
    "busy": ("of idle", 2),
    "load_s": ("s", 3),
    "open_to_first_token_s": ("s", 3),
    "anonymous_beyond_cache_mb": ("MB", 0),
    "file_backed_mb": ("MB", 0),
}


def work(model: Path) -> dict[str, float]:
    """What the file asks of a machine: bytes that a token reads, multiply-adds of a token, and of the output."""
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


def processor() -> str:
    """The processor's name, if the system says it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


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
    model: Path,
    versions: dict[str, str],
    values: Values,
    machine: dict[str, list[dict[str, Any]]],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Everything, as JSON can hold it."""
    need, peaks = work(model), machine["peaks"]
    figures = {}
    for figure, by_engine in values.items():
        ours, *others = by_engine
        entry: dict[str, Any] = {"unit": UNITS[figure.partition("-")[0]][0], "rounds": by_engine}
        entry["engines"] = {
            name: spread(known)
            for name, found in by_engine.items()
            if (known := [value for value in found if value is not None])
        }
        entry["ratios"] = {}
        for other in others:
            pairs = zip(by_engine[ours], by_engine[other], strict=False)
            if ratios := [mine / theirs for mine, theirs in pairs if mine is not None and theirs]:
                entry["ratios"][other] = spread(ratios)
        limits = {peak["round"]: _limit(figure, peak, need) for peak in peaks if peak["figure"] == figure}
        entry["of_limit"] = {}
        for name, found in by_engine.items():
            shares = [
                value / limit
                for number, value in enumerate(found, 1)
                if value is not None and (limit := limits.get(number)) is not None
            ]
            if shares:
                entry["of_limit"][name] = spread(shares)
        figures[figure] = entry
    return {
        "model": model.name,
        "processor": processor(),
        "settings": settings,
        "work": need,
        "engines": versions,
        "figures": figures,
        **machine,
    }


def table(report: dict[str, Any]) -> str:
    """The report for people, as a Markdown table."""
    names = list(report["engines"])
    ours, others = names[0], names[1:]
    limits = any(entry["of_limit"] for entry in report["figures"].values())
    columns = ["figure", *names, *(f"{ours} / {other}" for other in others)]
    if limits:
        columns.append(f"{ours}, of the machine's limit")
    threads, rounds = (report["settings"][key] for key in ("threads", "rounds"))
    lines = [
        f"{report['model']} on {report['processor']}, {threads} threads, {rounds} rounds: median [min, max]",
        "",
        *(f"- {name}: {version}" for name, version in report["engines"].items()),
        *_machine(report["peaks"]),
        "",
        f"| {' | '.join(columns)} |",
        "|---" + "|---:" * (len(columns) - 1) + "|",
    ]
    for figure, entry in report["figures"].items():
        digits = UNITS[figure.partition("-")[0]][1]
        cells = [f"{figure}, {entry['unit']}"]
        cells += [_cell(entry["engines"].get(name), digits) for name in names]
        cells += [_cell(entry["ratios"].get(other), 2) for other in others]
        if limits:
            cells.append(_cell(entry["of_limit"].get(ours), 2))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(found: dict[str, float] | None, digits: int) -> str:
    if found is None:
        return "-"
    if math.isclose(found["min"], found["max"]):
        return f"{found['median']:,.{digits}f}"
    return f"{found['median']:,.{digits}f} [{found['min']:,.{digits}f}, {found['max']:,.{digits}f}]"


def _machine(peaks: list[dict[str, Any]]) -> list[str]:
    if not peaks:
        return []
    stream, macs = (spread([float(peak[key]) for peak in peaks]) for key in ("stream_gb_s", "int8_gmac_s"))
    return [f"- the machine: reads {_cell(stream, 1)} GB/s, 8-bit multiply-adds {_cell(macs, 0)} GMAC/s"]
