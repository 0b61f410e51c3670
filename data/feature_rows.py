"""Features by image index, where a source has no pixels; they live on the device whole."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from data.augment import Augmentation
from data.content import hash_bytes
from data.faults import DataError, shown
from data.source import Source
from data.to_device import upload, with_index


def check_finite(source: Source) -> None:
    """Raise a DataError that names the images whose features are NaN or infinite."""
    assert source.features is not None
    rows = np.flatnonzero(~np.isfinite(source.features).all(1))
    if len(rows):
        raise DataError([not_finite(source.image_names[row]) for row in rows])


def not_finite(name: str) -> str:
    """Return the words for an image whose features are no numbers."""
    return f"features of {shown(name)} are NaN or infinite"


class FeatureRows:
    """Features (n, d) float32, in the form of `data.images.ArrayImages`."""

    def __init__(self, features: np.ndarray) -> None:
        self.features = features
        self._resident: Tensor | None = None

    def digests(self, indices: np.ndarray) -> list[bytes]:
        """Return a digest of each image's features; equal features have equal digests."""
        return [self._digests[index] for index in indices]

    @cached_property
    def _digests(self) -> list[bytes]:
        return [hash_bytes(row.data.cast("B")) for row in np.ascontiguousarray(self.features)]

    def batches(
        self,
        index_batches: Sequence[np.ndarray],
        augmentation: Augmentation,
        *,
        training: bool,
        seed: int,
        device: torch.device,
        num_workers: int = 0,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (B, d) features and their (B,) int64 indices, both on the device.

        There is nothing to augment or read: only `index_batches` and `device` matter.
        """
        device = with_index(device)
        if self._resident is None or self._resident.device != device:
            self._resident = torch.from_numpy(self.features).to(device)
        for batch in index_batches:
            indices = upload(batch, device)
            yield self._resident[indices], indices
