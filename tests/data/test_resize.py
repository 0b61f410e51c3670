import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from data.augment import Augmentation, random_boxes
from data.resize import resize, resized_crop


def pixels(count, height, width, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (count, 3, height, width), dtype=np.uint8))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 50), (32, 32, 12), (20, 45, 24)])
def test_crops_equal_torchvision_on_the_same_boxes(height, width, size, interpolation):
    augmentation = Augmentation(size, crop_scale=(0.05, 1.0), interpolation=interpolation)
    batch = pixels(24, height, width)
    boxes = random_boxes(24, height, width, augmentation, generator())
    flips = torch.arange(24) % 2 == 1
    ours = resized_crop(batch, boxes, flips, size, interpolation)
    mode = getattr(tv.InterpolationMode, interpolation.upper())
    for image, box, flip, own in zip(batch.float(), boxes.tolist(), flips, ours, strict=True):
        left, top, box_width, box_height = box
        theirs = tv.resized_crop(
            image, top, left, box_height, box_width, [size, size], mode, antialias=True
        )
        theirs = tv.horizontal_flip(theirs) if flip else theirs
        assert (own - theirs.clamp(0, 255)).abs().max() < 0.05


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crops_equal_pillow(interpolation):
    batch = pixels(6, 40, 40) // 2 + 64  # Pillow also clips after each axis
    boxes = torch.tensor([[3, 5, 30, 22]] * 6)
    ours = resized_crop(batch, boxes, torch.zeros(6, dtype=torch.bool), 16, interpolation)
    for image, own in zip(batch, ours, strict=True):
        theirs = Image.fromarray(image.permute(1, 2, 0).numpy()).crop((3, 5, 33, 27))
        theirs = theirs.resize((16, 16), Image.Resampling[interpolation.upper()])
        difference = own.permute(1, 2, 0).numpy() - np.asarray(theirs, dtype=np.float32)
        assert np.abs(difference).max() <= 1.5  # and rounds


def test_whole_image_at_its_own_size_is_unchanged():
    batch = pixels(3, 9, 9)
    boxes = torch.tensor([[0, 0, 9, 9]] * 3)
    flips = torch.tensor([False, True, False])
    crops = resized_crop(batch, boxes, flips, 9, "bilinear")
    assert torch.equal(crops[0], batch[0].float())
    assert torch.equal(crops[1], batch[1].flip(2).float())


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width", "size"), [(20, 45, 24), (40, 16, 7), (9, 9, 9)])
def test_whole_images_are_resized_as_by_torchvision(height, width, size, interpolation):
    batch = pixels(3, height, width)
    mode = getattr(tv.InterpolationMode, interpolation.upper())
    theirs = tv.resize(batch.float(), [size, size], mode, antialias=True).clamp(0, 255)
    ours = resize(batch, size, interpolation)
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), [(60, 75), (13, 16)])
def test_within_bounds_a_box_is_a_crop_of_the_resized_image(height, width, interpolation):
    """The image resized to 30 × 40, and of that a square of 24; the batch is padded."""
    batch = torch.full((2, 3, 80, 80), 255, dtype=torch.uint8)
    batch[:, :, :height, :width] = pixels(2, height, width)
    box = [5 * width / 40, 3 * height / 30, 24 * width / 40, 24 * height / 30]
    bounds = torch.tensor([[0, 0, width, height]] * 2)
    flips = torch.tensor([False, True])
    ours = resized_crop(batch, torch.tensor([box] * 2), flips, 24, interpolation, bounds)
    mode = getattr(tv.InterpolationMode, interpolation.upper())
    whole = batch[:, :, :height, :width].float()
    theirs = tv.resize(whole, [30, 40], mode, antialias=True).clamp(0, 255)[:, :, 3:27, 5:29]
    torch.testing.assert_close(ours[0], theirs[0], atol=0.05, rtol=0)
    torch.testing.assert_close(ours[1], theirs[1].flip(2), atol=0.05, rtol=0)
