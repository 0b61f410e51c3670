"""Training and coding as most published code does them, to compare with.

A DataLoader whose workers decode and augment with Pillow and torchvision, float32, the network run
eagerly, the loss read back every step.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.timing import wait
from data.augment import IMAGENET_MEAN, IMAGENET_STD
from data.source import Source
from models import backbone, direct_head

WARM_UP = 10  # steps
Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Conventional:
    """What is trained, on what. workers: processes that read images."""

    arch: str
    image_size: int
    batch_size: int
    workers: int
    device: torch.device
    feature_dim: int = 2000
    code_length: int = 64

    def train_rate(self, source: Source, indices: np.ndarray, steps: int) -> float:
        """Images a second over `steps` training steps, after a warm-up."""
        model = self._network(source.num_classes).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        transform = train_transform(self.image_size)
        loader = self._loader(source, indices, transform, training=True)

        def step(images: Tensor, labels: Tensor) -> float:
            loss = nn.functional.cross_entropy(model(images)["logits"], labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.item()

        return self._rate(step, loader, steps)

    @torch.no_grad()
    def coding_rate(self, source: Source, indices: np.ndarray, steps: int) -> float:
        """Images coded a second over `steps` batches, after a warm-up."""
        model = self._network(source.num_classes).eval()
        loader = self._loader(
            source, indices, evaluation_transform(self.image_size), training=False
        )
        return self._rate(lambda images, _: model(images)["codes"].sign().cpu(), loader, steps)

    def _network(self, num_classes: int) -> nn.Module:
        features = backbone.create_model(self.arch)
        head = direct_head.create_model(
            features.out_features, self.feature_dim, self.code_length, num_classes
        )
        return nn.Sequential(features, head).to(self.device)

    def _loader(
        self, source: Source, indices: np.ndarray, transform: Transform, training: bool
    ) -> DataLoader:
        return DataLoader(
            PillowImages(source, indices, transform),
            self.batch_size,
            shuffle=training,
            drop_last=True,
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            persistent_workers=self.workers > 0,
        )

    def _rate(self, step: Callable[[Tensor, Tensor], Any], loader: DataLoader, steps: int) -> float:
        started = 0.0
        with torch_default_precision():
            for number, (images, labels) in enumerate(islice(_endless(loader), WARM_UP + steps)):
                if number == WARM_UP:
                    wait(self.device)
                    started = time.perf_counter()
                step(images.to(self.device), labels.to(self.device))
            wait(self.device)
        return steps * self.batch_size / (time.perf_counter() - started)


class PillowImages(Dataset):
    """Items: an image, read and transformed by Pillow, and its class."""

    def __init__(self, source: Source, indices: np.ndarray, transform: Transform) -> None:
        self.source = source
        self.indices = indices
        self.transform = transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        index = self.indices[position]
        return self.transform(self.source.read(index)), int(self.source.labels[index])


def train_transform(size: int) -> Transform:
    """A random crop and flip, normalised (3, size, size) float32."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


def evaluation_transform(size: int) -> Transform:
    """The centre, normalised (3, size, size) float32."""
    return transforms.Compose(
        [
            transforms.Resize(round(size / 0.875)),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


def _endless(loader: DataLoader) -> Iterator[list[Tensor]]:
    if not len(loader):
        raise ValueError("fewer images than a batch")
    while True:
        yield from loader


@contextmanager
def torch_default_precision() -> Iterator[None]:
    """The float32 that torch computes where nobody asks for less."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
