"""All figures of a report, each drawn once, for the page and for TensorBoard."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from retrieval import plots
from retrieval.codes import Codes
from retrieval.grid import SHOWN, retrieval_grid
from retrieval.hamming import nearest
from retrieval.labels import match_labels
from retrieval.scored import Images, Scored

GRID_QUERIES = 8


@dataclass(frozen=True)
class Figures:
    """What `draw` makes; a mapping holds a figure for each set of codes, by its name.

    Attributes:
        grids: retrievals as PNG files, 150 dots an inch; empty where there are no images.
        worst: likewise of a query of each of the classes that retrieve worst.
        neighbours: of single-label data only.
    """

    rank_curve: Figure
    radius_curve: Figure
    precision_at: Figure
    recall_at: Figure
    class_size: Figure
    distances: dict[str, Figure]
    grids: dict[str, bytes]
    worst: dict[str, bytes]
    balance: dict[str, Figure]
    correlation: dict[str, Figure]
    neighbours: dict[str, Figure]


def draw(
    scored: Mapping[str, Scored],
    images: Images | None = None,
    device: torch.device | str | None = None,
) -> Figures:
    """Draw the figures of what `score_all` found; `images` and `device` as `write_report`."""
    found = {name: one.evaluation for name, one in scored.items()}
    counts = next(iter(scored.values())).codes.train_class_counts
    sizes = None if counts is None else counts.tolist()
    neighbours = {name: one.neighbours for name, one in scored.items()}
    return Figures(
        rank_curve=plots.rank_curve_figure(found),
        radius_curve=plots.radius_curve_figure(found),
        precision_at=plots.precision_at_figure(found),
        recall_at=plots.recall_at_figure(found),
        class_size=plots.class_size_figure(found, sizes),
        distances={name: plots.distance_figure(name, each) for name, each in found.items()},
        grids={}
        if images is None
        else {name: _grid(one.codes, images, device) for name, one in scored.items()},
        worst={}
        if images is None
        else {name: _worst_grid(one, images) for name, one in scored.items() if one.worst},
        balance={name: plots.balance_figure(one.bits) for name, one in scored.items()},
        correlation={name: plots.correlation_figure(one.bits) for name, one in scored.items()},
        neighbours={
            name: plots.neighbours_figure(each, _sizes(scored[name].codes))
            for name, each in neighbours.items()
            if each is not None
        },
    )


def _sizes(codes: Codes) -> list[int] | None:
    return None if codes.train_class_counts is None else codes.train_class_counts.tolist()


def class_label(codes: Codes, index: int, counts: Any = None) -> str:
    """A class's name, or number, and its training images in brackets where they are known."""
    known = codes.class_names is not None and index < len(codes.class_names)
    name = str(codes.class_names[index]) if known and codes.class_names is not None else f"{index}"
    return name if counts is None else f"{name} ({int(counts[index])})"


def _grid(codes: Codes, images: Images, device: torch.device | str | None) -> bytes:
    """PNG of random queries and their nearest database images, as `retrieval_grid` draws them."""
    generator = np.random.default_rng(0)
    count = min(GRID_QUERIES, len(codes.query_codes))
    chosen = np.sort(generator.choice(len(codes.query_codes), count, replace=False))
    indices, distances = nearest(
        codes.query_codes[chosen],
        codes.database_codes,
        SHOWN,
        code_length=codes.code_length,
        device=device,
    )
    table = indices.cpu().numpy()
    labels = codes.query_labels[chosen], codes.database_labels[table]
    if codes.query_labels.ndim == 1:
        relevant = labels[0][:, None] == labels[1]
        captions = [class_label(codes, int(label)) for label in labels[0]]
    else:
        relevant = (labels[0][:, None].astype(bool) & labels[1].astype(bool)).any(-1)
        captions = [f"query {index}" for index in chosen]
    figure = retrieval_grid(
        [images("query", int(index)) for index in chosen],
        [[images("database", int(index)) for index in row] for row in table],
        relevant,
        distances=distances.cpu().numpy(),
        query_captions=captions,
        title="",
    )
    return _png(figure)


def _worst_grid(one: Scored, images: Images) -> bytes:
    """PNG of a query of each of the worst classes and its nearest database images."""
    codes = one.codes
    table = np.stack([each.found[:SHOWN] for each in one.worst])
    found = match_labels(codes.query_labels, codes.database_labels, torch.device("cpu"))
    labels = found.database.numpy()[table]
    figure = retrieval_grid(
        [images("query", each.query) for each in one.worst],
        [[images("database", int(index)) for index in row] for row in table],
        labels == np.array([[each.label] for each in one.worst]),
        query_captions=[class_label(codes, each.label) for each in one.worst],
        result_captions=[[class_label(codes, int(label)) for label in row] for row in labels],
        title="",
    )
    return _png(figure)


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", pil_kwargs={"compress_level": 1})
    return stream.getvalue()
