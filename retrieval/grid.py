"""A picture of retrievals: each query beside its nearest database images."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from utils.atomic_file import atomic_path
from utils.errors import UserError

Images = np.ndarray[Any, np.dtype[Any]]

RIGHT, WRONG, QUERY = "#2e9e5b", "#d64541", "#44546a"
CELL = 1.0  # inches
SHOWN = 10  # nearest images a query


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
    head = 0.42 if title else 0.05
    figure = Figure(figsize=((columns + 1.3) * CELL, rows * (CELL + 0.22) + head + 0.03), dpi=150)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        rows, columns + 1, width_ratios=[1.15] + [1] * columns, wspace=0.12, hspace=0.34,
        left=0.01, right=0.99, top=1 - head / figure.get_figheight(),
        bottom=0.26 / figure.get_figheight(),
    )  # fmt: skip
    figure.suptitle(title, fontsize=10, y=0.995)
    for row in range(rows):
        caption = query_captions[row] if query_captions is not None else "query"
        _cell(figure.add_subplot(grid[row, 0]), query_images[row], QUERY, caption)
        for column in range(columns):
            words = [] if distances is None else [f"d = {int(distances[row][column])}"]
            if result_captions is not None:
                words.append(result_captions[row][column])
            color = RIGHT if flags[row, column] else WRONG
            axes = figure.add_subplot(grid[row, column + 1])
            _cell(axes, result_images[row][column], color, " ".join(words))
    if path is not None:
        with atomic_path(path) as temporary:
            figure.savefig(temporary)
    return figure


def _cell(axes: Any, image: Images, color: str, caption: str) -> None:
    """One framed image; a small one keeps its pixels sharp."""
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    limit = 255 if np.issubdtype(pixels.dtype, np.integer) else 1
    sharp = max(pixels.shape[:2]) < 64
    axes.imshow(
        pixels,
        cmap="gray",
        vmin=0,
        vmax=limit,
        interpolation="nearest" if sharp else "antialiased",
        aspect="equal",
    )
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=color, linewidth=2.5)
    axes.set_xlabel(_shorten(caption), fontsize=8.5, color="#333333", labelpad=2)


def _shorten(caption: str, longest: int = 16) -> str:
    return caption if len(caption) <= longest else caption[: longest - 1] + "…"
