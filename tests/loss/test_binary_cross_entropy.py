import math

import pytest
import torch

from loss import binary_cross_entropy


def batch(count=7, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, classes, generator=generator)
    return logits, torch.randint(2, (count, classes), generator=generator)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.long, torch.float32])
def test_loss_equals_a_loop_over_images_and_classes(dtype):
    logits, labels = batch()
    total = 0.0
    for row, targets in zip(logits.tolist(), labels.tolist(), strict=True):
        for value, target in zip(row, targets, strict=True):
            probability = 1 / (1 + math.exp(-value))
            total -= math.log(probability if target else 1 - probability)
    loss = binary_cross_entropy.create_loss()(logits, labels.to(dtype))
    assert loss.item() == pytest.approx(total / len(logits), rel=1e-5)


def test_gradients_are_finite_for_large_logits():
    logits, labels = batch()
    logits = (1e4 * logits).requires_grad_()
    loss = binary_cross_entropy.create_loss()(logits, labels)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()
