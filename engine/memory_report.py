"""How a finished run uses its memory, in a picture: `python -m engine.memory_report RUN`.

Writes memory.png into the run's folder: for training images and for queries, by the size of
their class, the attention to the own class, how spread attention is, the selector, how long the
memory's part of the meta-embedding is beside the direct feature, and the bits that it flips.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from engine.checkpoint import BEST, check_split, load_checkpoint, load_networks
from engine.config import load_config
from engine.memory_use import MEASURES, NEEDED, class_means, memory_use
from engine.model import collect_outputs
from engine.run import Run, open_run
from retrieval.metrics import FEW_BELOW
from retrieval.plots import COLORS, FAINT, INK
from utils.atomic_file import atomic_path
from utils.errors import UserError
from utils.parser import OneLineParser

PICTURE = "memory.png"
MOST_IMAGES = 10_000  # of each kind: their features are held at once
Use = dict[str, Tensor]


def open_finished(folder: str | Path, overrides: list[str] | None = None) -> Run:
    """A finished run with the weights of its best checkpoint.

    Raises:
        UserError: if the folder holds no run, or its data differ.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} holds no config.yaml; give the folder of a finished run")
    config = load_config(str(folder / "config.yaml"), overrides)
    config = replace(config, training_opt=replace(config.training_opt, log_dir=str(folder)))
    weights = load_checkpoint(folder / BEST)
    run = open_run(config, initial_weights=False)
    check_split(weights, run.dataset, folder / BEST)
    load_networks(run.model, weights, folder / BEST)
    return run


def use_of_images(run: Run, indices: NDArray[np.int64]) -> tuple[Use, Tensor]:
    """`memory_use` of images, in the order of `indices`, and their classes (n, C) bool.

    The memory is emptied for a second pass over them, and restored.
    """
    outputs = _outputs(run, indices, NEEDED)
    head = cast(Any, run.model[-1])
    memory = head.memory.clone()
    head.set_memory(torch.zeros_like(memory))
    direct_codes = _outputs(run, indices, ("codes",))["codes"]
    head.set_memory(memory)
    membership = torch.as_tensor(run.dataset.source.membership()[indices], device=run.device)
    return memory_use(outputs, direct_codes, membership), membership


def memory_figure(uses: dict[str, tuple[Use, Tensor]], class_counts: Tensor) -> Figure:
    """A panel a measure: each class's mean over its number of training images, one colour a kind.

    Args:
        uses: kind of image → its `use_of_images`.
        class_counts: (C,) training images of each class.
    """
    figure = Figure(figsize=(11, 6.2), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3).ravel()
    for axes, (name, title) in zip(panels, MEASURES.items(), strict=False):
        for color, (kind, (use, membership)) in zip(COLORS, uses.items(), strict=False):
            means = class_means(use[name], membership).cpu()
            axes.scatter(class_counts, means, s=14, color=color, alpha=0.7, label=kind)
        _style(axes, title)
    panels[0].legend(fontsize=8, frameon=False)
    panels[-1].set_axis_off()
    return figure


def describe_use(uses: dict[str, tuple[Use, Tensor]], class_counts: Tensor) -> str:
    """One line: each measure's mean over the classes, all and the few-shot ones, by kind."""
    few = class_counts < FEW_BELOW
    parts = []
    for name, title in MEASURES.items():
        shown = []
        for kind, (use, membership) in uses.items():
            means = class_means(use[name], membership).cpu()
            shown.append(f"{kind} {means.nanmean():.3f}")
            if few.any() and not means[few].isnan().all():
                shown[-1] += f" (few-shot {means[few].nanmean():.3f})"
        parts.append(f"{title}: {', '.join(shown)}")
    return "; ".join(parts)


def report_memory(folder: str | Path, overrides: list[str] | None = None) -> str:
    """Write memory.png into a run's folder and return the line that `describe_use` gives.

    Raises:
        UserError: as `open_finished`.
    """
    run = open_finished(folder, overrides)
    if not run.config.memory.centroids:
        raise UserError(f"{folder} is a run without a memory; give one of stage 2")
    split = run.dataset.split
    kinds = {"training images": split.train, "queries": split.query}
    uses = {kind: use_of_images(run, _some(indices)) for kind, indices in kinds.items()}
    counts = torch.as_tensor(split.class_counts)
    with atomic_path(run.log_dir / PICTURE) as temporary:
        memory_figure(uses, counts).savefig(temporary)
    return describe_use(uses, counts)


def _outputs(run: Run, indices: NDArray[np.int64], names: tuple[str, ...]) -> dict[str, Tensor]:
    size = run.config.training_opt.evaluation_batch_size
    parts = run.augmentation, run.precision
    return collect_outputs(run.model, run.dataset, indices, *parts, names, size)


def _some(indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most MOST_IMAGES of the images, evenly spread."""
    return indices[:: -(-len(indices) // MOST_IMAGES) or 1]


def _style(axes: Axes, title: str) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(bottom=0)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=INK, labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.set_xlabel("training images of the class", fontsize=9, color=INK)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0, or 2 after a one-line message on a user's mistake."""
    parser = OneLineParser(
        prog="python -m engine.memory_report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", help="folder of a finished run with a memory")
    parser.add_argument("--opts", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    try:
        print(report_memory(options.run, options.opts))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"picture: {Path(options.run) / PICTURE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
