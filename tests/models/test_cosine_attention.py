"""Attention by cosine and its transformations, against their formulas."""

import pytest
import torch
from torch.nn import functional

from models.cosine_attention import cosine_attention, powered


def test_a_power_keeps_signs_and_one_is_the_inputs():
    inputs = torch.tensor([[-4.0, 0.0, 0.25, 9.0]])
    torch.testing.assert_close(powered(inputs, 0.5), torch.tensor([[-2.0, 0.0, 0.5, 3.0]]))
    assert powered(inputs, 1.0) is inputs


def test_a_power_s_gradient_is_finite_at_0():
    inputs = torch.tensor([0.0, -0.0, 1e-30, 4.0], requires_grad=True)
    powered(inputs, 0.5).sum().backward()
    assert inputs.grad.tolist() == [0, 0, 0, 0.25]


@pytest.mark.parametrize("whitened", [False, True])
def test_attention_is_its_formula_image_by_image(whitened):
    torch.manual_seed(0)
    inputs, keys, less = torch.randn(20, 4), torch.randn(3, 4), torch.tensor([0.0, 1.0, 0.3])
    whiten = torch.randn(4, 4) if whitened else None
    found = cosine_attention(inputs, keys, 14.0, whiten, less)
    matrix = whiten if whitened else torch.eye(4)
    for row, x in zip(found, inputs, strict=True):
        scores = [
            14 * functional.cosine_similarity((x - keys.mean(0)) @ matrix, target @ matrix, dim=0)
            for target in keys - keys.mean(0)
        ]
        expected = torch.softmax(torch.stack(scores) - less, 0)
        torch.testing.assert_close(row, expected, atol=1e-5, rtol=1e-4)
