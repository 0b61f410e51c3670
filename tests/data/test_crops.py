import numpy as np
import pytest
import torch
from PIL import Image

from data.augment import Augmentation
from data.crops import centre_crop, crop_image, training_crop


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(500, 375), (97, 300), (64, 64), (20, 31), (2000, 30)])
@pytest.mark.parametrize("fraction", [0.875, 1.0, 0.5])
def test_the_centre_is_that_of_the_whole_image_resized(size, fraction, interpolation):
    """Boxes are checked by their result: a crop of the image resized by Pillow as a whole."""
    augmentation = Augmentation(32, interpolation=interpolation, crop_fraction=fraction)
    rng = np.random.default_rng(0)
    # Grey enough that it does not matter along which axis Pillow resizes and clips first.
    image = Image.fromarray(rng.integers(64, 192, (size[1], size[0], 3), dtype=np.uint8))
    crop = centre_crop(*size, augmentation)
    left, top, width, height = crop.region
    assert left >= 0 and top >= 0 and left + width <= size[0] and top + height <= size[1]
    own = crop_image(image, crop, augmentation).transpose(1, 2, 0).astype(int)

    factor = round(32 / fraction) / min(size)
    across, down = (max(32, round(side * factor)) for side in size)
    resized = image.resize((across, down), Image.Resampling[interpolation.upper()])
    x, y = (across - 32) // 2, (down - 32) // 2
    difference = np.abs(own - np.asarray(resized.crop((x, y, x + 32, y + 32))))
    assert difference.max() <= 2 and difference.mean() < 0.3


def test_training_crops_differ_by_seed_and_place_and_half_are_flipped():
    augmentation = Augmentation(32)
    crops = [training_crop(60, 40, augmentation, 3, place) for place in range(300)]
    assert crops == [training_crop(60, 40, augmentation, 3, place) for place in range(300)]
    others = [training_crop(60, 40, augmentation, 4, place) for place in range(300)]
    assert len(set(crops)) > 250 and sum(map(crops.__contains__, others)) < 50
    assert 110 < sum(crop.flip for crop in crops) < 190
    for crop in crops:
        left, top, width, height = crop.region
        assert left >= 0 and top >= 0 and left + width <= 60 and top + height <= 40
        assert crop.box == (0, 0, width, height)
    unflipped = Augmentation(32, flip=False)
    assert not any(training_crop(60, 40, unflipped, 3, place).flip for place in range(20))


def test_a_flip_mirrors_the_crop():
    augmentation = Augmentation(16)
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    crop = training_crop(50, 40, augmentation, 0, 0)
    one, other = (crop_image(image, crop._replace(flip=flip), augmentation) for flip in (0, 1))
    assert one.shape == (3, 16, 16) and one.dtype == np.uint8
    assert torch.equal(torch.from_numpy(one).flip(2), torch.from_numpy(other))
