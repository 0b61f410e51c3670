import numpy as np
import pytest
import torch
from triton_kernels import DEVICE, needs_kernels, run_in_the_interpreter

import data.packed_crops
from data.crops import Crop, stack_crops
from data.jpeg_files import pack_images
from data.packed_crops import resize_crops
from data.resize import resized_crop
from utils import optional_triton

CPU = torch.device("cpu")
interpolations = pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])


@pytest.fixture
def cases():
    """Images of many sizes with a region and a box in each."""
    rng = np.random.default_rng(0)
    images, crops = [], []
    for _ in range(20):
        width, height = rng.integers(5, 60, 2)
        images.append(torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8)))
        left, top = rng.integers(0, width - 3), rng.integers(0, height - 3)
        across, down = rng.integers(3, width - left + 1), rng.integers(3, height - top + 1)
        x, y = rng.uniform(0, 1, 2)
        box = (x, y, rng.uniform(1, across - x), rng.uniform(1, down - y))
        crops.append(Crop((left, top, across, down), box, bool(rng.random() < 0.5)))
    return images, crops


def one_by_one(images, crops, size, interpolation):
    """Each region cut out and its box resized by itself."""
    for image, crop in zip(images, crops, strict=True):
        left, top, width, height = crop.region
        region = image[None, :, top : top + height, left : left + width]
        flip, bounds = torch.tensor([crop.flip]), torch.tensor([[0, 0, width, height]])
        box = torch.tensor([crop.box])
        yield resized_crop(region, box, flip, size, interpolation, bounds)[0]


@interpolations
@pytest.mark.parametrize("limit", [1, 3000, 2**24])
def test_crops_are_those_made_one_by_one(cases, limit, interpolation, monkeypatch):
    monkeypatch.setattr(data.packed_crops, "_PIXELS", limit)
    images, crops = cases
    found = resize_crops(pack_images(images, CPU), stack_crops(crops), 12, interpolation)
    for own, expected in zip(found, one_by_one(images, crops, 12, interpolation), strict=True):
        torch.testing.assert_close(own, expected, atol=1e-3, rtol=0)


def test_in_the_interpreter():
    run_in_the_interpreter(__file__)


@needs_kernels
@pytest.mark.parametrize(
    ("size", "interpolation"), [(12, "bilinear"), (12, "bicubic"), (66, "bicubic")]
)
def test_kernels_make_the_same_crops(cases, size, interpolation, monkeypatch):
    monkeypatch.setattr(optional_triton, "DEVICE", DEVICE)
    monkeypatch.setattr(data.packed_crops, "resized_crop", None)  # by kernels, or not at all
    images, crops = (each[:4] for each in cases)
    images.append(images[0][:, :1, :1])
    crops.append(Crop((0, 0, 1, 1), (0.0, 0.0, 1.0, 1.0), True))
    packed = pack_images(images, torch.device(DEVICE))
    found = resize_crops(packed, stack_crops(crops), size, interpolation).cpu()
    for own, expected in zip(found, one_by_one(images, crops, size, interpolation), strict=True):
        torch.testing.assert_close(own, expected, atol=1e-3, rtol=0)


def test_one_large_image_does_not_widen_all(cases, monkeypatch):
    images, crops = cases
    images.append(torch.zeros((3, 1000, 900), dtype=torch.uint8))
    crops.append(Crop((0, 0, 900, 1000), (0.0, 0.0, 900.0, 1000.0), False))
    monkeypatch.setattr(data.packed_crops, "_PIXELS", 100_000)
    shapes = []
    original = data.packed_crops._cut
    monkeypatch.setattr(
        data.packed_crops,
        "_cut",
        lambda *given: shapes.append(original(*given).shape) or original(*given),
    )
    resize_crops(pack_images(images, CPU), stack_crops(crops), 12, "bilinear")
    assert [shape[0] for shape in shapes] == [1, 20] and shapes[0][2:] == (1000, 900)
    assert max(shapes[1][2:]) < 60
