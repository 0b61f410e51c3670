"""Made-up JPEG files of the size of ImageNet's, as data/image_folder.py reads them."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from data.source import Source
from utils.cores import available_cores

WIDTH, HEIGHT = 500, 375  # about the mean of ImageNet
QUALITY = 90
NOISE = 18.0  # levels; makes about 90 kB, as photographs have


def write_jpegs(folder: Path, source: Source, count: int, links: int = 1) -> int:
    """Write `count` enlarged images of the subset 'train', one query and one to validate with.

    The folder is to be thrown away: its files are not written atomically.

    Args:
        source: holds its images in memory.
        links: names a training image, so that an epoch can be long without as many files.

    Returns:
        the mean size of a file in bytes.
    """
    train, queries = source.subsets["train"][:count], source.subsets["test"]
    queries = queries[np.isin(source.labels[queries], source.labels[train])]
    roles = [("train", int(index)) for index in train]
    roles += [("test", int(queries[0])), ("val", int(queries[1]))]

    def write(role: tuple[str, int]) -> int:
        subset, index = role
        place = folder / subset / source.class_names[source.labels[index]]
        place.mkdir(parents=True, exist_ok=True)
        first = place / f"{index:05d}.jpg"
        enlarged(source.read(index), index).save(first, quality=QUALITY)
        for copy in range(1, links if subset == "train" else 1):
            os.link(first, place / f"{index:05d}_{copy}.jpg")
        return first.stat().st_size

    # Threads: Pillow and numpy work outside the lock.
    with ThreadPoolExecutor(available_cores()) as pool:
        return sum(pool.map(write, roles)) // len(roles)


def enlarged(image: Image.Image, seed: int) -> Image.Image:
    """An image bicubically enlarged to 500 x 375 pixels, with the noise that enlarging lacks."""
    pixels = np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=np.float32)
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(pixels.shape, dtype=np.float32)
    return Image.fromarray((pixels + NOISE * noise).clip(0, 255).astype(np.uint8))
