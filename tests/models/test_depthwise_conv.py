"""Depthwise layers compute what the layers they replace compute, by PyTorch's and own kernels."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from timm.layers import Conv2dSame
from torch import nn
from triton_kernels import DEVICE, needs_gpu, needs_kernels, run_in_the_interpreter

from models import batch_norm_function, depthwise_conv, depthwise_conv_function
from models.depthwise_conv import DepthwiseConv2d, replace_depthwise_convs
from models.fused_batch_norm import fuse_batch_norms
from utils import optional_triton


def efficientnet():
    return timm.create_model("tf_efficientnet_lite0", num_classes=0)


def mobilenet():
    return torchvision.models.mobilenet_v2(num_classes=10)


networks = pytest.mark.parametrize(("build", "count"), [(efficientnet, 16), (mobilenet, 17)])


@networks
def test_a_network_computes_the_same_bits_on_the_cpu(build, count):
    torch.manual_seed(0)
    model = build().eval()
    replaced = copy.deepcopy(model)
    assert replace_depthwise_convs(replaced) == count
    for size in (64, 75):
        images = torch.randn(2, 3, size, size)
        results = []
        for network in (model, replaced):
            network.zero_grad()
            outputs = network(images)
            (outputs**2).mean().backward()
            gradients = [parameter.grad for parameter in network.parameters()]
            results.append([outputs.detach(), *gradients])
        assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


@networks
def test_a_network_keeps_parameters_keys_and_modes(build, count):
    model = build()
    convs = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.groups > 1}
    assert len(convs) == count
    for number, module in enumerate(convs.values()):
        module.train(number % 2 == 0).requires_grad_(number % 3 == 0)
    before = list(model.named_parameters())
    keys = list(model.state_dict())
    replace_depthwise_convs(model)
    for (name, parameter), (new_name, new) in zip(before, model.named_parameters(), strict=True):
        assert name == new_name
        assert parameter is new
    assert list(model.state_dict()) == keys
    for name, module in convs.items():
        replaced = model.get_submodule(name)
        assert type(replaced) is DepthwiseConv2d
        assert replaced.training == module.training
        assert replaced.weight.device.type == "cpu"


def test_other_layers_are_left():
    class Own(nn.Conv2d):
        pass

    hooked = nn.Conv2d(4, 4, 3, groups=4, bias=False)
    hooked.register_forward_hook(lambda *_: None)
    depthwise = {"groups": 4, "bias": False}
    left = [
        Own(4, 4, 3, **depthwise),
        hooked,
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 8, 3, **depthwise),
        nn.Conv2d(4, 4, 3, groups=2, bias=False),
        nn.Conv2d(1, 1, 3, bias=False),
        nn.Conv2d(4, 4, 2, **depthwise),
        nn.Conv2d(4, 4, 9, **depthwise),
        nn.Conv2d(4, 4, (3, 5), **depthwise),
        nn.Conv2d(4, 4, 3, stride=3, **depthwise),
        nn.Conv2d(4, 4, 3, stride=(1, 2), **depthwise),
        nn.Conv2d(4, 4, 3, dilation=2, **depthwise),
        nn.Conv2d(4, 4, 3, padding="same", **depthwise),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect", **depthwise),
    ]
    model = nn.Sequential(*left)
    assert replace_depthwise_convs(model) == 0
    assert list(model) == left
    assert replace_depthwise_convs(nn.Conv2d(4, 4, 3, **depthwise)) == 0


def test_a_layer_in_two_places_stays_one():
    conv = nn.Conv2d(4, 4, 3, padding=(1, 0), groups=4, bias=False)
    model = nn.Sequential(conv, nn.ReLU(), conv)
    images = torch.randn(2, 4, 6, 9)
    expected = copy.deepcopy(model)(images)
    assert replace_depthwise_convs(model) == 1
    assert model[0] is model[2]
    assert torch.equal(model(images), expected)


def test_without_triton_the_layer_works(monkeypatch):
    monkeypatch.setattr(optional_triton, "triton", None)
    monkeypatch.setattr(optional_triton, "DEVICE", DEVICE)
    layer = DepthwiseConv2d(4, 5, 2, same=True).to(DEVICE)
    other = Conv2dSame(4, 4, 5, 2, groups=4, bias=False).to(DEVICE)
    other.load_state_dict(layer.state_dict())
    images = torch.randn(2, 4, 7, 8, device=DEVICE)
    assert torch.equal(layer(images), other(images))


def test_in_the_interpreter():
    run_in_the_interpreter(__file__)


@pytest.fixture
def kernels(monkeypatch):
    """The layer's own kernels on the device of the tests, and no others."""

    def never(*_, **__):
        raise AssertionError("PyTorch's convolution was called")

    monkeypatch.setattr(optional_triton, "DEVICE", DEVICE)
    monkeypatch.setattr(nn.Conv2d, "forward", never)
    monkeypatch.setattr(depthwise_conv, "F", None)
    return monkeypatch


def make_images(shape, dtype):
    return torch.randn(shape).to(dtype).to(memory_format=torch.channels_last)


def make_layer(channels, kernel, stride, padding):
    """A layer with 'same' padding or (rows, columns) of it."""
    same = padding == "same"
    return DepthwiseConv2d(channels, kernel, stride, (0, 0) if same else padding, same)


def expected_pass(layer, x, dy_like, dtype):
    """Output and gradients in float64, of images padded as timm's own layer pads them."""
    x = x.double().requires_grad_()
    weight = layer.weight.detach().to(dtype).double().requires_grad_()
    if layer.same:
        other = Conv2dSame(
            *weight.shape[:1] * 2, layer.kernel_size, layer.stride, groups=len(weight)
        )
        y = torch.func.functional_call(
            other, {"weight": weight, "bias": torch.zeros(len(weight)).double()}, x
        )
    else:
        y = F.conv2d(x, weight, None, layer.stride, layer.padding, 1, len(weight))
    dy = dy_like(y.shape)
    return dy, [y.detach(), *torch.autograd.grad(y, [x, weight], dy.double())]


def actual_pass(layer, x, dy):
    layer = copy.deepcopy(layer).to(DEVICE)
    x = x.to(DEVICE).requires_grad_()
    y = layer(x)
    y.backward(dy.to(DEVICE))
    assert y.dtype == x.grad.dtype == x.dtype
    assert layer.weight.grad.dtype == layer.weight.dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert x.grad.is_contiguous(memory_format=torch.channels_last)
    return [y.detach(), x.grad, layer.weight.grad]


def assert_near(actual, expected, dtypes):
    for left, right, dtype in zip(actual, expected, dtypes, strict=True):
        # Triton's interpreter cuts bfloat16 off, a GPU rounds: twice the error.
        tolerance = max(torch.finfo(dtype).eps, 1e-5)
        scale = right.abs().max().item()
        torch.testing.assert_close(
            left.cpu().double(), right, rtol=tolerance, atol=1e-5 * scale + 1e-6
        )


# (height, width): single pixels, a plane smaller than a kernel, odd and even ones.
CASES = [
    ((2, 3, 7, 7), 3, 1, (1, 1)),
    ((1, 24, 14, 14), 3, 1, (1, 1)),
    ((2, 40, 7, 9), 5, 1, (2, 2)),
    ((1, 144, 4, 14), 5, 1, (2, 2)),
    ((3, 24, 1, 1), 5, 1, (2, 2)),
    ((2, 16, 6, 11), 7, 1, (3, 3)),
    ((2, 24, 8, 8), 3, 1, (0, 2)),
    ((2, 5, 6, 6), 3, 1, (4, 3)),
    ((2, 8, 5, 6), 1, 1, (0, 0)),
    ((2, 24, 14, 13), 3, 2, (1, 1)),
    ((2, 3, 9, 8), 5, 2, (2, 2)),
    ((2, 40, 8, 7), 7, 2, (3, 3)),
    ((2, 24, 9, 10), 3, 2, (0, 3)),
    ((1, 8, 5, 6), 1, 2, (0, 0)),
    ((2, 144, 7, 7), 3, 2, "same"),
    ((1, 40, 14, 14), 3, 2, "same"),
    ((2, 24, 14, 7), 5, 2, "same"),
    ((2, 24, 1, 1), 5, 2, "same"),
    ((2, 3, 2, 1), 3, 2, "same"),
    ((2, 40, 9, 5), 5, 1, "same"),
]


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("shape", "kernel", "stride", "padding"), CASES)
def test_kernels_convolve(kernels, shape, kernel, stride, padding, dtype):
    torch.manual_seed(0)
    layer = make_layer(shape[1], kernel, stride, padding).to(dtype)
    x = make_images(shape, dtype)
    kernels.setattr(depthwise_conv, "F", F)
    dy, expected = expected_pass(layer, x, lambda size: make_images(size, dtype), dtype)
    kernels.setattr(depthwise_conv, "F", None)
    assert_near(actual_pass(layer, x, dy), expected, [dtype] * 3)


@needs_kernels
@pytest.mark.parametrize("stride", [1, 2])
def test_kernels_round_under_autocast_but_not_the_weight_s_gradient(kernels, stride):
    torch.manual_seed(0)
    half = torch.bfloat16
    layer = make_layer(24, 3, stride, (1, 1))
    x = make_images((2, 24, 7, 8), half).float()
    dy, expected = expected_pass(layer, x, lambda size: make_images(size, half), half)
    for images in (x, x.to(half)):
        images = images.to(DEVICE).requires_grad_()
        own = copy.deepcopy(layer).to(DEVICE)
        with torch.autocast(DEVICE, half):
            y = own(images)
        assert y.dtype == half
        y.backward(dy.to(DEVICE))
        assert images.grad.dtype == images.dtype
        actual = [y.detach(), images.grad, own.weight.grad]
        assert_near(actual, expected, [half, half, torch.float32])


@needs_kernels
@pytest.mark.parametrize(("programs", "columns"), [(1, (4,)), (5, (1, 5)), (5000, (2,))])
def test_kernels_compute_the_same_in_other_stripes_and_spans(kernels, programs, columns):
    sizes = {
        "REDUCE_PROGRAMS": programs,
        "COLUMNS": columns,
        "CELLS": 3,
        "WARPS": 1,
        "REDUCED_COLUMNS": 3,
    }
    for name, value in (sizes | {"COMBINED_STRIPES": 4, "COMBINED_SUMS": 16}).items():
        kernels.setattr(depthwise_conv_function, name, value)
    torch.manual_seed(0)
    for stride in (1, 2):
        layer = make_layer(40, 3, stride, (1, 1))
        x = make_images((3, 40, 6, 9), torch.float32)
        dy, expected = expected_pass(
            layer, x, lambda size: make_images(size, torch.float32), torch.float32
        )
        assert_near(actual_pass(layer, x, dy), expected, [torch.float32] * 3)


@needs_kernels
def test_kernels_give_only_the_gradients_that_are_asked_for(kernels):
    layer = make_layer(24, 3, 2, "same").to(DEVICE)
    x = make_images((2, 24, 6, 6), torch.float32).to(DEVICE)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    layer.requires_grad_(False).weight.grad = None
    layer(x.requires_grad_()).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is None
    with torch.no_grad():
        assert not layer(x).requires_grad


@needs_kernels
def test_kernels_take_gradients_of_any_layout(kernels):
    torch.manual_seed(0)
    layer = make_layer(24, 3, 2, "same")
    x = make_images((2, 24, 8, 8), torch.float32)
    ones = torch.ones(2, 24, 4, 4)
    expected = actual_pass(layer, x, ones.to(memory_format=torch.channels_last))
    for dy in (ones, torch.ones(1).expand(2, 24, 4, 4)):
        assert all(map(torch.equal, actual_pass(layer, x, dy), expected))


@needs_kernels
def test_other_layouts_and_dtypes_than_the_kernels_fall_back(kernels):
    layer = make_layer(24, 3, 1, (1, 1)).to(DEVICE)
    plane = torch.randn(2, 24, 8, 8, device=DEVICE)
    for x in (plane, plane.double().to(memory_format=torch.channels_last), plane[:0], plane[0]):
        with pytest.raises(AssertionError, match="PyTorch's convolution"):
            layer(x)


def layer_pass(module, x, dy):
    x = x.detach().requires_grad_()
    with torch.autocast(DEVICE, torch.bfloat16):
        y = module(x)
    return [y.detach(), *torch.autograd.grad(y, [x, module.weight], dy)]


@needs_gpu
@pytest.mark.parametrize(
    ("shape", "kernel", "stride"),
    [((16, 96, 56, 56), 3, 2), ((32, 480, 14, 14), 5, 1), ((64, 1152, 7, 7), 3, 1)],
)
def test_a_gpu_s_results_are_pytorch_s(shape, kernel, stride):
    torch.manual_seed(0)
    padding = "same" if stride == 2 else (kernel // 2, kernel // 2)
    layer = make_layer(shape[1], kernel, stride, padding).to(DEVICE)
    x = make_images(shape, torch.bfloat16).to(DEVICE)
    dy = make_images((*shape[:2], *(each // stride for each in shape[2:])), x.dtype).to(DEVICE)
    actual = layer_pass(layer, x, dy)
    optional_triton.DEVICE, device = "none", optional_triton.DEVICE
    try:
        expected = layer_pass(layer, x, dy)
    finally:
        optional_triton.DEVICE = device
    for left, right in zip(actual, expected, strict=True):
        assert left.dtype == right.dtype
        error = (left.double() - right.double()).norm() / right.double().norm()
        assert error < 4e-3  # bfloat16's rounding


@needs_gpu
def test_a_gpu_s_results_are_the_same_bits_in_every_run_and_in_a_graph():
    torch.manual_seed(0)
    layers = (make_layer(40, 5, 1, (2, 2)), make_layer(40, 3, 2, "same"))
    model = nn.Sequential(*layers).to(DEVICE, torch.bfloat16)
    x = make_images((16, 40, 50, 50), torch.bfloat16).to(DEVICE).requires_grad_()
    dy = make_images((16, 40, 25, 25), torch.bfloat16).to(DEVICE)

    def run():
        y = model(x)
        return [y, *torch.autograd.grad(y, [x, *model.parameters()], dy)]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        first, second = run(), run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        third = run()
    graph.replay()
    torch.cuda.synchronize()
    assert all(map(torch.equal, first, second))
    assert all(map(torch.equal, first, third))


@needs_gpu
def test_early_launches_in_a_graph_change_no_bit(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)  # its sums are in any order

    def gradients():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 32, 1), nn.BatchNorm2d(32), nn.ReLU6())
        for _ in range(4):
            conv = nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False)
            model.extend([conv, nn.BatchNorm2d(32), nn.ReLU6()])
        fuse_batch_norms(model)
        replace_depthwise_convs(model)
        model.to(DEVICE, memory_format=torch.channels_last)
        images = torch.randn(4, 3, 20, 20, device=DEVICE).to(memory_format=torch.channels_last)

        def run():
            model.zero_grad()
            (model(images) ** 2).mean().backward()

        stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        with torch.cuda.stream(stream):
            run()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, stream=stream):
            run()
        for _ in range(20):
            graph.replay()
        torch.cuda.synchronize()
        return [each.grad.clone() for each in model.parameters()]

    found = gradients()
    for module in (depthwise_conv_function, batch_norm_function):
        monkeypatch.setattr(module, "early_launch", lambda device: {"early": False})
    assert all(torch.equal(*pair) for pair in zip(found, gradients(), strict=True))
