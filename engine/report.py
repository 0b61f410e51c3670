"""The results as pictures: the run's report.html, its retrieval grid, and TensorBoard."""

import io
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from data.source import Source
from engine.run import Run
from retrieval import plots
from retrieval.codes import unpack
from retrieval.figures import Figures, draw
from retrieval.report import write_page
from retrieval.scored import Scored
from utils.atomic_file import atomic_path

PROJECTED = 1000  # database images in TensorBoard's projector
SPRITE = 32  # pixels a side


def write_results(run: Run, scored: Mapping[str, Scored]) -> None:
    """Write report.html and retrieval_grid.png into the run's folder, and the TensorBoard pages.

    A source of features has no pictures, and so no grid.
    """
    split, source = run.dataset.split, run.dataset.source
    roles = {"query": split.query, "database": split.database}

    def images(side: str, index: int) -> NDArray[Any]:
        return np.asarray(source.read(int(roles[side][index])))

    figures = draw(scored, images if source.features is None else None, run.device)
    write_page(scored, run.log_dir, figures)
    name = next(iter(scored))
    if name in figures.grids:
        with atomic_path(run.log_dir / "retrieval_grid.png") as temporary:
            temporary.write_bytes(figures.grids[name])
    if run.writer:
        _add_figures(run.writer, figures, name)
        _project(run, run.writer, scored[name])


def _add_figures(writer: SummaryWriter, figures: Figures, name: str) -> None:
    if name in figures.grids:
        grid = np.asarray(Image.open(io.BytesIO(figures.grids[name])).convert("RGB"))
        writer.add_image("retrieval/grid", grid, dataformats="HWC")
    for tag, figure in {
        "retrieval/precision_recall": figures.rank_curve,
        "retrieval/precision_recall_by_radius": figures.radius_curve,
        "retrieval/precision_at_k": figures.precision_at,
        "retrieval/map_by_class_size": figures.class_size,
        "codes/bit_balance": figures.balance[name],
        "codes/bit_correlation": figures.correlation[name],
    }.items():
        writer.add_image(tag, plots.pixels(figure), dataformats="HWC")


def _project(run: Run, writer: SummaryWriter, one: Scored) -> None:
    """Show a sample of the database's codes, with their images, in the projector."""
    for old in run.log_dir.glob("0*/database"):  # the writer appends to what an earlier test left
        shutil.rmtree(old)
    (run.log_dir / "projector_config.pbtxt").unlink(missing_ok=True)
    source, codes = run.dataset.source, one.codes
    count = min(PROJECTED, len(codes.database_codes))
    rng = np.random.default_rng(run.config.training_opt.seed)
    sample = np.sort(rng.choice(len(codes.database_codes), count, replace=False))
    indices = run.dataset.split.database[sample]
    membership = source.membership()[indices]
    names = [" + ".join(np.array(source.class_names)[row]) for row in membership]
    writer.add_embedding(
        np.asarray(unpack(codes.database_codes[sample], codes.code_length), dtype=np.float32),
        metadata=names,
        label_img=_sprites(source, indices) if source.features is None else None,
        tag="database",
    )


def _sprites(source: Source, indices: NDArray[np.int64]) -> torch.Tensor:
    """Small pictures (n, 3, SPRITE, SPRITE) in [0, 1]."""
    pictures = [source.read(int(index)).resize((SPRITE, SPRITE)) for index in indices]
    pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
    return pixels.permute(0, 3, 1, 2).float() / 255
