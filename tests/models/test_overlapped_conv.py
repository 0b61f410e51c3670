from contextlib import contextmanager

import pytest
import torch
from torch import nn

from models import overlapped_conv
from models.depthwise_conv import DepthwiseConv2d, replace_depthwise_convs
from models.overlapped_conv import OverlappedConv2d, overlap_weight_gradients

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(16, 32, 1, bias=False),
        nn.Conv2d(32, 32, 5, padding=2, groups=32, bias=False),
        nn.ReLU(),
        nn.Conv2d(32, 16, 3, padding=2, dilation=2, groups=4, bias=False),
    ).to(memory_format=torch.channels_last)


def gradients(model, images, autocast=False):
    for parameter in model.parameters():
        parameter.grad = None
    images = images.clone().requires_grad_()
    with torch.autocast(images.device.type, torch.bfloat16, enabled=autocast):
        loss = model(images).float().square().mean()
    loss.backward()
    return [images.grad, *(parameter.grad for parameter in model.parameters())]


class Stream:
    """Stands for a CUDA stream: notes what waits for it and what is computed on it."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def wait_stream(self, other):
        self.log.append(f"{self.name} waits for {other.name}")


@pytest.fixture
def log(monkeypatch):
    """The overlapped path taken on the CPU, and its streams' events in their order."""
    events = []
    first, second = Stream("first", events), Stream("second", events)

    @contextmanager
    def on(stream):
        events.append(f"on {stream.name}")
        yield

    monkeypatch.setattr(overlapped_conv, "is_overlapped", lambda x: True)
    monkeypatch.setattr(overlapped_conv, "stream_for", lambda device, purpose: second)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: first)
    monkeypatch.setattr(torch.cuda, "stream", on)
    return events


FORK, JOIN = ["second waits for first", "on second"], "first waits for second"


@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_are_those_of_plain_convolutions(log, autocast):
    images = torch.randn(4, 3, 17, 19).contiguous(memory_format=torch.channels_last)
    expected = gradients(network(), images, autocast)
    assert not log
    model = network()
    assert overlap_weight_gradients(model) == 4
    found = gradients(model, images, autocast)
    assert log[:8] == 4 * FORK
    for own, reference in zip(found, expected, strict=True):
        assert torch.equal(own, reference)


@pytest.mark.parametrize("fails", [False, True])
def test_every_backward_pass_ends_with_a_join_also_after_one_that_failed(log, fails):
    model, images = network(), torch.randn(2, 3, 16, 16)
    overlap_weight_gradients(model)
    if fails:
        hook = model[1].register_full_backward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            gradients(model, images)
        hook.remove()
    gradients(model, images)
    assert log[-1] == JOIN and not overlapped_conv._under_way


def test_autograd_takes_the_gradients_as_they_are_without_a_copy(log, monkeypatch):
    model, places = network(), []
    overlap_weight_gradients(model)
    beside = overlapped_conv.beside

    def noted(*inputs):
        result = beside(*inputs)
        places.append(result.data_ptr())
        return result

    monkeypatch.setattr(overlapped_conv, "beside", noted)
    found = gradients(model, torch.randn(4, 3, 17, 19), autocast=True)
    assert [each.data_ptr() for each in found[1:]] == places[::-1] and len(places) == 4


def test_a_weight_used_twice_is_added_up_after_the_join(log):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
    model, images = nn.Sequential(conv, nn.ReLU(), conv, nn.ReLU(), conv), torch.randn(2, 3, 8, 8)
    expected = gradients(model, images)
    assert overlap_weight_gradients(model) == 1
    found = gradients(model, images)
    assert log[:4] == [*FORK, JOIN, JOIN] and log.count("on second") == 1
    assert all(map(torch.equal, found, expected))


def test_a_gradient_that_is_there_is_added_to_on_the_first_stream(log):
    model, images = network(), torch.randn(2, 3, 16, 16)
    overlap_weight_gradients(model)
    once = [each.clone() for each in gradients(model, images)[1:]]
    log.clear()
    model(images).float().square().mean().backward()
    assert not log  # nor is a second stream waited for that has no part in it
    for parameter, gradient in zip(model.parameters(), once, strict=True):
        torch.testing.assert_close(parameter.grad, 2 * gradient)


def test_what_a_gradient_is_made_from_stays_as_it_is_until_the_join(log, monkeypatch):
    """The gradient of a sum goes to both terms as one tensor, to which autograd adds in place."""
    conv, before, after = nn.Conv2d(3, 3, 1, bias=False), [], []
    overlap_weight_gradients(conv)
    beside, finish = overlapped_conv.beside, overlapped_conv._finish

    def noted(gradient, weight, *inputs):
        before.extend(each.clone() for each in inputs)
        return beside(gradient, weight, *inputs)

    def noted_finish():
        for _, *inputs in overlapped_conv._under_way[torch.device("cpu")]:
            after.extend(each.clone() for each in inputs)
        finish()

    monkeypatch.setattr(overlapped_conv, "beside", noted)
    monkeypatch.setattr(overlapped_conv, "_finish", noted_finish)
    x = torch.randn(2, 3, 4, 4, requires_grad=True) * 1
    (conv(x) + x).sin().sum().backward()
    assert len(after) == 2
    assert all(map(torch.equal, before, after))


def test_frozen_weights_are_left_and_the_gradient_goes_on(log):
    model, images = network(), torch.randn(2, 3, 16, 16)
    model[2].weight.requires_grad_(False)
    expected = gradients(model, images)
    overlap_weight_gradients(model)
    found = gradients(model, images)
    assert log.count("on second") == 3 and found[2] is None
    assert all(a is b or torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_parameters_and_keys_stay_and_biased_or_derived_layers_are_left():
    class Derived(nn.Conv2d):
        pass

    model = nn.Sequential(
        nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(4, 4, 1), Derived(4, 4, 1, bias=False)
    )
    before = dict(model.named_parameters())
    assert overlap_weight_gradients(model) == 1
    assert [type(each) for each in model] == [OverlappedConv2d, nn.Conv2d, Derived]
    assert all(value is before[name] for name, value in model.named_parameters())


def test_depthwise_layers_are_switched():
    model = nn.Sequential(DepthwiseConv2d(8, 3), nn.Conv2d(8, 8, 1, bias=False))
    assert overlap_weight_gradients(model) == 2 and model[0].overlap


def test_evaluation_and_the_cpu_are_as_ever():
    model, images = network(), torch.randn(2, 3, 16, 16)
    expected = model(images)
    overlap_weight_gradients(model)
    assert torch.equal(model(images), expected)
    with torch.no_grad():
        assert torch.equal(model(images), expected)


@needs_gpu
@pytest.mark.parametrize("captured", [False, True])
def test_on_a_gpu_every_step_has_the_gradients_of_plain_convolutions(captured):
    plain, model = network().cuda(), network().cuda()
    replace_depthwise_convs(model)
    assert overlap_weight_gradients(model) == 4
    batches = [torch.randn(16, 3, 64, 64, device="cuda") for _ in range(8)]
    batches = [each.contiguous(memory_format=torch.channels_last) for each in batches]
    images = batches[0].clone()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            found = gradients(model, images, autocast=True)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    if captured:
        with torch.cuda.graph(graph, stream=stream):
            found = gradients(model, images, autocast=True)
    for batch in batches:
        images.copy_(batch)
        if captured:
            graph.replay()
        else:
            found = gradients(model, images, autocast=True)
        for own, reference in zip(found, gradients(plain, batch, autocast=True), strict=True):
            assert torch.allclose(own, reference, rtol=2e-2, atol=2e-2 * reference.abs().max())
