import math

import pytest
import torch
from torch.nn import functional

from loss import class_balanced
from loss.class_balanced import class_balanced_weights
from utils.errors import UserError

COUNTS = torch.tensor([500, 83, 20, 5, 1])


def batch(count=11, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, len(COUNTS), generator=generator)
    return logits, torch.randint(len(COUNTS), (count,), generator=generator)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.99, 0.9999])
def test_loss_equals_a_loop_over_the_batch(beta):
    logits, labels = batch()
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        log_sum = math.log(sum(math.exp(value) for value in row))
        weight = (1 - beta) / (1 - beta ** COUNTS[label].item())
        total += weight * (log_sum - row[label])
    loss = class_balanced.create_loss(COUNTS, beta)(logits, labels)
    assert loss.item() == pytest.approx(total / len(logits), rel=1e-5)


def test_beta_zero_is_plain_cross_entropy():
    logits, labels = batch()
    loss = class_balanced.create_loss(COUNTS, 0.0)(logits, labels)
    torch.testing.assert_close(loss, functional.cross_entropy(logits, labels))


def test_weight_is_one_for_one_image_and_nears_the_inverse_count_as_beta_nears_one():
    assert class_balanced_weights(COUNTS, 0.9)[-1] == 1
    weights = class_balanced_weights(COUNTS, 1 - 1e-9)
    torch.testing.assert_close(weights, 1 / COUNTS.float(), rtol=1e-4, atol=0)


def test_a_class_without_images_weighs_as_much_as_one_with_one():
    weights = class_balanced_weights(torch.tensor([7, 0, 1]), 0.99)
    assert torch.isfinite(weights).all()
    assert weights[1] == weights[2]


@pytest.mark.parametrize("beta", [1.0, -0.1, 2, float("nan")])
def test_beta_outside_zero_to_one_is_a_user_error(beta):
    with pytest.raises(UserError, match=rf"beta is {beta}, expected 0 <= beta < 1") as error:
        class_balanced.create_loss(COUNTS, beta)
    assert "\n" not in str(error.value)


def test_counts_may_be_a_list():
    logits, labels = batch()
    from_list = class_balanced.create_loss(COUNTS.tolist(), 0.9)(logits, labels)
    assert torch.equal(from_list, class_balanced.create_loss(COUNTS, 0.9)(logits, labels))


def test_gradients_are_finite_for_large_logits():
    logits, labels = batch()
    logits = (1e4 * logits).requires_grad_()
    class_balanced.create_loss(COUNTS, 0.99)(logits, labels).backward()
    assert torch.isfinite(logits.grad).all()


def test_weights_follow_the_data_and_are_not_saved():
    assert class_balanced.create_loss(COUNTS, 0.9).state_dict() == {}
