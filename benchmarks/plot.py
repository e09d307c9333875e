"""Draws tokens per second by depth and by engine, from what `compare.py --json` wrote.

    pip install matplotlib
    python benchmarks/plot.py speeds.json docs/performance.svg

The bars are medians, the lines on them reach from the slowest round to the fastest; the dashes over the bars are
what the machine's own reading of memory, or its multiply-adds, would have allowed in the same seconds.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

import compare_report
import record

COLOURS = ("#1b6ca8", "#e08e2b", "#7a9e3f", "#a8476b", "#6d6d6d")


def limits(report: dict[str, Any], figure: str) -> float | None:
    """The median of what the machine would have allowed: a rate, over its share of the limit."""
    name = next(iter(report["engines"]))
    entry = report["figures"][figure]
    if name not in entry["of_limit"]:
        return None
    return float(entry["engines"][name]["median"] / entry["of_limit"][name]["median"])


def draw(axes: Any, report: dict[str, Any], kind: str, title: str, axis: str) -> None:
    """One panel: a group of bars for each length, a bar for each engine that gave a figure."""
    found = [figure for figure in report["figures"] if figure.startswith(f"{kind}-")]
    figures = sorted(found, key=lambda figure: int(figure.partition("-")[2]))
    engines = [name for name in report["engines"] if any(name in report["figures"][f]["engines"] for f in figures)]
    width = 0.8 / max(len(engines), 1)
    for index, name in enumerate(engines):
        for group, figure in enumerate(figures):
            speed = report["figures"][figure]["engines"].get(name)
            if speed is None:
                continue
            middle, low, high = speed["median"], speed["min"], speed["max"]
            axes.bar(
                group + (index - (len(engines) - 1) / 2) * width,
                middle,
                width * 0.9,
                yerr=[[middle - low], [high - middle]],
                color=COLOURS[index % len(COLOURS)],
                error_kw={"elinewidth": 0.8, "ecolor": "#333333"},
                label=name if group == 0 else None,
            )
    for group, figure in enumerate(figures):
        if (limit := limits(report, figure)) is not None:
            label = "the machine's limit" if group == 0 else None
            axes.hlines(
                limit, group - 0.42, group + 0.42, colors="#333333", linestyles="dashed", lw=1, label=label
            )
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xticks(range(len(figures)), [f"{int(figure.partition('-')[2]):,}" for figure in figures])
    axes.set_xlabel(axis)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    return parser.parse_args(argv)


def main() -> None:
    """Draws one file."""
    given = arguments()
    found = record.read(given.report)
    report = {"engines": found["versions"], "figures": compare_report.summary(found["results"])}
    # A picture that is drawn again from the same figures is the same file.
    plt.rcParams.update({"svg.hashsalt": "candle-phi", "font.size": 9, "svg.fonttype": "none"})
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    draw(left, report, "decode", "Decode", "tokens in the context")
    draw(right, report, "prefill", "Prefill", "tokens of the prompt")
    left.set_ylabel("tokens per second")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    machine = found["machine"]["processor"]
    if peaks := found["results"]["peaks"]:
        machine += f", {statistics.median(peak['stream_gb_s'] for peak in peaks):.0f} GB/s"
    model, threads, rounds = found["model"]["file"], found["settings"]["threads"], found["rounds"]
    figure.suptitle(f"{model}, {machine}, {threads} threads, medians of {rounds} rounds", fontsize=9)
    figure.savefig(
        given.picture,
        format=given.picture.suffix[1:],
        metadata={"Date": None} if given.picture.suffix == ".svg" else None,
    )


if __name__ == "__main__":
    main()
