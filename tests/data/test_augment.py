from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from data.augment import (
    Augmentation,
    evaluation_batch,
    normalise,
    random_boxes,
    train_batch,
)


def pixels(count, height, width, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (count, 3, height, width), dtype=np.uint8))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [8, 20, 50])
def test_evaluation_equals_torchvision(interpolation, size):
    augmentation = Augmentation(size, interpolation=interpolation)
    batch = pixels(4, 20, 20)
    mode = getattr(tv.InterpolationMode, interpolation.upper())
    theirs = tv.resize(batch.float(), [size, size], mode, antialias=True).clamp(0, 255)
    theirs = tv.normalize(theirs / 255, list(augmentation.mean), list(augmentation.std))
    ours = evaluation_batch(batch, augmentation)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs)


def test_normalise_equals_torchvision():
    augmentation = Augmentation(8, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    batch = pixels(2, 8, 8).float()
    theirs = tv.normalize(batch / 255, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7])
    torch.testing.assert_close(normalise(batch, augmentation), theirs)


@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (1.0, 1.0), (0.5, 3.0)])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 60)])
def test_boxes_lie_inside_and_follow_torchvisions_distribution(height, width, ratio):
    augmentation = Augmentation(8, crop_scale=(0.2, 1.0), crop_ratio=ratio)
    boxes = random_boxes(4000, height, width, augmentation, generator()).double()
    left, top, box_width, box_height = boxes.T
    assert (boxes >= 0).all() and (box_width >= 1).all() and (box_height >= 1).all()
    assert (left + box_width <= width).all() and (top + box_height <= height).all()

    torch.manual_seed(0)
    image = torch.zeros(3, height, width)
    theirs = torch.tensor(
        [RandomResizedCrop.get_params(image, [0.2, 1.0], list(ratio)) for _ in range(4000)]
    ).double()[:, [1, 0, 3, 2]]
    error = 5 * (boxes.std(0) + theirs.std(0)) / 4000**0.5 + 1e-9
    assert ((boxes.mean(0) - theirs.mean(0)).abs() < error).all()
    assert torch.allclose(boxes.std(0), theirs.std(0), rtol=0.1, atol=1e-6)


def test_boxes_that_never_fit_fall_back_to_torchvisions_centre_crop():
    augmentation = Augmentation(8, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))
    for height, width in ((10, 41), (41, 10)):
        theirs = RandomResizedCrop.get_params(torch.zeros(3, height, width), [1.0, 1.0], [1.0, 1.0])
        box = random_boxes(5, height, width, augmentation, generator())
        assert {tuple(row) for row in box.tolist()} == {
            (theirs[1], theirs[0], theirs[3], theirs[2])
        }


def test_training_batches_repeat_with_the_generator_and_flip_half():
    augmentation = Augmentation(6, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))
    batch = pixels(1, 6, 6).expand(400, 3, 6, 6)
    one, same, other = (train_batch(batch, augmentation, generator(s)) for s in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    whole = evaluation_batch(batch[:1], augmentation)
    kept = (one - whole).abs().amax((1, 2, 3)) < 1e-5
    flipped = (one - whole.flip(3)).abs().amax((1, 2, 3)) < 1e-5
    assert (kept ^ flipped).all() and 150 < flipped.sum() < 250
    unflipped = train_batch(batch, Augmentation(6, (1.0, 1.0), (1.0, 1.0), flip=False), generator())
    assert torch.allclose(unflipped, whole.expand_as(unflipped), atol=1e-5)


def test_trivial_augment_changes_crops_only_where_it_is_asked_for():
    batch = torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8)
    plain = Augmentation(image_size=8, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=False)
    whole = train_batch(batch, plain, torch.Generator().manual_seed(0))
    assert torch.equal(whole, evaluation_batch(batch, plain))
    changed = train_batch(
        batch, replace(plain, trivial_augment=True), torch.Generator().manual_seed(0)
    )
    share = (changed != whole).flatten(1).any(1).float().mean()
    assert 0.5 < share < 1  # one in fourteen at least is left as it is
