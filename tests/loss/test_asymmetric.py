"""ADSH's and DIHN's losses are their papers' double sums over batch and database."""

import pytest
import torch

from loss import adsh, dihn
from utils.errors import UserError

M, N, Q, B = 7, 23, 5, 4  # sample, database, bits, batch


def _problem(seed=0):
    torch.manual_seed(seed)
    v = torch.randint(0, 2, (N, Q)).float() * 2 - 1
    s = torch.where(torch.rand(M, N) < 0.3, 1.0, -0.4)
    omega = torch.randperm(N)[:M]
    learned = torch.rand(M) < 0.6
    places = torch.randperm(M)[:B]
    return v, s, omega, learned, torch.tanh(torch.randn(B, Q)), places


def _told(loss, v, s, omega, learned):
    loss.set_sample(
        gram=v.T @ v,
        similar_sum=s @ v,
        squares=s.square().sum(1),
        own=v[omega],
        learned=learned,
        database=N,
    )
    return loss


def _plain(u, places, v, s, omega, learned, gamma):
    total = 0.0
    for code, i in zip(u, places.tolist(), strict=True):
        for j in range(N):
            total += float(code @ v[j] - Q * s[i, j]) ** 2
        if learned[i]:
            total += gamma * float(((v[omega[i]] - code) ** 2).sum())
    return total / (B * N)


@pytest.mark.parametrize("gamma", [0.0, 200.0])
def test_adsh_is_the_mean_over_pairs_by_a_plain_loop(gamma):
    v, s, omega, learned, u, places = _problem()
    loss = _told(adsh.create_loss(Q, samples=M + 3, gamma=gamma), v, s, omega, learned)
    expected = _plain(u, places, v, s, omega, learned, gamma)
    assert float(loss(u, places)) == pytest.approx(expected, rel=1e-5)


def test_dihn_adds_the_balance_of_the_bits_over_a_batch_that_is_the_sample():
    v, s, omega, learned, _, _ = _problem(1)
    u, places = torch.tanh(torch.randn(M, Q)), torch.arange(M)
    loss = _told(dihn.create_loss(Q, samples=M, gamma=3.0, mu=50.0), v, s, omega, learned)
    pairs = _plain(u, places, v, s, omega, learned, 3.0) * B / M
    sums = [sum(float(code[k]) for code in u) for k in range(Q)]
    expected = pairs + 50.0 * sum(each**2 for each in sums) / (M * N)
    assert float(loss(u, places)) == pytest.approx(expected, rel=1e-5)


def test_the_gradient_is_that_of_the_dense_loss():
    v, s, omega, learned, u, places = _problem(2)
    loss = _told(adsh.create_loss(Q, samples=M, gamma=10.0), v, s, omega, learned)
    u.requires_grad_()
    (found,) = torch.autograd.grad(loss(u, places), u)
    errors = (u @ v.T - Q * s[places]).square().sum(1)
    anchored = 10.0 * learned[places] * (v[omega[places]] - u).square().sum(1)
    (expected,) = torch.autograd.grad((errors + anchored).sum() / (B * N), u)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_new_sample_is_stated_in_place_for_captured_steps():
    v, s, omega, learned, u, places = _problem(3)
    loss = dihn.create_loss(Q, samples=M)
    before = {name: buffer.data_ptr() for name, buffer in loss.named_buffers()}
    _told(loss, v, s, omega, learned)
    assert {name: buffer.data_ptr() for name, buffer in loss.named_buffers()} == before
    first = loss(u, places)
    assert loss(u, places) == first
    assert _told(loss, -v, s, omega, learned)(u, places) != first
    assert not loss.state_dict()


@pytest.mark.parametrize("gamma", [-1.0, float("nan"), float("inf")])
def test_weights_that_are_none_are_refused(gamma):
    with pytest.raises(UserError, match="gamma"):
        adsh.create_loss(4, 8, gamma=gamma)
    with pytest.raises(UserError, match="mu"):
        dihn.create_loss(4, 8, mu=gamma)
