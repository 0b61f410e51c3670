"""Each change of colour is torchvision's, with a factor of each image's own."""

import pytest
import torch
from torchvision.transforms.v2 import functional

from data import color_jitter as jitter


@pytest.fixture
def pixels():
    generator = torch.Generator().manual_seed(0)
    batch = torch.randint(0, 256, (6, 3, 9, 9), generator=generator).float()
    batch[0] = 128  # grey: no hue
    batch[1, :, :, :4] = 0
    return batch


CHANGES = {
    "brightness": (jitter.brightness, functional.adjust_brightness, (0.0, 0.4, 1.0, 1.3, 1.7, 2)),
    "contrast": (jitter.contrast, functional.adjust_contrast, (0.0, 0.4, 1.0, 1.3, 1.7, 2)),
    "saturation": (jitter.saturation, functional.adjust_saturation, (0.0, 0.4, 1.0, 1.3, 1.7, 2)),
    "hue": (jitter.hue, functional.adjust_hue, (0.5, -0.5, 0.0, 0.1, -0.2, 0.33)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_batch_of_factors_equals_torchvision_image_by_image(pixels, name):
    ours, theirs, factors = CHANGES[name]
    found = ours(pixels, torch.tensor(factors, dtype=torch.float32))
    expected = torch.stack(
        [theirs(image / 255, factor) * 255 for image, factor in zip(pixels, factors, strict=True)]
    )
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def test_factors_are_in_range_and_of_each_image_its_own():
    flat = torch.full((500, 3, 2, 2), 100.0)
    found = jitter.color_jitter(flat, (0.4, 0, 0, 0), torch.Generator().manual_seed(0))
    factors = found[:, 0, 0, 0] / 100
    assert len(factors.unique()) > 450
    assert 0.6 <= factors.min() < 0.62
    assert 1.38 < factors.max() <= 1.4


def test_the_same_seed_gives_the_same_colours_and_no_strength_none(pixels):
    strengths = (0.4, 0.4, 0.4, 0.1)
    one, two, other = (
        jitter.color_jitter(pixels, strengths, torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert one.min() >= 0
    assert one.max() <= 255
    assert jitter.color_jitter(pixels, (0, 0, 0, 0), torch.Generator()) is pixels
