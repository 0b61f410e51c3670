"""The data of a run: source, split and pixels, checked before any training."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.augment import Augmentation
from data.images import Images, open_images
from data.leakage import check_leakage
from data.manifest import manifest, read_split
from data.open_classes import hold_out_classes
from data.protocol import load_protocol
from data.source import Source
from data.split import Split, make_split
from data.train_classes import keep_train_classes
from engine.config import RunConfig
from engine.options import TrainingOptions
from engine.plain_values import shown
from utils.cores import available_cores
from utils.def_file import call, load_function
from utils.errors import UserError

DATA_ROOT_VARIABLE = "LTH_DATA_ROOT"
MAX_AUTO_WORKERS = 16
logger = logging.getLogger("long_tail_hashing")


@dataclass(frozen=True)
class Dataset:
    """Everything that the engine knows about images."""

    source: Source
    split: Split
    images: Images
    manifest: dict[str, Any]
    labels: Tensor  # (n,) int64 or (n, C) uint8, on the device
    device: torch.device
    num_workers: int

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.source.class_names)

    @property
    def digest(self) -> str:
        """Names the split: equal digests mean equal images, labels and roles."""
        return self.manifest["digest"]

    def batches(
        self,
        index_batches: Sequence[NDArray[np.int64]],
        augmentation: Augmentation,
        *,
        training: bool = False,
        seed: int = 0,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised images (B, 3, S, S), or features (B, d), and labels of each batch."""
        batches = self.images.batches(
            index_batches,
            augmentation,
            training=training,
            seed=seed,
            device=self.device,
            num_workers=self.num_workers,
        )
        for images, indices in batches:
            if self.device.type == "cpu" and not training and images.ndim == 4:
                # So a CPU convolves nearly twice as fast.
                images = images.contiguous(memory_format=torch.channels_last)
            yield images, self.labels[indices]


def open_source(config: RunConfig) -> Source:
    """The config's images and labels, open-set classes held out.

    Raises:
        UserError: if the data is missing or is not what the config says.
    """
    options, data = config.training_opt, config.data
    create = load_function(data.def_file, "create_source", "data")
    root = options.data_root or os.environ.get(DATA_ROOT_VARIABLE, "data")
    source = call(create, data.params, {"data_root": root}, "data")
    if not isinstance(source, Source):
        raise UserError(f"data: {data.def_file} makes {shown(source)}, expected a data.Source")
    if data.open_classes:
        source = hold_out_classes(source, data.open_classes, options.seed)
    if options.num_classes not in (None, len(source.class_names)):
        raise UserError(
            f"training_opt.num_classes is {options.num_classes}, but {source.name} has "
            f"{len(source.class_names)} known classes; correct it or leave it None"
        )
    return source


def open_dataset(config: RunConfig, device: torch.device) -> Dataset:
    """Open the source, draw or read its split, and check that no query leaks.

    Raises:
        UserError: for any mistake in the data, before anything is written.
    """
    options, data = config.training_opt, config.data
    source = open_source(config)
    images = open_images(source, data.cache_size, data.decode)
    split = _open_split(config, source, images)
    check_leakage(images, source, split, data.on_leak)
    if len(split.train) < 2:
        raise UserError(f"{source.name} has {len(split.train)} training images, expected 2 or more")
    return Dataset(
        source=source,
        split=split,
        images=images,
        manifest=manifest(source, split),
        labels=torch.as_tensor(source.labels, device=device),
        device=device,
        num_workers=choose_workers(options),
    )


def _open_split(config: RunConfig, source: Source, images: Images) -> Split:
    options, data = config.training_opt, config.data
    if data.split_file:
        if data.protocol:
            raise UserError(
                f"data.split_file {data.split_file} holds a whole split;"
                f" leave data.protocol {data.protocol} None beside it"
            )
        split = read_split(Path(data.split_file), source)
    else:
        split = make_split(
            source,
            protocol=load_protocol(data.protocol) if data.protocol else None,
            imbalance_factor=options.imbalance_factor,
            n_max=data.n_max,
            mu=data.mu,
            seed=options.seed,
            queries_per_class=data.queries_per_class,
            validation_per_class=data.validation_per_class,
            digests=images.digests,
        )
    if data.train_classes is None:
        return split
    return keep_train_classes(source, split, data.train_classes)


def choose_workers(options: TrainingOptions) -> int:
    """Processes that read image files: by default one a core, as far as that helps."""
    if options.num_workers == "auto":
        return min(MAX_AUTO_WORKERS, available_cores())
    return options.num_workers


def describe(dataset: Dataset) -> str:
    """One line for the log: counts of every role, and the split's name."""
    split = dataset.split
    return (
        f"{dataset.source.name}: {split.protocol}; train {len(split.train)}, "
        f"validation {len(split.validation)}, query {len(split.query)}, "
        f"database {len(split.database)}, open {len(split.open_query)}; "
        f"{dataset.num_classes} classes of {split.class_counts.min()} to "
        f"{split.class_counts.max()} images; split {dataset.digest[:12]}"
    )
