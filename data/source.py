"""What a dataset is: named images, their labels, and the subsets that its publisher made."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.faults import shown
from data.image_file import check_image, read_image
from utils.errors import UserError

__all__ = ["Source", "find_root", "join_subsets", "read_image"]


@dataclass(frozen=True)
class Source:
    """Images by index, with labels and the publisher's subsets.

    name: the dataset's name as figures show it.
    class_names: C names; their order is the class numbering.
    image_names: n unique, stable names, '/'-separated, relative to `root` where there is one.
    labels: (n,) int64 class indices, or (n, C) uint8 multi-hot rows. Images of unknown classes
        (subset 'open') have label -1, or a row of zeros.
    subsets: subset name -> sorted int64 image indices. Either 'all', or 'train' and perhaps
        'test', or 'train', 'query' and 'database'; 'val' and 'open' may join any of these.
    One of these says what an image is, the others are None:
    root: the folder of the image files.
    arrays: (n, H, W, 3) uint8 pixels held in memory.
    features: (n, d) float32, what a network or descriptor made of images that are not here.
    provenance: what made the features.
    places: n texts, the file and line that list each image, for messages; None where no file does.
    """

    name: str
    class_names: list[str]
    image_names: list[str]
    labels: np.ndarray
    subsets: dict[str, np.ndarray]
    root: Path | None = None
    arrays: np.ndarray | None = None
    features: np.ndarray | None = None
    provenance: dict[str, Any] | None = None
    places: list[str] | None = None

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.image_names):
            raise ValueError(f"{len(self.labels)} labels for {len(self.image_names)} images")
        if len(set(self.image_names)) != len(self.image_names):
            raise ValueError("image names must be unique")
        if self.places is not None and len(self.places) != len(self.image_names):
            raise ValueError(f"{len(self.places)} places for {len(self.image_names)} images")
        if sum(each is not None for each in (self.root, self.arrays, self.features)) != 1:
            raise ValueError("a source has a root or arrays or features, and one of them only")
        if self.features is not None and len(self.features) != len(self.image_names):
            raise ValueError(f"{len(self.features)} features for {len(self.image_names)} images")

    def __len__(self) -> int:
        return len(self.image_names)

    @property
    def num_classes(self) -> int:
        """C, the number of known classes."""
        return len(self.class_names)

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels."""
        return self.labels.ndim == 2

    def membership(self) -> np.ndarray:
        """Return (n, C) bool: which image has which label; open images have none."""
        if self.multi_label:
            return self.labels.astype(bool)
        return self.labels[:, None] == np.arange(self.num_classes)

    def class_indices(self, indices: np.ndarray) -> list[np.ndarray]:
        """Return, for each of the C classes, those of `indices` that have its label, in order."""
        classes, positions = np.nonzero(self.membership()[indices].T)
        ends = np.cumsum(np.bincount(classes, minlength=self.num_classes))
        return np.split(np.asarray(indices)[positions], ends[:-1])

    def class_counts(self, indices: np.ndarray) -> np.ndarray:
        """Return (C,) int64: how many of `indices` have each label."""
        return self.membership()[indices].sum(0, dtype=np.int64)

    def path(self, index: int) -> Path:
        """Return the file of an image of a source that has a root."""
        if self.root is None:
            raise ValueError(f"{self.name} holds its images in memory")
        return self.root / self.image_names[index]

    def place(self, index: int) -> str | None:
        """Return the file and line that list an image, None where no file does."""
        return None if self.places is None else self.places[index]

    def read(self, index: int) -> Image.Image:
        """Return one image in RGB, as `data.image_file.read_image` does.

        Raises:
            UserError: the file is missing or cannot be decoded; names its full path, and the
                file and line that list it.
            ValueError: the source holds features, no pictures.
        """
        if self.features is not None:
            raise ValueError(f"{self.name} holds features, no pictures")
        if self.arrays is not None:
            return Image.fromarray(self.arrays[index])
        return read_image(self.path(index), self.place(index))

    def check(self, index: int) -> None:
        """Raise the UserError that `read` would for an image of a source that has a root."""
        check_image(self.path(index), self.place(index))


def join_subsets(source: Source) -> Source:
    """Return the source with all its subsets but 'open' joined into one, 'all'.

    For protocols that draw their queries from a dataset's training and test images alike.
    """
    known = [indices for name, indices in source.subsets.items() if name != "open"]
    subsets = {"all": np.unique(np.concatenate(known))}
    if "open" in source.subsets:
        subsets["open"] = source.subsets["open"]
    return replace(source, subsets=subsets)


def find_root(data_root: str | Path | None, folder: str, expected: str) -> Path:
    """Return the existing folder `data_root`/`folder`.

    Raises:
        UserError: no data root is set, or there is no such folder; names the `expected` layout.
    """
    remedy = (
        f"expected {expected}; set training_opt.data_root or the environment variable LTH_DATA_ROOT"
    )
    if data_root is None or str(data_root) == "":
        raise UserError(f"no data root is set: {remedy}")
    root = Path(data_root).expanduser() / folder
    if not os.path.isdir(root):  # noqa: PTH112 - Path.is_dir raises where it may not look
        raise UserError(f"data folder {shown(root)} does not exist: {remedy}")
    return root
