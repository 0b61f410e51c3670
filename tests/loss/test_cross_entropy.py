import math

import pytest
import torch

from loss import cross_entropy
from utils.errors import UserError


def batch(count=9, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, classes, generator=generator)
    return logits, torch.randint(classes, (count,), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_loss_equals_a_loop_over_the_batch(smoothing):
    logits, labels = batch()
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        log_sum = math.log(sum(math.exp(value) for value in row))
        for c, value in enumerate(row):
            target = (1 - smoothing) * (c == label) + smoothing / len(row)
            total += target * (log_sum - value)
    loss = cross_entropy.create_loss(smoothing)(logits, labels)
    assert loss.item() == pytest.approx(total / len(logits), rel=1e-5)


def test_gradients_are_finite_for_large_logits():
    logits, labels = batch()
    logits = (1e4 * logits).requires_grad_()
    loss = cross_entropy.create_loss(0.1)(logits, labels)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 1.5, float("nan")])
def test_smoothing_outside_zero_to_one_is_a_user_error(smoothing):
    with pytest.raises(UserError, match=r"label_smoothing is .*expected 0 <=") as error:
        cross_entropy.create_loss(smoothing)
    assert "\n" not in str(error.value)
