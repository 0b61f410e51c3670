import pytest
import torch

from loss import square
from utils.errors import UserError

COUNTS = torch.tensor([50, 8, 2, 0])


def batch(count=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, len(COUNTS), generator=generator)
    return logits, torch.randint(len(COUNTS), (count,), generator=generator)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.99])
def test_loss_equals_a_loop_over_the_batch(beta):
    logits, labels = batch()
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        weight = (1 - beta) / (1 - beta ** max(COUNTS[label].item(), 1))
        total += weight * sum((value - (c == label)) ** 2 for c, value in enumerate(row))
    loss = square.create_loss(COUNTS, beta)(logits, labels)
    assert loss.item() == pytest.approx(total / len(logits), rel=1e-5)


def test_one_hot_logits_lose_nothing():
    labels = torch.arange(4)
    assert square.create_loss(COUNTS, 0.9)(torch.eye(4), labels) == 0


def test_gradients_are_finite_for_large_logits():
    logits, labels = batch()
    logits = (1e4 * logits).requires_grad_()
    square.create_loss(COUNTS, 0.99)(logits, labels).backward()
    assert torch.isfinite(logits.grad).all()


def test_beta_outside_zero_to_one_is_a_user_error():
    with pytest.raises(UserError, match="beta is 1, expected 0 <= beta < 1"):
        square.create_loss(COUNTS, 1)
