"""The form of every JSON file of results, whichever program of this folder wrote it.

    benchmark   the program: "compare", "context_memory", "heartbeat" or "interrupt"
    date        when it ended, UTC
    command     the command line
    machine     the system, the processor, its instructions and cores, the memory
    revision    the commit of the checkout, with "-dirty" if files were changed; null outside a checkout
    versions    the version of each engine that was measured, by name
    model       the file: its name, its size, and what its header says
    settings    the options that matter to the figures
    rounds      how many times each figure was measured
    others      the share of the processors that other programs took meanwhile; null where it was not watched
    results     the raw figures of every round; medians and ratios are computed from them when a table is made

`docs/` shows nothing that is not in such a file: see `figures.py`.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import candle_phi
from candle_phi._provenance import provenance

KEYS = (
    "benchmark",
    "date",
    "command",
    "machine",
    "revision",
    "versions",
    "model",
    "settings",
    "rounds",
    "others",
    "results",
)


def make(
    benchmark: str,
    model: Path,
    *,
    settings: dict[str, Any],
    rounds: int,
    results: Any,
    versions: dict[str, str] | None = None,
    others: float | None = None,
) -> dict[str, Any]:
    """Make the record of a measurement that has just ended. Without `versions`, only this package was measured."""
    info = candle_phi.inspect_model(model)
    return {
        "benchmark": benchmark,
        **provenance(),
        "revision": _revision(),
        "versions": versions or {"candle-phi": f"candle-phi {candle_phi.__version__}"},
        "model": {
            "file": model.name,
            "bytes": info.file_size_bytes,
            "name": info.name,
            "quantization": info.quantization,
        },
        "settings": settings,
        "rounds": rounds,
        "others": others,
        "results": results,
    }


def write(path: Path, record: dict[str, Any]) -> None:
    """Write a record to a file."""
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Read a record from a file.

    Raises:
        ValueError: The file lacks a key, or has one that a record does not have.
    """
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if set(record) != set(KEYS):
        different = ", ".join(sorted(set(record) ^ set(KEYS)))
        raise ValueError(f"{path.name} is not a record of results: missing or unknown keys: {different}")
    return record


def _revision() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        ran = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return ran.stdout.strip()
