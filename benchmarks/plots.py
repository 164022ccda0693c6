"""Pictures of the benchmarks' CSV files: `python benchmarks/plots.py` writes them beside the files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from table import read_rows

RESULTS = Path(__file__).parent / "results"
METHODS = {"graddiff": "GradDiff", "npo": "NPO", "simnpo": "SimNPO", "dpo": "DPO", "rmu": "RMU", "default": "default"}
SCOPES = {
    ("full", "4"): ("all weights", "#1f6f78"),
    ("full", "8"): ("all weights, batch 8", "#7fb4b8"),
    ("lora", "4"): ("LoRA", "#c98a4b"),
    ("top-8", "4"): ("LoRA on the last 8 layers (RMU: on three)", "#a8476a"),
}
FEW = {"4-6": "top-8"}
"""What learns with RMU in place of the last layers."""


def plain_axes(axes: Any, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dfe2e1", linewidth=0.6)
    axes.set_axisbelow(True)


def steps() -> None:
    """How many times as fast a step is, and its share of a plain one's memory."""
    rows = [row for row in read_rows(RESULTS / "steps.csv") if row["who"] == "letheon" and row["words"] == "0"]
    figure, both = plt.subplots(1, 2, figsize=(10, 3.6))
    for axes, field, title in (
        (both[0], "times_as_fast", "Times as fast as a plain step"),
        (both[1], "share_of_memory", "Share of a plain step's memory"),
    ):
        for number, ((tuning, batch), (label, colour)) in enumerate(SCOPES.items()):
            scope = [row for row in rows if (FEW.get(row["tuning"], row["tuning"]), row["batch"]) == (tuning, batch)]
            own = {row["method"]: float(row[field]) for row in scope}
            places = [place + (number - 1.5) * 0.2 for place in range(len(METHODS))]
            axes.bar(places, [own.get(name, 0) for name in METHODS], 0.18, label=label, color=colour)
        axes.axhline(1, color="#5f6a71", linewidth=0.8, linestyle="--")
        axes.set_xticks(range(len(METHODS)), list(METHODS.values()))
        plain_axes(axes, title)
    figure.legend(*both[0].get_legend_handles_labels(), loc="lower center", ncol=4, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(RESULTS / "steps.png", dpi=120)


def growth() -> None:
    """Seconds of a step by the length of questions and by the batch, and of a run by the size of the log."""
    figure, three = plt.subplots(1, 3, figsize=(10, 3.2))
    growing = read_rows(RESULTS / "growth.csv")
    for axes, field, fixed, title in (
        (three[0], "words", ("batch", "4"), "A step by words before a question"),
        (three[1], "batch", ("words", "0"), "A step by batch"),
    ):
        for who, method, label, colour in (
            ("plain", "npo", "plain NPO", "#8c959b"),
            ("letheon", "npo", "NPO", "#c98a4b"),
            ("letheon", "default", "default", "#1f6f78"),
        ):
            own = [row for row in growing if (row["who"], row["method"]) == (who, method)]
            own = sorted((row for row in own if row[fixed[0]] == fixed[1]), key=lambda row: int(row[field]))
            seconds = [float(row["seconds"]) for row in own]
            axes.plot([int(row[field]) for row in own], seconds, "o-", label=label, color=colour)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("seconds of CPU")
        plain_axes(axes, title)
    three[0].legend(frameon=False, fontsize=8)
    log = read_rows(RESULTS / "scaling.csv")
    sizes = [int(row["normal_dialogues"]) for row in log]
    seconds, memory = ([float(row[name]) for row in log] for name in ("seconds", "peak_mb"))
    three[2].semilogx(sizes, seconds, "o-", color="#1f6f78", label="seconds, 40 steps")
    three[2].semilogx(sizes, [mb / 100 for mb in memory], "s--", color="#a8476a", label="memory, in 0.1 GB")
    three[2].set_ylim(bottom=0)
    three[2].legend(frameon=False, fontsize=8)
    plain_axes(three[2], "A run by normal dialogues")
    figure.tight_layout()
    figure.savefig(RESULTS / "growth.png", dpi=120)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    steps()
    growth()


if __name__ == "__main__":
    main()
