"""The memory study's pictures: `python -m benchmarks.memory_study_figures`.

Draws docs/memory_gain.png and docs/memory_use.png from the records that
benchmarks/memory_study.py wrote.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.memory_study import read_rows
from engine.memory_use import MEASURES
from retrieval.plots import COLORS, FAINT, INK
from utils.atomic_file import atomic_path
from utils.errors import UserError
from utils.parser import OneLineParser

RECORD, CLASSES = "logs/records/memory_study.csv", "logs/records/memory_study_classes.csv"
TARGET = 0.01  # MAP over the direct feature that the memory is to give
SHOWN = ("published_k3", "cosine_selector_1")
KINDS = {"train": "training images", "query": "validation queries"}
Rows = Sequence[dict[str, str]]


def gain_figure(rows: Rows) -> Figure:
    """Each head's MAP less that of the direct head of the same features and seed, a dot a seed."""
    direct = {(r["features"], r["seed"]): float(r["map"]) for r in rows if r["head"] == "direct"}
    heads = [name for name in dict.fromkeys(r["head"] for r in rows) if name != "direct"]
    figure = Figure(figsize=(8, 0.9 + 0.27 * len(heads)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    sets = list(dict.fromkeys(r["features"] for r in rows))
    for number, (features, color) in enumerate(zip(sets, COLORS, strict=False)):
        pairs = [
            (float(r["map"]) - direct[features, r["seed"]], heads.index(r["head"]))
            for r in rows
            if r["features"] == features and r["head"] != "direct"
        ]
        height = 0.2 * (number - (len(sets) - 1) / 2)
        spots = [y + height for _, y in pairs]
        axes.scatter([x for x, _ in pairs], spots, s=12, color=color, alpha=0.7, label=features)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.axvline(TARGET, color=INK, linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(heads)), heads)
    axes.invert_yaxis()
    _style(axes, "MAP less the direct head's (dotted: the aim)")
    axes.legend(fontsize=8, frameon=False)
    return figure


def use_figure(rows: Rows, features: str) -> Figure:
    """For SHOWN heads, a panel a measure: each class over its number of training images."""
    figure = Figure(figsize=(14, 5.6), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(SHOWN), len(MEASURES), sharex=True)
    for line, head in zip(panels, SHOWN, strict=True):
        found = [r for r in rows if r["features"] == features and r["head"] == head]
        sizes = [int(r["images"]) for r in found]
        for axes, (measure, title) in zip(line, MEASURES.items(), strict=True):
            for color, (kind, label) in zip(COLORS, KINDS.items(), strict=False):
                means = [float(r[f"{measure}_{kind}"]) for r in found]
                axes.scatter(sizes, means, s=10, color=color, alpha=0.6, label=label)
            axes.set(xscale="log", ylim=(0, None))
            axes.xaxis.set_major_formatter("{x:g}")
            _style(axes, title)
        line[0].set_ylabel(head, fontsize=10, color=INK)
    for axes in panels[-1]:
        axes.set_xlabel("training images of the class", fontsize=9, color=INK)
    panels[0][0].legend(fontsize=8, frameon=False)
    return figure


def _style(axes: Axes, title: str) -> None:
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=INK, labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=9, color=INK, loc="left")


def main(arguments: list[str] | None = None) -> int:
    """Draw both; 0, or 2 after a one-line message on a user's mistake."""
    parser = OneLineParser(
        prog="python -m benchmarks.memory_study_figures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--record", type=Path, default=Path(RECORD))
    parser.add_argument("--classes", type=Path, default=Path(CLASSES))
    parser.add_argument("--features", default="if100_96px", help="whose classes to show")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder [docs]")
    options = parser.parse_args(arguments)
    try:
        rows, classes = read_rows(options.record), read_rows(options.classes)
        if not rows or not classes:
            raise UserError(f"{options.record} or {options.classes} holds no rows")
        with atomic_path(options.out / "memory_gain.png") as temporary:
            gain_figure(rows).savefig(temporary)
        with atomic_path(options.out / "memory_use.png") as temporary:
            use_figure(classes, options.features).savefig(temporary)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
