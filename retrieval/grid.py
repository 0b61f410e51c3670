"""A picture of retrievals: each query beside its nearest database images."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from utils.atomic_file import atomic_path
from utils.errors import UserError

Images = np.ndarray[Any, np.dtype[Any]]

RIGHT, WRONG, QUERY = "#2e9e5b", "#d64541", "#44546a"
SHOWN = 10  # nearest images a query
CELL, GAP, CAPTION = 0.9, 0.11, 0.32  # inches: an image, beside it, under it
FRAME = 2.5  # points


def retrieval_grid(
    query_images: Images | Sequence[Images],
    result_images: Images | Sequence[Sequence[Images]],
    relevant: np.ndarray[Any, np.dtype[np.bool_]],
    path: str | os.PathLike[str] | None = None,
    *,
    distances: np.ndarray[Any, np.dtype[Any]] | None = None,
    query_captions: Sequence[str] | None = None,
    result_captions: Sequence[Sequence[str]] | None = None,
    title: str = "Query, then its nearest database images",
) -> Figure:
    """Draw one row a query: the query, then its nearest images, green when relevant, red when not.

    Args:
        query_images: (queries, height, width, 3) or (queries, height, width), uint8 0..255 or
            floats 0..1; a list of images of different sizes will do.
        result_images: (queries, results, height, width[, 3]), the nearest first; ten are shown.
        relevant: (queries, results), whether a result is relevant.
        path: where to write the picture (png, svg or pdf); None writes none.
        distances: Hamming distances (queries, results), written under the results.
        query_captions: a line under each query, such as its class.
        result_captions: a line under each result, after its distance.
        title: a line over the picture; none when empty.

    Returns:
        The figure, which no window or global state of matplotlib holds.

    Raises:
        UserError: the numbers of images and of flags do not fit together.
    """
    flags = np.asarray(relevant, dtype=bool)
    rows = len(query_images)
    if rows == 0 or flags.ndim != 2 or len(result_images) != rows or len(flags) != rows:
        raise UserError(
            f"got {rows} query images, {len(result_images)} rows of results and flags of shape "
            f"{flags.shape}; give one row of results and of flags a query"
        )
    columns = min(SHOWN, flags.shape[1])
    head = 0.42 if title else 0.08
    beside = CELL + 3 * GAP  # of results: room for the captions of queries, which are wider
    axes = _sheet(beside + columns * (CELL + GAP), rows * (CELL + CAPTION) + head, title)
    for row in range(rows):
        bottom = (rows - row) * (CELL + CAPTION) - CELL
        caption = query_captions[row] if query_captions is not None else "query"
        _cell(axes, 1.5 * GAP, bottom, query_images[row], QUERY, caption)
        for column in range(columns):
            words = [] if distances is None else [f"d = {int(distances[row][column])}"]
            if result_captions is not None:
                words.append(result_captions[row][column])
            color = RIGHT if flags[row, column] else WRONG
            left = beside + column * (CELL + GAP)
            _cell(axes, left, bottom, result_images[row][column], color, " ".join(words))
    figure = axes.get_figure()
    if path is not None:
        with atomic_path(path) as temporary:
            figure.savefig(temporary)
    return figure


def _sheet(width: float, height: float, title: str) -> Any:
    """Axes in inches that fill a figure: one, since a hundred of them take a second to draw."""
    figure = Figure(figsize=(width, height), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height), autoscale_on=False)
    axes.set_axis_off()
    figure.suptitle(title, fontsize=10, y=1 - 0.05 / height)
    return axes


def _cell(axes: Any, left: float, bottom: float, image: Images, color: str, caption: str) -> None:
    """One framed image in the middle of its square; a small one keeps its pixels sharp."""
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    limit = 255 if np.issubdtype(pixels.dtype, np.integer) else 1
    longest = max(pixels.shape[:2])
    height, width = (CELL * side / longest for side in pixels.shape[:2])
    left, bottom = left + (CELL - width) / 2, bottom + (CELL - height) / 2
    axes.imshow(
        pixels,
        cmap="gray",
        vmin=0,
        vmax=limit,
        interpolation="nearest" if longest < 64 else "antialiased",
        aspect="auto",
        extent=(left, left + width, bottom, bottom + height),
    )
    frame = Rectangle(
        (left, bottom), width, height, fill=False, ec=color, lw=FRAME, joinstyle="miter"
    )
    axes.add_patch(frame)
    middle, below = left + width / 2, bottom - 0.05
    axes.text(
        middle, below, _shorten(caption), fontsize=8.5, color="#333333", ha="center", va="top"
    )


def _shorten(caption: str, longest: int = 16) -> str:
    return caption if len(caption) <= longest else caption[: longest - 1] + "…"
