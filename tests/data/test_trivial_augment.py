"""Each image of a batch is changed as torchvision's TrivialAugmentWide changes it alone."""

import pytest
import torch
from torch.nn import functional
from torchvision.transforms import v2

from data.trivial_augment import LEVELS, Operation, change_images, trivial_augment

SIDE = 224  # at which torchvision's shifts in pixels are ours
THEIR_NAMES = [
    *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color"),
    *("Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize"),
]
# Theirs rounds to whole tones after each half of a colour's change, ours does not.
SHEARS = (Operation.SHEAR_X, Operation.SHEAR_Y)
TOLERANCE = {Operation.COLOR: 2.0, Operation.CONTRAST: 2.0, Operation.SHARPNESS: 2.0}


@pytest.fixture
def image():
    coarse = torch.randint(0, 256, (1, 3, 7, 7), generator=torch.Generator().manual_seed(0))
    smooth = functional.interpolate(coarse.float(), size=(SIDE, SIDE), mode="bicubic")
    return smooth.clamp(0, 200).round()  # not all tones: there is something to stretch


def torchvisions(image, operation, level, sign):
    theirs = v2.TrivialAugmentWide()
    strengths, signed = theirs._AUGMENTATION_SPACE[THEIR_NAMES[operation]]
    found = strengths(LEVELS, SIDE, SIDE)
    strength = 0.0 if found is None else float(found[level]) * (sign if signed else 1)
    return theirs._apply_image_or_video_transform(
        image.to(torch.uint8), THEIR_NAMES[operation], strength, theirs.interpolation, theirs._fill
    ).float()


@pytest.mark.parametrize("operation", Operation, ids=lambda each: each.name.lower())
def test_an_operation_is_torchvisions_at_every_strength_and_sign(image, operation):
    levels = torch.tensor([0, 8, 17, 30] * 2)
    signs = torch.tensor([1] * 4 + [-1] * 4)
    found = change_images(
        image.expand(8, -1, -1, -1), torch.full((8,), operation), levels / (LEVELS - 1), signs
    )
    for ours, level, sign in zip(found, levels, signs, strict=True):
        expected = torchvisions(image[0], operation, int(level), int(sign))
        tolerance = TOLERANCE.get(operation, 1.0)
        differing = (ours - expected).abs() > tolerance
        # The nearest pixel of one halfway between two may be the other one.
        assert differing.float().mean() < (0.003 if operation in SHEARS else 1e-9)


def test_images_of_a_batch_do_not_see_each_other(image):
    operations = torch.arange(len(Operation))
    levels, signs = torch.linspace(0.2, 1, len(operations)), torch.ones_like(operations)
    batch = image.expand(len(operations), -1, -1, -1).roll(3, 2)
    together = change_images(batch, operations, levels, signs)
    for number in operations.tolist():
        place = slice(number, number + 1)
        alone = change_images(batch[place], operations[place], levels[place], signs[place])
        torch.testing.assert_close(alone, together[place], atol=1e-3, rtol=0)


def test_every_operation_is_drawn_as_often_and_the_seed_decides():
    # A dark and a bright half: which images change, and how, tells operations apart enough.
    pixels = torch.rand(2800, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 255
    one, two, other = (
        trivial_augment(pixels, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert one.min() >= 0
    assert one.max() <= 255
    unchanged = (one == pixels).flatten(1).all(1).float().mean()
    # Identity, and the weakest of the ten with a strength; a quarter pixel more of small shifts.
    assert 1 / 14 < unchanged < 4 / 14


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_cpus_pixels(image):
    operations = torch.arange(len(Operation)).repeat(3)
    levels = torch.linspace(0, 1, len(operations))
    signs = torch.tensor([1, -1]).repeat(len(operations) // 2)
    batch = image.expand(len(operations), -1, -1, -1)
    there = change_images(batch.cuda(), operations, levels.cuda(), signs.cuda()).cpu()
    close = (there - change_images(batch, operations, levels, signs)).abs()
    assert (close > 1.5).float().mean() < 0.002  # a nearest pixel may round the other way


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_each_batch_is_drawn_anew_by_the_seed_and_the_host_does_not_wait():
    pixels = (torch.rand(64, 3, 8, 8) * 255).cuda()
    trivial_augment(pixels, torch.Generator("cuda").manual_seed(0))  # loads the kernels
    found = []
    for _ in range(2):
        generator = torch.Generator("cuda").manual_seed(0)
        torch.cuda.set_sync_debug_mode("error")
        try:
            found.append([trivial_augment(pixels, generator) for _ in range(2)])
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for one, same in zip(*found, strict=True):
        assert torch.equal(one, same)
    assert not torch.equal(*found[0])
