"""CIFAR-10 and CIFAR-100 as torchvision stores them (Krizhevsky, 2009)."""

import os
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.utils import check_integrity

from data.faults import shown
from data.source import Source, find_root, join_subsets
from utils.errors import UserError

_DATASETS = {"CIFAR10": CIFAR10, "CIFAR100": CIFAR100}


def create_source(
    data_root: str | Path | None,
    name: str = "CIFAR100",
    download: bool = False,
    join: bool = False,
) -> Source:
    """Return CIFAR in memory: subsets 'train' (50,000) and 'test' (10,000), 32×32 pixels.

    Reads `data_root`/cifar-10-batches-py or `data_root`/cifar-100-python.

    name: 'CIFAR10' or 'CIFAR100'.
    download: fetch the files when they are absent.
    join: join both subsets into 'all', to draw queries from.

    Raises:
        UserError: an unknown name, or the files are absent or broken and are not downloaded.
    """
    if name not in _DATASETS:
        raise UserError(f"name is {name!r}; expected one of {', '.join(_DATASETS)}")
    dataset = _DATASETS[name]
    root = find_root(data_root, "", f"the folder {dataset.base_folder} in it")
    try:
        parts = [dataset(root, train=train, download=download) for train in (True, False)]
    except Exception as error:  # of a foreign file the unpickler raises errors of every kind
        reason = _missing(dataset, root / dataset.base_folder) or " ".join(str(error).split())
        remedy = "check the network" if download else "put it there or set download: True"
        raise UserError(
            f"{name} is not in {shown(root / dataset.base_folder)} ({reason}); {remedy}"
        ) from error
    train, test = parts
    sizes = len(train.data), len(test.data)
    source = Source(
        name=name,
        class_names=list(train.classes),
        image_names=[f"train/{i:05d}" for i in range(sizes[0])]
        + [f"test/{i:05d}" for i in range(sizes[1])],
        labels=np.array(train.targets + test.targets, dtype=np.int64),
        subsets={"train": np.arange(sizes[0]), "test": np.arange(sizes[0], sum(sizes))},
        arrays=np.concatenate([train.data, test.data]),
    )
    return join_subsets(source) if join else source


def _missing(dataset: type[CIFAR10], folder: Path) -> str:
    """Return which files are absent or not as published, nothing if all are there."""
    published = [*dataset.train_list, *dataset.test_list]
    published.append([dataset.meta["filename"], dataset.meta["md5"]])
    return ", ".join(
        f"{file} is {'damaged' if os.path.isfile(folder / file) else 'absent'}"  # noqa: PTH113
        for file, digest in published
        if not check_integrity(folder / file, digest)
    )
