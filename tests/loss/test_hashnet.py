import math

import pytest
import torch

from loss import hashnet
from utils.errors import UserError


def batch(count=7, bits=6, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.tanh(torch.randn(count, bits, generator=generator))
    return codes, torch.randint(classes, (count,), generator=generator)


def several_labels(count=7, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, classes, generator=generator) < 0.3).to(torch.uint8)


def plain_loss(codes, alike, alpha):
    """Equation 4, pair by pair."""
    pairs = [(i, j) for i in range(len(codes)) for j in range(len(codes)) if i != j]
    num_similar = sum(alike(i, j) for i, j in pairs)
    total = 0.0
    for i, j in pairs:
        product = alpha * sum(
            a * b for a, b in zip(codes[i].tolist(), codes[j].tolist(), strict=True)
        )
        kind = num_similar if alike(i, j) else len(pairs) - num_similar
        total += len(pairs) / kind * (math.log(1 + math.exp(product)) - alike(i, j) * product)
    return total / len(pairs)


@pytest.mark.parametrize("alpha", [0.2, 1.5])
def test_loss_equals_a_loop_over_pairs(alpha):
    codes, labels = batch()
    expected = plain_loss(codes, lambda i, j: bool(labels[i] == labels[j]), alpha)
    loss = hashnet.HashNetLoss(alpha)(codes, labels)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_loss_equals_a_loop_where_images_have_several_labels():
    codes, labels = batch()[0], several_labels()
    sets = [set(row.nonzero().flatten().tolist()) for row in labels]
    assert set() in sets  # an image without labels is like none, itself included
    expected = plain_loss(codes, lambda i, j: bool(sets[i] & sets[j]), 0.7)
    loss = hashnet.HashNetLoss(0.7)(codes, labels)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_one_hot_labels_give_the_loss_of_class_indices():
    codes, labels = batch()
    loss = hashnet.create_loss(6)
    torch.testing.assert_close(
        loss(codes, labels), loss(codes, torch.nn.functional.one_hot(labels).to(torch.uint8))
    )


def test_alpha_is_the_scale_over_the_code_length_by_default_of_10():
    assert hashnet.create_loss(32).alpha == 10 / 32
    assert hashnet.create_loss(32, scale=4.0).alpha == 4 / 32


def test_more_than_255_shared_labels_still_count():
    labels = torch.ones(2, 256, dtype=torch.uint8)  # 256 is 0 in uint8
    assert hashnet.share_a_label(labels).all()


@pytest.mark.parametrize("scale", [0.0, 1e3, 1e15])
def test_loss_and_gradients_are_finite_at_any_inner_product(scale):
    codes, labels = batch()
    codes = (scale * codes).requires_grad_()
    loss = hashnet.create_loss(6)(codes, labels)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(codes.grad).all()


@pytest.mark.parametrize("labels", [[1, 1, 1, 1], [0, 1, 2, 3]])
def test_a_batch_of_one_kind_of_pair_is_its_plain_mean(labels):
    codes = batch(count=4)[0]
    products = [float(codes[i] @ codes[j]) for i in range(4) for j in range(4) if i != j]
    sign = -1 if labels[0] == labels[1] else 1
    terms = [math.log(1 + math.exp(sign * product)) for product in products]
    codes.requires_grad_()
    loss = hashnet.HashNetLoss(1.0)(codes, torch.tensor(labels))
    assert loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)
    loss.backward()
    assert torch.isfinite(codes.grad).all()


def test_an_image_alone_has_no_pair_and_no_loss():
    codes, labels = batch(count=1)
    codes.requires_grad_()
    loss = hashnet.create_loss(6)(codes, labels)
    loss.backward()
    assert loss.item() == 0 and not codes.grad.any()


def test_gradient_is_that_of_the_loop():
    codes, labels = batch(count=4)
    codes = codes.double().requires_grad_()
    loss = hashnet.HashNetLoss(0.9)
    assert torch.autograd.gradcheck(lambda h: loss(h, labels), codes)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_the_scale_must_be_a_number_above_zero(scale):
    with pytest.raises(UserError, match=f"scale is {scale}, expected a number above 0"):
        hashnet.create_loss(8, scale)
