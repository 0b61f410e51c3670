import math

import pytest
import torch

from loss import csq
from loss.hash_centers import hash_centers


def batch(count=9, bits=8, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.tanh(torch.randn(count, bits, generator=generator))
    return codes, torch.randint(classes, (count,), generator=generator)


def plain_loss(codes, centers):
    """Equation 4, bit by bit."""
    total = 0.0
    for code, center in zip(codes.tolist(), centers.tolist(), strict=True):
        for h, c in zip(code, center, strict=True):
            total -= math.log((1 + h) / 2 if c > 0 else (1 - h) / 2)
    return total / codes.numel()


def test_loss_equals_a_loop_over_bits():
    codes, labels = batch()
    expected = plain_loss(codes, hash_centers(5, 8)[labels])
    assert csq.create_loss(5, 8)(codes, labels).item() == pytest.approx(expected, rel=1e-5)


def test_an_image_of_several_labels_is_drawn_to_the_majority_of_their_centres():
    codes = batch(count=3)[0]
    labels = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 0, 0, 1], [0, 0, 0, 1, 0]], dtype=torch.uint8)
    loss = csq.create_loss(5, 8)
    expected = []
    for row in labels.tolist():
        own = [center for has, center in zip(row, hash_centers(5, 8).tolist(), strict=True) if has]
        votes = [sum(bits) for bits in zip(*own, strict=True)]
        expected.append(
            [
                math.copysign(1, v) if v else t
                for v, t in zip(votes, loss.ties.tolist(), strict=True)
            ]
        )
    assert 0 in [sum(pair) for pair in zip(*hash_centers(5, 8)[[1, 4]].tolist(), strict=True)]
    value = loss(codes, labels).item()
    assert value == pytest.approx(plain_loss(codes, torch.tensor(expected)), rel=1e-5)


def test_one_hot_labels_give_the_loss_of_class_indices():
    codes, labels = batch()
    loss = csq.create_loss(5, 8)
    hot = torch.nn.functional.one_hot(labels, 5).to(torch.uint8)
    torch.testing.assert_close(loss(codes, labels), loss(codes, hot))


def test_codes_at_their_centres_lose_nothing():
    labels = torch.arange(5)
    assert csq.create_loss(5, 8)(hash_centers(5, 8), labels).item() == 0


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_saturated_codes_keep_loss_and_gradients_finite(sign):
    outputs = (sign * 50 * hash_centers(5, 8)).requires_grad_()
    loss = csq.create_loss(5, 8)(torch.tanh(outputs), torch.arange(5))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(outputs.grad).all()
