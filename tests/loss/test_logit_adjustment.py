import math

import pytest
import torch
from torch.nn import functional

from loss import logit_adjustment
from utils.errors import UserError

COUNTS = torch.tensor([500, 83, 20, 5])


def batch(count=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, len(COUNTS), generator=generator)
    return logits, torch.randint(len(COUNTS), (count,), generator=generator)


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_loss_equals_a_loop_over_the_batch(tau):
    logits, labels = batch()
    shares = [count / sum(COUNTS.tolist()) for count in COUNTS.tolist()]
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        # equation 10: log of a softmax whose terms are weighed by share^tau
        weighed = [share**tau * math.exp(value) for share, value in zip(shares, row, strict=True)]
        total -= math.log(weighed[label] / sum(weighed))
    loss = logit_adjustment.create_loss(COUNTS, tau)(logits, labels)
    assert loss.item() == pytest.approx(total / len(logits), rel=1e-5)


def test_logits_that_are_the_log_shares_undo_the_adjustment_of_tau_minus_one():
    logits, labels = batch()
    log_shares = torch.log(COUNTS / COUNTS.sum())
    loss = logit_adjustment.create_loss(COUNTS, tau=-1.0)(logits + log_shares, labels)
    torch.testing.assert_close(loss, functional.cross_entropy(logits, labels))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_equal_counts_give_plain_cross_entropy(smoothing):
    logits, labels = batch()
    loss = logit_adjustment.create_loss(torch.full((4,), 30), 1.5, smoothing)(logits, labels)
    plain = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    torch.testing.assert_close(loss, plain)


def test_tau_zero_is_plain_cross_entropy():
    logits, labels = batch()
    loss = logit_adjustment.create_loss(COUNTS, 0.0)(logits, labels)
    torch.testing.assert_close(loss, functional.cross_entropy(logits, labels))


def test_a_class_without_images_keeps_loss_and_gradients_finite():
    logits, labels = batch()
    logits.requires_grad_()
    loss = logit_adjustment.create_loss(torch.tensor([9, 0, 3, 0]))(logits, labels)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


def test_gradients_are_finite_for_large_logits():
    logits, labels = batch()
    logits = (1e4 * logits).requires_grad_()
    logit_adjustment.create_loss(COUNTS)(logits, labels).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_outside_zero_to_one_is_a_user_error(smoothing):
    with pytest.raises(UserError, match=rf"label_smoothing is {smoothing}, expected 0 <="):
        logit_adjustment.create_loss(COUNTS, 1.0, smoothing)
