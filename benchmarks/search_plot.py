"""Draw recall against time: `python -m benchmarks.search_plot [RECORD] [-o PICTURE]`.

Takes the newest rows of `benchmarks.search` for the largest number of items.
"""

import csv
import sys
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from utils.atomic_file import atomic_path
from utils.errors import UserError
from utils.parser import OneLineParser

SIDES = {"search_single": "one query at a time", "search_batch": "1,000 queries at once"}
CURVES = {
    "ivf": ("IVF, lists probed", "#4472c4", "o"),
    "hnsw": ("HNSW, candidates kept", "#2e9e5b", "s"),
    "mih": ("multi-index hashing, bits flipped", "#b25fc4", "^"),
}
SCANS = {
    "scan": ("this project's scan", "#d64541"),
    "faiss_flat": ("FAISS's flat scan", "#44546a"),
    "lance": ("LanceDB's flat scan", "#e8a33d"),
}


def main(arguments: list[str] | None = None) -> int:
    """Draw; the exit status is 2 when there is nothing to draw."""
    parser = OneLineParser(prog="python -m benchmarks.search_plot", description=__doc__)
    parser.add_argument("record", nargs="?", default="logs/records/search.csv")
    parser.add_argument("-o", "--output", default="docs/search_recall.png")
    options = parser.parse_args(arguments)
    try:
        draw(read_rows(Path(options.record)), Path(options.output))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def read_rows(record: Path) -> list[dict[str, str]]:
    """The rows of searches of the largest index.

    Raises:
        UserError: there are none.
    """
    rows = []
    if record.exists():
        with record.open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream) if row["measure"] in SIDES]
    if not rows:
        raise UserError(f"{record}: no searches; python -m benchmarks.search --record records them")
    largest = max(int(row["items"]) for row in rows)
    return [row for row in rows if int(row["items"]) == largest]


def draw(rows: list[dict[str, str]], path: Path) -> None:
    """One row of panels a kind of codes, one column a way of asking."""
    kinds = [kind for kind in ("clustered", "uniform") if any(r["codes"] == kind for r in rows)]
    figure = Figure(figsize=(11, 0.9 + 4.1 * len(kinds)), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(kinds), 2, sharex=True, sharey="row", squeeze=False)
    for line, codes in enumerate(kinds):
        for panel, (side, title) in zip(panels[line], SIDES.items(), strict=True):
            mine = [row for row in rows if row["codes"] == codes and row["measure"] == side]
            draw_panel(panel, mine)
            panel.set_title(f"{codes} codes, {title}", fontsize=10)
        panels[line][0].set_ylabel("recall@10 (ties count)")
    for panel in panels[-1]:
        panel.set_xlabel("ms a query")
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    items, threads = int(rows[-1]["items"]), rows[-1]["threads"]
    figure.suptitle(f"{items:,} codes of 64 bits, {threads} cores, k = 10", fontsize=11)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


def draw_panel(panel: Any, rows: list[dict[str, str]]) -> None:
    """Curves of the structures, and lines where the scans are."""
    for method, (name, color, marker) in CURVES.items():
        newest = {row["effort"]: row for row in rows if row["method"] == method}
        points = [
            (float(row["value"]), float(row["recall_at_10"]), effort)
            for effort, row in newest.items()
        ]
        if points:
            times, recalls, efforts = zip(*points, strict=True)
            panel.plot(times, recalls, color=color, marker=marker, ms=4, lw=1.4, label=name)
            for time, recall, effort in points[:: max(1, len(efforts) - 1)]:
                panel.annotate(effort, (time, recall), xytext=(4, -9), fontsize=7,
                               textcoords="offset points", color=color)  # fmt: skip
    for method, (name, color) in SCANS.items():
        taken = [float(row["value"]) for row in rows if row["method"] == method]
        if taken:
            panel.axvline(taken[-1], color=color, lw=1.6, ls="--", label=f"{name} (exact)")
    panel.set_xscale("log")
    panel.grid(alpha=0.25)


if __name__ == "__main__":
    sys.exit(main())
