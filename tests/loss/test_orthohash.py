import math

import pytest
import torch

from loss import orthohash
from loss.hash_centers import hash_centers
from utils.errors import UserError


def batch(count=9, bits=8, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    codes = 2 * torch.randn(count, bits, generator=generator)
    return codes, torch.randint(classes, (count,), generator=generator)


def plain_loss(codes, sets, targets, scale, margin):
    """Equation 6 image by image; an image's labels share its probability."""
    total = 0.0
    for code, own in zip(codes.tolist(), sets, strict=True):
        logits = []
        for c, target in enumerate(targets.tolist()):
            norms = math.hypot(*code) * math.hypot(*target)
            cosine = sum(a * b for a, b in zip(code, target, strict=True)) / norms
            logits.append(scale * (cosine - (margin if c in own else 0)))
        log_sum = math.log(sum(map(math.exp, logits)))
        total -= sum(logits[c] - log_sum for c in own) / len(own)
    return total / len(codes)


@pytest.mark.parametrize("margin", [0.0, 0.2])
def test_loss_equals_a_loop_over_images(margin):
    codes, labels = batch()
    sets = [{label} for label in labels.tolist()]
    expected = plain_loss(codes, sets, hash_centers(5, 8), 3.0, margin)
    loss = orthohash.create_loss(5, 8, scale=3.0, margin=margin)
    assert loss(codes, labels).item() == pytest.approx(expected, rel=1e-5)


def test_images_of_several_labels_share_their_probability():
    codes = batch(count=3)[0]
    labels = torch.tensor([[1, 1, 0, 0, 1], [0, 1, 0, 0, 0], [0, 0, 1, 1, 0]], dtype=torch.uint8)
    sets = [{0, 1, 4}, {1}, {2, 3}]
    expected = plain_loss(codes, sets, hash_centers(5, 8), math.sqrt(8), 0.2)
    assert orthohash.create_loss(5, 8)(codes, labels).item() == pytest.approx(expected, rel=1e-5)


def test_the_scale_is_the_root_of_the_code_length_by_default():
    assert orthohash.create_loss(100, 64).scale == 8


def test_the_length_of_a_code_does_not_matter():
    codes, labels = batch()
    loss = orthohash.create_loss(5, 8)
    torch.testing.assert_close(loss(codes, labels), loss(1e4 * codes, labels))


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e15])
def test_loss_and_gradients_are_finite_for_codes_of_any_length(scale):
    codes, labels = batch()
    codes = (scale * codes).requires_grad_()
    loss = orthohash.create_loss(5, 8)(codes, labels)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(codes.grad).all()


def test_an_image_without_labels_adds_nothing():
    codes = batch(count=2)[0]
    labels = torch.tensor([[0, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    loss = orthohash.create_loss(5, 8)
    torch.testing.assert_close(loss(codes, labels), loss(codes[:1], labels[:1]) / 2)


@pytest.mark.parametrize("wrong", [{"scale": 0.0}, {"scale": math.nan}, {"margin": 1.0}])
def test_scale_and_margin_out_of_range_are_user_errors(wrong):
    (name,) = wrong
    with pytest.raises(UserError, match=f"{name} is .*, expected"):
        orthohash.create_loss(5, 8, **wrong)
