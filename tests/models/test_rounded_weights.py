"""Weights rounded at once give the outputs and gradients that autocast gives."""

import copy

import pytest
import torch
from torch import nn

from models import overlapped_conv, rounded_weights
from models.backbone import create_model
from models.overlapped_conv import overlap_weight_gradients
from models.rounded_weights import RoundedWeights

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Network(nn.Module):
    """Weights used once, twice and without effect, and a frozen one."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, bias=False)
        self.twice = nn.Conv2d(8, 8, 1, bias=False)
        self.unused = nn.Conv2d(8, 8, 1)
        self.frozen = nn.Conv2d(8, 8, 1).requires_grad_(False)
        self.head = nn.Linear(8, 8)

    def forward(self, images):
        x = self.twice(self.twice(self.first(images)).relu())
        return self.head(self.frozen(x).mean((2, 3)))


def one_pass(call, network, images):
    network.zero_grad()
    with torch.autocast(DEVICE, torch.bfloat16):
        outputs = call(images)
    outputs.float().square().mean().backward()
    return outputs.detach(), [parameter.grad for parameter in network.parameters()]


@pytest.mark.parametrize("overlapped", [False, True])
@pytest.mark.parametrize("build", [Network, lambda: create_model("resnet18").network])
def test_outputs_and_gradients_are_those_of_autocast(build, overlapped):
    torch.manual_seed(0)
    plain = build().to(DEVICE, memory_format=torch.channels_last)
    network = copy.deepcopy(plain)
    if overlapped:
        overlap_weight_gradients(network)
    images = torch.randn(4, 3, 32, 32, device=DEVICE).to(memory_format=torch.channels_last)
    expected, gradients = one_pass(plain, plain, images)
    found, own = one_pass(RoundedWeights(network, network, torch.bfloat16), network, images)
    assert torch.equal(found, expected)
    for gradient, other in zip(own, gradients, strict=True):
        if other is None:
            assert gradient is None
        else:
            assert gradient.dtype == torch.float32 and gradient.stride() == other.stride()
            rounding = 0 if DEVICE == "cpu" else 1e-2  # a GPU may add up in another order
            atol = rounding * other.abs().max().item()
            torch.testing.assert_close(gradient, other, rtol=rounding, atol=atol)


def test_layers_get_rounded_parameters_and_the_network_keeps_its_own():
    seen = {}
    network = Network()
    for name in ("first", "twice", "frozen", "head"):
        module = network.get_submodule(name)
        module.register_forward_hook(lambda each, *_, name=name: seen.update({name: each.weight}))
    before = {name: each.clone() for name, each in network.state_dict().items()}
    parameters = dict(network.named_parameters())
    with torch.autocast("cpu", torch.bfloat16):
        RoundedWeights(network, network, torch.bfloat16)(torch.randn(2, 3, 8, 8))
    for name in ("first", "twice", "head"):
        assert torch.equal(seen[name], before[f"{name}.weight"].bfloat16())
    assert seen["frozen"] is network.frozen.weight
    assert all(each is parameters[name] for name, each in network.named_parameters())
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())


def test_layers_outside_of_the_part_in_autocast_are_left():
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    wrapped = RoundedWeights(network, network[:1], torch.bfloat16)
    inputs, dtypes = torch.randn(2, 4), []
    for layer in network:
        layer.register_forward_pre_hook(lambda each, _: dtypes.append(each.weight.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        wrapped(inputs)
    assert dtypes == [torch.bfloat16, torch.float32, torch.float32]


def test_layers_that_share_a_weight_each_round_it():
    network = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.Conv2d(4, 4, 1, bias=False))
    network[1].weight = network[0].weight
    images = torch.randn(2, 4, 5, 5)
    _, (expected,) = one_pass(network.to(DEVICE), network, images.to(DEVICE))
    _, (found,) = one_pass(
        RoundedWeights(network, network, torch.bfloat16), network, images.to(DEVICE)
    )
    # Autocast adds both gradients up in bfloat16.
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)


def test_gradients_lie_in_memory_as_the_weights_do():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 4, 1, bias=False))
    network.to(memory_format=torch.channels_last)
    wrapped = RoundedWeights(network, network, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        wrapped(torch.randn(2, 3, 8, 8)).float().square().mean().backward()
    assert all(each.grad.stride() == each.stride() for each in network.parameters())


def test_without_trainable_convolutions_nothing_is_rounded():
    network = nn.Sequential(nn.Conv2d(3, 8, 3).requires_grad_(False), nn.Flatten(), nn.Linear(8, 2))
    with torch.autocast("cpu", torch.bfloat16):
        found = RoundedWeights(network, network, torch.bfloat16)(torch.ones(1, 3, 3, 3))
        assert torch.equal(found, network(torch.ones(1, 3, 3, 3)))


def test_gradients_of_a_second_stream_are_waited_for_and_taken_without_a_copy(monkeypatch):
    network = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 4, 1, bias=False))
    overlap_weight_gradients(network)
    events, widened, copy_all = [], [], torch._foreach_copy_

    def beside(gradient, *_):
        events.append("beside")
        return gradient()

    def noted(targets, sources):
        if targets[0].dtype == torch.float32:
            widened.extend(each.data_ptr() for each in targets)
        copy_all(targets, sources)

    monkeypatch.setattr(overlapped_conv, "is_overlapped", lambda x: True)
    monkeypatch.setattr(overlapped_conv, "beside", beside)
    monkeypatch.setattr(rounded_weights, "wait_for_weight_gradients", lambda: events.append("wait"))
    monkeypatch.setattr(torch, "_foreach_copy_", noted)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = RoundedWeights(network, network, torch.bfloat16)(torch.randn(2, 3, 8, 8))
    outputs.float().square().mean().backward()
    assert events == ["beside", "beside", "wait"]
    assert [each.grad.data_ptr() for each in network.parameters()] == widened
