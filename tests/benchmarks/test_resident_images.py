"""The images in memory that benchmarks measure with."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.resident_images import create_source
from utils.errors import UserError


def write_cifar(root, subset, counts):
    """Files of one colour each: (class, number in it)."""
    for label, count in enumerate(counts):
        folder = root / "Cifar100" / subset / f"class_{label}"
        folder.mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (32, 32), (label, number, 0)).save(folder / f"{number}.png")


def test_images_that_are_there_are_read_classes_taking_turns(tmp_path):
    write_cifar(tmp_path, "train", [3, 1, 2])
    write_cifar(tmp_path, "test", [1, 1, 1])
    source = create_source(tmp_path, 5, 2)
    assert source.name == "CIFAR-100"
    assert source.labels.tolist() == [0, 1, 2, 0, 2, 0, 1]
    assert [tuple(pixels[0, 0, :2]) for pixels in source.arrays[:5]] == [
        (0, 0), (1, 0), (2, 0), (0, 1), (2, 1),
    ]  # fmt: skip
    assert source.subsets["test"].tolist() == source.subsets["val"].tolist() == [5, 6]


def test_more_images_than_there_are_is_one_line(tmp_path):
    write_cifar(tmp_path, "train", [2, 2])
    write_cifar(tmp_path, "test", [1, 1])
    with pytest.raises(UserError, match="train has 4 images, 5 are asked for"):
        create_source(tmp_path, 5, 1)


def test_made_up_images_stand_in_with_every_class(tmp_path):
    source = create_source(tmp_path, 150, 50)
    assert source.arrays.shape == (200, 32, 32, 3)
    assert np.bincount(source.labels[:150], minlength=100).tolist() == [2] * 50 + [1] * 50
