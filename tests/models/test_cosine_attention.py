"""Attention by cosine and its transformations, against their formulas."""

import pytest
import torch
from torch.nn import functional

from models.cosine_attention import cosine_attention, powered, whitening


def made_up(seed=0):
    """Values of three classes with a covariance of their own, and classes."""
    generator = torch.Generator().manual_seed(seed)
    mixing, centres = (torch.randn(n, 4, generator=generator) for n in (4, 3))
    classes = torch.arange(60) % 3
    return torch.randn(60, 4, generator=generator) @ mixing + 5 * centres[classes], classes


def covariance_within(values, classes):
    parts = [values[classes == c] - values[classes == c].mean(0) for c in classes.unique()]
    residuals = torch.cat(parts).double()
    return residuals.T @ residuals / len(values)


def test_a_power_keeps_signs_and_one_is_the_inputs():
    inputs = torch.tensor([[-4.0, 0.0, 0.25, 9.0]])
    torch.testing.assert_close(powered(inputs, 0.5), torch.tensor([[-2.0, 0.0, 0.5, 3.0]]))
    assert powered(inputs, 1.0) is inputs


def test_a_power_s_gradient_is_finite_at_0():
    inputs = torch.tensor([0.0, -0.0, 1e-30, 4.0], requires_grad=True)
    powered(inputs, 0.5).sum().backward()
    assert inputs.grad.tolist() == [0, 0, 0, 0.25]


def test_little_shrinkage_makes_the_covariance_within_classes_the_identity():
    values, classes = made_up()
    white = values @ whitening(values, classes, 1e-9)
    torch.testing.assert_close(
        covariance_within(white, classes), torch.eye(4).double(), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("shrinkage", [0.3, 3.0])
def test_whitening_is_a_root_of_the_shrunk_covariance_s_inverse(shrinkage):
    values, classes = made_up()
    covariance = covariance_within(values, classes)
    shrunk = covariance + shrinkage * covariance.diagonal().mean() * torch.eye(4).double()
    found = whitening(values, classes, shrinkage).double()
    torch.testing.assert_close(found @ found.T, shrunk.inverse(), atol=1e-6, rtol=1e-5)


def test_whitening_of_values_that_are_all_alike_is_finite():
    assert whitening(torch.zeros(5, 3), torch.tensor([0, 0, 1, 1, 4]), 1.0).isfinite().all()


@pytest.mark.parametrize("whitened", [False, True])
def test_attention_is_its_formula_image_by_image(whitened):
    (values, classes), (inputs, _) = made_up(), made_up(1)
    keys = torch.stack([values[classes == c].mean(0) for c in range(3)])
    less = torch.tensor([0.0, 1.0, 0.3])
    whiten = whitening(values, classes, 1.0) if whitened else None
    found = cosine_attention(inputs, keys, 14.0, whiten, less)
    matrix = whiten if whitened else torch.eye(4)
    for row, x in zip(found, inputs, strict=True):
        scores = [
            14 * functional.cosine_similarity((x - keys.mean(0)) @ matrix, target @ matrix, dim=0)
            for target in keys - keys.mean(0)
        ]
        expected = torch.softmax(torch.stack(scores) - less, 0)
        torch.testing.assert_close(row, expected, atol=1e-5, rtol=1e-4)
