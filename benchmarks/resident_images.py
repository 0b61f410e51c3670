"""Images of 32 pixels held in memory, to measure with: CIFAR-100's, or made-up ones without it."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np

from data import image_folder, synthetic
from data.source import Source
from utils.errors import UserError

FOLDER = "Cifar100"  # in the data root, as config/Cifar100_LT names it
CLASSES, SIDE = 100, 32


def create_source(data_root: str | Path, train: int, test: int) -> Source:
    """Return a source in memory: subsets 'train' and 'test', the latter also as 'val'.

    Classes take turns, so that any number of images has them as evenly as can be.

    Raises:
        UserError: CIFAR-100 is there, but has fewer images.
    """
    return _load(str(data_root), train, test)


@cache  # opened by every run of a benchmark
def _load(data_root: str, train: int, test: int) -> Source:
    found = Path(data_root).expanduser() / FOLDER
    if found.is_dir():
        name, subsets = "CIFAR-100", {"train": train, "test": test}
        source = image_folder.create_source(data_root, FOLDER)
        chosen = np.concatenate([_in_turns(source, each, n) for each, n in subsets.items()])
        with ThreadPoolExecutor() as pool:  # Pillow decodes outside the lock
            pixels = np.stack(list(pool.map(lambda index: np.asarray(source.read(index)), chosen)))
    else:
        a_class = max(2, -(-(train + test) // CLASSES))
        source = synthetic.create_source(
            num_classes=CLASSES, image_size=SIDE, images_per_class=a_class
        )
        assert source.arrays is not None
        name, chosen = "made-up images", _in_turns(source, "all", train + test)
        pixels = source.arrays[chosen]
    queries = np.arange(train, train + test)
    return Source(
        name=name,
        class_names=source.class_names,
        image_names=[f"{index:05d}" for index in range(len(chosen))],
        labels=source.labels[chosen],
        subsets={"train": np.arange(train), "test": queries, "val": queries},
        arrays=pixels,
    )


def _in_turns(source: Source, subset: str, count: int) -> np.ndarray:
    """The first images of a subset, its classes taking turns."""
    indices = source.subsets[subset]
    if len(indices) < count:
        raise UserError(f"{source.name}: {subset} has {len(indices)} images, {count} are asked for")
    groups = source.class_indices(indices)
    turns = np.concatenate([np.arange(len(group)) for group in groups])
    order = np.argsort(turns, kind="stable")
    return np.concatenate(groups)[order][:count]
