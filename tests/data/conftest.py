"""Small image folders, made up for a test."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.source import Source

WriteImages = Callable[[Mapping[str, int]], Path]


@pytest.fixture
def write_image(tmp_path: Path) -> Callable[..., Path]:
    """Write one random image: name relative to tmp_path, (width, height), seed."""

    def write(name: str, size: tuple[int, int] = (8, 8), seed: int | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(list(name.encode()) if seed is None else seed)
        array = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(array).save(path)
        return path

    return write


@pytest.fixture
def write_images(tmp_path: Path, write_image: Callable[..., Path]) -> WriteImages:
    """Write {folder: count} distinct 8×8 images under tmp_path, which it returns."""

    def write(counts: Mapping[str, int]) -> Path:
        for folder, count in counts.items():
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                write_image(f"{folder}/{index:03d}.png")
        return tmp_path

    return write


@pytest.fixture
def array_source() -> Callable[..., Source]:
    """Make a source in memory: subset name -> images a class; pixels are random."""

    def make(multi_label: bool = False, **subsets: list[int]) -> Source:
        labels = [
            c for counts in subsets.values() for c, count in enumerate(counts) for _ in range(count)
        ]
        starts = np.cumsum([0, *(sum(counts) for counts in subsets.values())])
        spans = zip(subsets, starts[:-1], starts[1:], strict=True)
        num_classes = max(len(counts) for counts in subsets.values())
        rng = np.random.default_rng(0)
        single = np.array(labels, dtype=np.int64)
        many = (single[:, None] == np.arange(num_classes)) | (rng.random((len(single), 1)) < 0.3)
        return Source(
            name="made-up",
            class_names=[f"class {c}" for c in range(num_classes)],
            image_names=[f"image/{i:05d}" for i in range(len(single))],
            labels=many.astype(np.uint8) if multi_label else single,
            subsets={name: np.arange(start, stop) for name, start, stop in spans},
            arrays=rng.integers(0, 256, (len(single), 4, 4, 3), dtype=np.uint8),
        )

    return make


@pytest.fixture
def balanced(array_source):
    return array_source(train=[40] * 6, test=[5] * 6)
