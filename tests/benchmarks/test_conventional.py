"""The loop to compare with does what it is said to do."""

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import conventional
from benchmarks.conventional import (
    Conventional,
    PillowImages,
    evaluation_transform,
    torch_default_precision,
    train_transform,
)
from benchmarks.resident_images import create_source

TRANSFORMS = [train_transform, evaluation_transform]


@pytest.fixture
def source(tmp_path):
    return create_source(tmp_path, 8, 2)


def loop(batch_size=2, workers=0):
    cpu = torch.device("cpu")
    return Conventional("shufflenet_v2_x0_5", 32, batch_size, workers, cpu, feature_dim=8)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("size", [(32, 32), (50, 37)])
def test_an_image_becomes_a_square_of_the_size_asked(transform, size):
    pixels = transform(24)(Image.new("RGB", size))
    assert pixels.shape == (3, 24, 24) and pixels.dtype == torch.float32


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_plain_colour_is_normalised_by_imagenets_figures(transform):
    pixels = transform(16)(Image.new("RGB", (20, 20), (255, 0, 51)))
    for channel, (value, mean, std) in enumerate(
        [(1.0, 0.485, 0.229), (0.0, 0.456, 0.224), (0.2, 0.406, 0.225)]
    ):
        assert torch.allclose(pixels[channel], torch.tensor((value - mean) / std), atol=1e-5)


def test_items_are_the_images_asked_for_with_their_classes(source):
    images = PillowImages(source, np.array([5, 0]), np.asarray)
    assert len(images) == 2
    pixels, label = images[0]
    assert np.array_equal(pixels, source.arrays[5]) and label == source.labels[5]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_training_step_sees_whole_batches_and_its_loss_is_read(source, monkeypatch, workers):
    monkeypatch.setattr(conventional, "WARM_UP", 1)
    losses = []
    item = torch.Tensor.item
    monkeypatch.setattr(torch.Tensor, "item", lambda self: losses.append(item(self)) or losses[-1])
    assert loop(workers=workers).train_rate(source, source.subsets["train"], steps=2) > 0
    assert sum(0 < loss < 20 for loss in losses if isinstance(loss, float)) >= 3


def test_coding_gives_a_rate_and_no_gradient(source, monkeypatch):
    monkeypatch.setattr(conventional, "WARM_UP", 1)
    assert loop().coding_rate(source, source.subsets["train"], steps=1) > 0


def test_fewer_images_than_a_batch_are_refused(source):
    with pytest.raises(ValueError, match="fewer images"):
        loop(batch_size=16).train_rate(source, source.subsets["train"], steps=1)


def test_the_callers_precision_comes_back():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with torch_default_precision():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
