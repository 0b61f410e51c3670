"""The results as pictures: the run's report.html, its retrieval grid, and TensorBoard."""

import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.run import Run
from retrieval import plots
from retrieval.codes import unpack
from retrieval.report import write_page
from retrieval.scored import Scored
from retrieval.sections import grid_figure
from utils.atomic_file import atomic_path

PROJECTED = 1000  # database images in TensorBoard's projector
SPRITE = 32  # pixels a side


def write_results(run: Run, scored: Mapping[str, Scored]) -> None:
    """Write report.html and retrieval_grid.png into the run's folder, and the TensorBoard pages."""
    split, source = run.dataset.split, run.dataset.source
    roles = {"query": split.query, "database": split.database}

    def images(side: str, index: int) -> NDArray[Any]:
        return np.asarray(source.read(int(roles[side][index])))

    write_page(scored, run.log_dir, images)
    one = next(iter(scored.values()))
    grid = grid_figure(one.codes, images)
    with atomic_path(run.log_dir / "retrieval_grid.png") as temporary:
        grid.savefig(temporary)
    if run.writer:
        evaluations = {name: each.evaluation for name, each in scored.items()}
        sizes = split.class_counts.tolist()
        figures = {
            "retrieval/grid": grid,
            "retrieval/precision_recall": plots.rank_curve_figure(evaluations),
            "retrieval/precision_recall_by_radius": plots.radius_curve_figure(evaluations),
            "retrieval/precision_at_k": plots.precision_at_figure(evaluations),
            "retrieval/map_by_class_size": plots.class_size_figure(evaluations, sizes),
            "codes/bit_balance": plots.balance_figure(one.bits),
            "codes/bit_correlation": plots.correlation_figure(one.bits),
        }
        for name, figure in figures.items():
            run.writer.add_figure(name, figure)
        _project(run, one)


def _project(run: Run, one: Scored) -> None:
    """Show a sample of the database's codes, with their images, in the projector."""
    assert run.writer is not None
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
    pictures = [source.read(int(index)).resize((SPRITE, SPRITE)) for index in indices]
    sprites = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
    run.writer.add_embedding(
        np.asarray(unpack(codes.database_codes[sample], codes.code_length), dtype=np.float32),
        metadata=names,
        label_img=sprites.permute(0, 3, 1, 2).float() / 255,
        tag="database",
    )
