"""A frozen graph gives what the networks give, or they are used themselves."""

import pytest
import torch
from torch import nn

from search.page_network import BATCH, ROUNDING, CodeOutputs, frozen, near_zero


class Head(nn.Module):
    def forward(self, images):
        return {"codes": images.flatten(1), "logits": images.sum()}


def networks(pooled=1):
    torch.manual_seed(0)
    pool = nn.AdaptiveAvgPool2d(pooled)
    layers = [nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU6(), pool, Head()]
    found = nn.Sequential(*layers)
    found(torch.randn(8, 3, 16, 16))  # statistics of its own
    return found.eval()


@pytest.mark.parametrize("pooled", [1, 2])  # of 7 x 7 to 2 x 2 oneDNN has no kernel
def test_the_graph_gives_the_networks_outputs_but_for_rounding(pooled):
    plain = networks(pooled)
    graph = frozen(plain, "codes", 16)
    assert isinstance(graph, torch.jit.ScriptModule)
    for size in range(1, BATCH + 1):
        images = torch.randn(size, 3, 16, 16)
        wanted = plain(images)["codes"]
        assert (graph(images) - wanted).abs().max() <= ROUNDING * wanted.square().mean().sqrt()


def test_the_networks_themselves_stay_as_they_are():
    plain = networks()
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    images = torch.randn(2, 3, 16, 16)
    wanted = plain(images)["codes"]
    frozen(plain, "codes", 16)
    assert all(torch.equal(tensor, before[name]) for name, tensor in plain.state_dict().items())
    assert torch.equal(plain(images)["codes"], wanted)


def test_networks_that_look_at_their_images_are_used_as_they_are():
    class Looks(nn.Module):
        def forward(self, images):
            return {"codes": images.flatten(1) * (1 if float(images[0, 0, 0, 0]) > 0 else -1)}

    assert isinstance(frozen(Looks(), "codes", 8), CodeOutputs)


def test_networks_that_cannot_be_traced_are_used_as_they_are():
    class Fails(nn.Module):
        def forward(self, images):
            if torch.jit.is_tracing():
                raise TypeError("not here")
            return {"codes": images.flatten(1)}

    assert isinstance(frozen(Fails(), "codes", 8), CodeOutputs)


def test_near_zero_is_what_rounding_might_turn():
    outputs = torch.tensor([[1.0, -2.0], [1.0, 1e-6], [0.0, 5.0], [1e-9, -1e-9], [0.0, 0.0]])
    assert near_zero(outputs).tolist() == [False, True, True, False, True]
