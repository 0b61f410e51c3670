"""Features for the memory study: `python -m benchmarks.memory_features RUN --out FILE.npz`.

What the first network of a finished run of stage 1 gives for its training images, plain and
augmented, for its validation queries and for database images drawn from the rest; with the
weights of its direct head. benchmarks/memory_study.py trains heads on them.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.samplers import evaluation_batches
from engine.memory_report import open_finished
from engine.run import Run
from utils.atomic_file import atomic_path
from utils.errors import UserError
from utils.parser import OneLineParser

HEAD = "head_"  # before the names of the head's weights
ARRAYS = (
    *("train", "train_labels", "augmented", "query", "query_labels"),
    *("database", "database_labels", "class_counts"),
)


@dataclass(frozen=True)
class Features:
    """A stage 1's features.

    train (N, d), augmented (A, N, d), query (Q, d), database (D, d) float32; labels int64;
    class_counts (C,); head: the state dict of its direct head.
    """

    name: str
    train: Tensor
    train_labels: Tensor
    augmented: Tensor
    query: Tensor
    query_labels: Tensor
    database: Tensor
    database_labels: Tensor
    class_counts: Tensor
    head: dict[str, Tensor]


def read_features(path: str | Path) -> Features:
    """Read what `write_features` wrote.

    Raises:
        UserError: if the file is missing or another kind.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: _tensor(file[name]) for name in file.files}
        parts = {name: arrays[name] for name in ARRAYS}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} is not what python -m benchmarks.memory_features writes ({error})"
        ) from error
    head = {name.removeprefix(HEAD): each for name, each in arrays.items() if HEAD in name}
    return Features(name=Path(path).stem, head=head, **parts)


def write_features(path: str | Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write ARRAYS and the head's weights, floating-point numbers as float16."""
    stored = {
        name: each.astype(np.float16) if each.dtype.kind == "f" else each
        for name, each in arrays.items()
    }
    with atomic_path(path) as temporary:
        np.savez(temporary, **cast(Any, stored))


def collect(run: Run, database_size: int, copies: int) -> dict[str, NDArray[Any]]:
    """The arrays of a run; the database is drawn with the run's seed from all but training images
    and validation queries."""
    split, seed = run.dataset.split, run.config.training_opt.seed
    rest = np.setdiff1d(split.database, np.concatenate([split.train, split.validation]))
    rng = np.random.default_rng(seed)
    database = np.sort(rng.choice(rest, min(database_size, len(rest)), replace=False))
    labels = np.asarray(run.dataset.source.labels)
    augmented = [_inputs(run, split.train, 1 + copy) for copy in range(copies)]
    head = run.model[-1].state_dict()
    return {
        "train": _inputs(run, split.train),
        "train_labels": labels[split.train],
        "augmented": np.stack(augmented),
        "query": _inputs(run, split.validation),
        "query_labels": labels[split.validation],
        "database": _inputs(run, database),
        "database_labels": labels[database],
        "class_counts": split.class_counts,
        **{f"{HEAD}{name}": value.cpu().numpy() for name, value in head.items()},
    }


@torch.inference_mode()
def _inputs(run: Run, indices: NDArray[np.int64], seed: int | None = None) -> NDArray[Any]:
    """What the head is given, of images in the order of `indices`; augmented by a seed, if any."""
    batches = evaluation_batches(indices, run.config.training_opt.evaluation_batch_size)
    parts = []
    run.model.eval()
    for images, _ in run.dataset.batches(
        batches, run.augmentation, training=seed is not None, seed=seed or 0
    ):
        with run.precision():
            parts.append(run.model[:-1](images).float().cpu().numpy())
    return np.concatenate(parts)


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(array.astype(np.float32) if array.dtype.kind == "f" else array)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0, or 2 after a one-line message on a user's mistake."""
    parser = OneLineParser(prog="python -m benchmarks.memory_features", description=__doc__)
    parser.add_argument("run", metavar="RUN", help="folder of a finished stage 1")
    parser.add_argument("--out", required=True, metavar="FILE.npz")
    parser.add_argument("--database", type=int, default=6000, help="database images [6000]")
    parser.add_argument("--copies", type=int, default=4, help="augmented copies [4]")
    parser.add_argument("--opts", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    try:
        run = open_finished(options.run, options.opts)
        write_features(options.out, collect(run, options.database, options.copies))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
