import pytest
import torch

from loss import quantization


def test_loss_equals_a_loop_over_images_and_bits():
    codes = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    total = sum((abs(value) - 1) ** 2 for row in codes.tolist() for value in row)
    assert quantization.create_loss()(codes).item() == pytest.approx(total / 48, rel=1e-5)


def test_binary_codes_lose_nothing():
    codes = torch.tensor([[1.0, -1.0, -1.0], [-1.0, 1.0, 1.0]])
    assert quantization.create_loss()(codes) == 0


def test_gradient_pulls_each_bit_towards_its_own_sign():
    codes = torch.tensor([[0.4, -0.4, 1.6, -1.6]], requires_grad=True)
    quantization.create_loss()(codes).backward()
    assert (-codes.grad).sign().tolist() == [[1, -1, -1, 1]]


def test_gradients_are_finite_for_zero_and_large_codes():
    codes = torch.tensor([[0.0, 1e6, -1e6]], requires_grad=True)
    quantization.create_loss()(codes).backward()
    assert torch.isfinite(codes.grad).all()
