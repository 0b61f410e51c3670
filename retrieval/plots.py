"""Pictures of an evaluation, as matplotlib figures that no global state holds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from retrieval.diagnostics import BitReport, Neighbours
from retrieval.metrics import FEW_BELOW, MANY_ABOVE, Evaluation

# Okabe and Ito's palette: told apart by colour-blind readers too.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#666666")
RELEVANT, IRRELEVANT = "#009E73", "#9AA3AE"
INK, FAINT = "#2B3440", "#D9DEE5"

Named = Mapping[str, Evaluation]


def rank_curve_figure(evaluations: Named) -> Figure:
    """Precision over recall as the rank grows; means over the queries."""
    figure, axes = _figure("by rank", "recall", "precision")
    for color, (name, found) in zip(_colors(), evaluations.items(), strict=False):
        axes.plot(found.rank_recall, found.rank_precision, color=color, label=name)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    _legend(axes, evaluations)
    return figure


def radius_curve_figure(evaluations: Named) -> Figure:
    """Precision over recall as the Hamming radius grows; finding nothing counts as precision 0."""
    figure, axes = _figure("by Hamming radius", "recall", "precision")
    for color, (name, found) in zip(_colors(), evaluations.items(), strict=False):
        curve = found.radius_recall, found.radius_precision
        axes.plot(*curve, color=color, marker="o", markersize=2.5, label=name)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    _legend(axes, evaluations)
    return figure


def precision_at_figure(evaluations: Named) -> Figure:
    """Precision within the first K, over K."""
    figure, axes = _figure("precision within the first K", "K", "precision@K")
    for color, (name, found) in zip(_colors(), evaluations.items(), strict=False):
        axes.plot(found.curve_ranks, found.rank_precision, color=color, label=name)
    _logarithmic(axes)
    axes.set_ylim(0, 1.02)
    _legend(axes, evaluations)
    return figure


def recall_at_figure(evaluations: Named) -> Figure:
    """Recall within the first K, over K."""
    figure, axes = _figure("recall within the first K", "K", "recall@K")
    for color, (name, found) in zip(_colors(), evaluations.items(), strict=False):
        axes.plot(found.curve_ranks, found.rank_recall, color=color, label=name)
    _logarithmic(axes)
    axes.set_ylim(0, 1.02)
    _legend(axes, evaluations)
    return figure


def class_size_figure(evaluations: Named, counts: Sequence[int] | None) -> Figure:
    """MAP of each class over its number of training images, or by rank where that is unknown."""
    figure, axes = _figure("", "classes, the best first", "MAP@ALL of the class", wide=True)
    for color, (name, found) in zip(_colors(), evaluations.items(), strict=False):
        present = [c for c, value in enumerate(found.map_per_class) if value is not None]
        scores = np.array([found.map_per_class[c] for c in present], dtype=float)
        if counts is None:
            axes.plot(np.sort(scores)[::-1], color=color, label=name)
            continue
        sizes = np.maximum(np.asarray(counts)[present], 0.5)
        axes.scatter(sizes, scores, s=16, color=color, alpha=0.45, linewidths=0)
        axes.plot(*_trend(sizes, scores), color=color, label=name)
    axes.set_ylim(0, 1.02)
    if counts is not None:
        _mark_groups(axes, np.maximum(np.asarray(counts), 0.5))
    _legend(axes, evaluations)
    return figure


def _mark_groups(axes: Axes, sizes: Any) -> None:
    """A logarithmic axis of class sizes with the bounds of the shot groups."""
    low, high = float(sizes.min()) / 1.3, float(sizes.max()) * 1.3
    axes.set(xlim=(low, high), xlabel="training images of the class (line: running mean)")
    _logarithmic(axes)
    for bound in (FEW_BELOW, MANY_ABOVE):
        axes.axvline(bound, color=INK, linewidth=0.8, linestyle=":")
    bounds = np.clip([low, FEW_BELOW, MANY_ABOVE, high], low, high).tolist()
    for name, left, right in zip(
        ("few-shot", "medium", "many-shot"), bounds, bounds[1:], strict=False
    ):
        if left < right:
            middle = float(np.sqrt(left * right))
            axes.text(middle, 1.03, name, fontsize=8, color=INK, ha="center", va="bottom")
    axes.set_xlim(low, high)


def _trend(sizes: Any, scores: Any) -> tuple[Any, Any]:
    """Running mean over neighbouring class sizes, a seventh of the classes wide."""
    order = np.argsort(sizes, kind="stable")
    width = max(1, len(order) // 7)
    weights = np.ones(width) / width
    size, score = (np.convolve(v[order], weights, "valid") for v in (np.log(sizes), scores))
    return np.exp(size), score


def distance_figure(name: str, found: Evaluation) -> Figure:
    """How far relevant and irrelevant pairs lie from each other, each as shares."""
    figure, axes = _figure(name, "Hamming distance", "share of the pairs")
    distance = np.arange(found.code_length + 1)
    for pairs, color, label in (
        (found.irrelevant_distances, IRRELEVANT, "irrelevant pairs"),
        (found.relevant_distances, RELEVANT, "relevant pairs"),
    ):
        share = np.array(pairs) / max(1, sum(pairs))
        axes.bar(distance, share, width=1.0, color=color, alpha=0.65, label=label)
    axes.legend(frameon=False, fontsize=8)
    return figure


def balance_figure(report: BitReport) -> Figure:
    """Share of +1 of each bit."""
    figure, axes = _figure("balance", "bit (dead ones in orange)", "share of +1")
    dead = np.isin(np.arange(len(report.balance)), report.dead)
    colors = np.where(dead, COLORS[1], COLORS[0])
    axes.bar(np.arange(len(dead)), report.balance, width=0.9, color=colors)
    axes.axhline(0.5, color=INK, linewidth=0.8, linestyle=":")
    axes.set_ylim(0, 1)
    return figure


def correlation_figure(report: BitReport) -> Figure:
    """Correlation between bits."""
    figure, axes = _figure("correlation", "bit", "bit")
    image = axes.imshow(report.correlation, cmap="RdBu_r", vmin=-1, vmax=1)
    axes.grid(False)
    bar = figure.colorbar(image, cax=axes.inset_axes((1.05, 0, 0.045, 1)))
    bar.ax.tick_params(labelsize=8, length=0)
    bar.outline.set_visible(False)
    return figure


def neighbours_figure(found: Neighbours, counts: Sequence[int] | None) -> Figure:
    """Own images and the strongest rival's among the ten nearest, class by class."""
    order_word = "by own share" if counts is None else "the most training images first"
    label = f"classes, {order_word}"
    figure, axes = _figure("classes among the ten nearest", label, "share", wide=True)
    asked = np.flatnonzero(found.sampled)
    key = -found.own[asked] if counts is None else -np.asarray(counts)[asked].astype(float)
    order = asked[np.argsort(key, kind="stable")]
    place = np.arange(len(order))
    axes.bar(place, found.own[order], width=0.9, color=RELEVANT, alpha=0.75, label="own images")
    rival = found.rival_share[order]
    axes.plot(place, rival, "o", markersize=3, color=COLORS[1], label="strongest rival's")
    axes.set(ylim=(0, 1.14), yticks=np.linspace(0, 1, 6), xlim=(-0.7, len(order) - 0.3))
    axes.legend(frameon=False, fontsize=8, loc="upper right", ncols=2)
    return figure


def pixels(figure: Figure) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The drawn figure, (height, width, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _figure(title: str, xlabel: str, ylabel: str, wide: bool = False) -> tuple[Figure, Axes]:
    """An empty figure in the common style and its axes."""
    width, height = 7.2 if wide else 4.8, 3.4
    figure = Figure(figsize=(width, height), dpi=110)
    FigureCanvasAgg(figure)
    # Margins in inches, fixed: finding them takes matplotlib as long as drawing does.
    left, right, bottom, top = 0.62, 0.14, 0.46, 0.3
    box = left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height
    axes = figure.add_axes(box)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=INK, labelsize=8, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.set_xlabel(xlabel, fontsize=9, color=INK)
    axes.set_ylabel(ylabel, fontsize=9, color=INK)
    return figure, axes


class _PlainNumbers(LogFormatter):
    """Numbers as 100 where matplotlib writes formulas, for which it loads a parser."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:,g}" if super().__call__(x, pos) else ""


def _logarithmic(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(_PlainNumbers())
    axes.xaxis.set_minor_formatter(_PlainNumbers())


def _colors() -> list[str]:
    return list(COLORS) * 8


def _legend(axes: Axes, evaluations: Named) -> None:
    if len(evaluations) > 1:
        axes.legend(frameon=False, fontsize=8)
