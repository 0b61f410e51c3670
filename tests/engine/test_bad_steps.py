"""Which steps are left out, and that they leave no trace."""

import math

import pytest
import torch
from torch import nn

from engine.bad_steps import BadSteps


def _parts():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    return network, BadSteps(network)


def _losses(network, factor):
    loss = network(torch.randn(8, 3)).square().mean() * factor
    loss.backward()
    return {"a": torch.tensor(1.0), "b": loss}


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_found_and_batch_statistics_are_as_before(factor):
    network, bad_steps = _parts()
    before = [buffer.clone() for buffer in network.buffers()]
    bad_steps.remember()
    assert bad_steps.is_bad(_losses(network, factor))
    assert all(torch.equal(a, b) for a, b in zip(before, network.buffers(), strict=True))


def test_a_gradient_that_is_not_finite_is_found_though_the_loss_is():
    network, bad_steps = _parts()
    bad_steps.remember()
    losses = _losses(network, 1.0)
    assert not bad_steps.is_bad(losses)
    network[0].weight.grad[1, 2] = math.inf
    assert bad_steps.is_bad(losses)


def test_a_good_step_keeps_its_statistics():
    network, bad_steps = _parts()
    before = network[1].running_mean.clone()
    bad_steps.remember()
    assert not bad_steps.is_bad(_losses(network, 1.0))
    assert not torch.equal(before, network[1].running_mean)
