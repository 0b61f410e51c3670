"""Fused layers compute what the layers they replace compute, by PyTorch's and by own kernels."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from timm.layers import BatchNormAct2d
from torch import nn
from triton_kernels import DEVICE, INTERPRETED, needs_gpu, needs_kernels, run_in_the_interpreter

from models import batch_norm_function
from models.fused_batch_norm import FusedBatchNorm2d, fuse_batch_norms
from utils import optional_triton

ACTIVATIONS = [None, "relu", "relu6"]


def small_network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Sequential(nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12), nn.ReLU6()),
        nn.Sequential(),
        nn.BatchNorm2d(12, momentum=None),
        nn.Conv2d(12, 8, 1),
        nn.BatchNorm2d(8, affine=False),
        nn.Hardswish(),
        BatchNormAct2d(8, apply_act=False),
        nn.BatchNorm2d(8, track_running_stats=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def efficientnet():
    return timm.create_model("tf_efficientnet_lite0", num_classes=0)


def resnet():
    return torchvision.models.resnet18(num_classes=10)


NETWORKS = [(small_network, 6, 16), (efficientnet, 49, 64), (resnet, 20, 64)]
networks = pytest.mark.parametrize(("build", "count", "size"), NETWORKS)


def one_step(model, images):
    """Outputs, gradients and buffers of a pass in training mode, and outputs in evaluation."""
    model.train().zero_grad()
    outputs = model(images)
    (outputs.float() ** 2).mean().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    buffers = [buffer.clone() for buffer in model.buffers()]
    with torch.no_grad():
        return [outputs.detach(), *gradients, *buffers, model.eval()(images)]


@networks
def test_a_fused_network_computes_the_same_bits_on_the_cpu(build, count, size):
    torch.manual_seed(0)
    model = build()
    fused = copy.deepcopy(model)
    assert fuse_batch_norms(fused) == count
    images = torch.randn(3, 3, size, size)
    expected, actual = one_step(model, images), one_step(fused, images)
    assert len(expected) == len(actual)
    assert all(torch.equal(*pair) for pair in zip(expected, actual, strict=True))


@networks
def test_a_fused_network_keeps_parameters_keys_and_modes(build, count, size):
    model = build()
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train("1" in name)
            if module.affine:
                module.weight.requires_grad_("2" in name)
    before = copy.deepcopy(model).state_dict()
    norms = {n: m.training for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    tensors = [*model.named_parameters(), *model.named_buffers()]
    frozen = [parameter.requires_grad for parameter in model.parameters()]
    fuse_batch_norms(model)
    after = [*model.named_parameters(), *model.named_buffers()]
    for (name, tensor), (new_name, new_tensor) in zip(tensors, after, strict=True):
        assert name == new_name
        assert tensor is new_tensor
    assert list(model.state_dict()) == list(before)
    assert [parameter.requires_grad for parameter in model.parameters()] == frozen
    assert {name: model.get_submodule(name).training for name in norms} == norms
    assert all(type(model.get_submodule(name)) is FusedBatchNorm2d for name in norms)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.zero_()
    model.load_state_dict(before)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_activations_are_fused_where_they_follow_at_once():
    model = small_network()
    fuse_batch_norms(model)
    kinds = [getattr(module, "activation", type(module).__name__) for module in model]
    assert kinds[1:4] == ["relu", "Identity", "Sequential"]
    assert [type(module).__name__ for module in model[3]][1:] == ["FusedBatchNorm2d", "Identity"]
    assert model[3][1].activation == "relu6"
    assert kinds[7:11] == [None, "Hardswish", None, None]
    timm_model = efficientnet()
    fuse_batch_norms(timm_model)
    assert timm_model.bn1.activation == "relu6"
    assert timm_model.blocks[1][0].bn3.activation is None


def test_other_layers_are_left():
    class Own(nn.BatchNorm2d):
        pass

    hooked = nn.BatchNorm2d(4)
    hooked.register_forward_hook(lambda *_: None)
    drop = BatchNormAct2d(4, drop_layer=nn.Dropout)
    left = [nn.SyncBatchNorm(4), Own(4), hooked, drop, BatchNormAct2d(4, act_layer=nn.SiLU)]
    model = nn.Sequential(*left, nn.BatchNorm1d(4))
    assert fuse_batch_norms(model) == 0
    assert list(model)[: len(left)] == left
    assert fuse_batch_norms(nn.BatchNorm2d(4)) == 0


def test_a_layer_in_two_places_stays_one_and_keeps_its_activation_apart():
    norm = nn.BatchNorm2d(3)
    model = nn.Sequential(norm, nn.ReLU(), norm)
    images = torch.randn(2, 3, 4, 4)
    expected = copy.deepcopy(model)(images)
    assert fuse_batch_norms(model) == 1
    assert model[0] is model[2]
    assert type(model[1]) is nn.ReLU
    assert torch.equal(model(images), expected)


def test_without_triton_the_layer_works(monkeypatch):
    monkeypatch.setattr(optional_triton, "triton", None)
    monkeypatch.setattr(optional_triton, "DEVICE", DEVICE)
    layer = FusedBatchNorm2d(3, activation="relu6").to(DEVICE)
    images = torch.randn(2, 3, 4, 4, device=DEVICE)
    expected = F.relu6(nn.BatchNorm2d(3).to(DEVICE)(images))
    assert torch.equal(layer(images), expected)


def test_in_the_interpreter():
    run_in_the_interpreter(__file__)


@pytest.fixture(params=["whole", "stripes"])
def kernels(monkeypatch, request):
    """The layer's own kernels on the device of the tests, and no others.

    Those whose programs hold all rows, where they can, and those that never do.
    """

    def never(*_):
        raise AssertionError("PyTorch's batch normalisation was called")

    if request.param == "stripes":
        monkeypatch.setattr(batch_norm_function, "WHOLE", ())
    monkeypatch.setattr(optional_triton, "DEVICE", DEVICE)
    monkeypatch.setattr(nn.BatchNorm2d, "forward", never)
    return monkeypatch


def make_layer(channels, activation):
    layer = FusedBatchNorm2d(channels, momentum=0.3, eps=1e-3, activation=activation)
    with torch.no_grad():
        layer.weight.uniform_(-1, 4)
        layer.bias.uniform_(-1, 4)
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2)
    return layer


def make_images(shape, dtype, mean=0.5, std=2.0):
    images = torch.randn(shape) * std + mean + torch.randn(1, shape[1], 1, 1)
    return images.to(dtype).to(memory_format=torch.channels_last)


def round_to(values, dtype):
    if INTERPRETED and dtype == torch.bfloat16:  # Triton's interpreter cuts off, a GPU rounds
        return (values.float().view(torch.int32) & -65536).view(torch.float32).double()
    return values.to(dtype).double()


def expected_pass(layer, x, dy, shortcut=0):
    """Output, gradients and running statistics, in float64 but for the activation's input.

    Also returns dy, without the entries so near to a threshold that float32 may decide otherwise.
    A shortcut's own gradient, which is that of the activation's input, comes last.
    """
    x = x.double().requires_grad_()
    weight = layer.weight.detach().double().requires_grad_()
    bias = layer.bias.detach().double().requires_grad_()
    running = [layer.running_mean.double(), layer.running_var.double()]
    z = F.batch_norm(x, *running, weight, bias, layer.training, layer.momentum, layer.eps)
    added = torch.is_tensor(shortcut)
    z = z + shortcut
    rounded = round_to(z.detach(), dy.dtype)
    below, above = {None: (None, None), "relu": (0, None), "relu6": (0, 6)}[layer.activation]
    passes = torch.ones_like(z, dtype=torch.bool)
    output = rounded
    for limit, inner in ((below, 1), (above, -1)):
        if limit is not None:
            passes &= (rounded - limit) * inner > 0
            output = output.clamp(**{"min" if inner == 1 else "max": limit})
    near = sum((z.detach() - limit).abs() < 1e-3 for limit in (0, 6, 6 - 2**-6, 6 - 2**-9)) > 0
    dy = dy.masked_fill(near, 0)
    gradients = torch.autograd.grad(z, [x, weight, bias], dy.double() * passes)
    last = [dy.double() * passes] if added else []
    return dy, [output, *gradients, *running, *last]


def actual_pass(layer, x, dy, shortcut=None):
    layer = copy.deepcopy(layer).to(DEVICE)
    x = x.to(DEVICE).requires_grad_()
    if shortcut is not None:
        shortcut = shortcut.to(DEVICE).requires_grad_()
    z = layer(x, shortcut)
    z.backward(dy.to(DEVICE))
    assert z.dtype == x.grad.dtype == x.dtype
    assert z.stride() == x.grad.stride() == x.stride()
    assert layer.num_batches_tracked == int(layer.training)
    gradients = [x.grad, layer.weight.grad, layer.bias.grad]
    last = [] if shortcut is None else [shortcut.grad]
    return [z.detach(), *gradients, layer.running_mean, layer.running_var, *last]


def assert_near(actual, expected, dtype):
    rounding = torch.finfo(dtype).eps
    for index, (left, right) in enumerate(zip(actual, expected, strict=True)):
        tolerance = max(rounding, 1e-4) if index < 2 else 1e-4
        scale = max(right.abs().max().item(), 1e-3)
        torch.testing.assert_close(
            left.cpu().double(),
            right,
            rtol=tolerance,
            atol=2e-4 * scale,
            msg=lambda m, i=index: f"{i}: {m}",
        )


def compare(layer, shape, dtype, with_shortcut=False):
    x, dy, shortcut = (make_images(shape, dtype) for _ in range(3))
    shortcuts = (shortcut,) if with_shortcut else ()
    dy, expected = expected_pass(layer, x, dy, *shortcuts)
    assert_near(actual_pass(layer, x, dy, *shortcuts), expected, dtype)


CASES = [(torch.bfloat16, activation) for activation in ACTIVATIONS] + [(torch.float32, "relu6")]
SHAPES = [
    (2, 3, 5, 7),
    (4, 24, 6, 6),
    (3, 65, 4, 5),
    (2, 1280, 3, 3),
    (2, 8, 1, 1),
    (3, 16, 20, 20),
]


@needs_kernels
@pytest.mark.parametrize("with_shortcut", [False, True])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("dtype", "activation"), CASES)
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_compute_batch_norm_shortcut_and_activation(
    kernels, shape, dtype, activation, training, with_shortcut
):
    torch.manual_seed(0)
    compare(make_layer(shape[1], activation).train(training), shape, dtype, with_shortcut)


@pytest.mark.parametrize("fit", ["layout", "dtype"])
def test_a_shortcut_that_kernels_cannot_read_is_added_by_pytorch(monkeypatch, fit):
    monkeypatch.setattr(FusedBatchNorm2d, "_kernels_cover", lambda *_: True)
    layer = make_layer(8, "relu").eval()
    x, shortcut = (make_images((2, 8, 3, 3), torch.float32) for _ in range(2))
    other = shortcut.contiguous() if fit == "layout" else shortcut.double()
    norm = nn.BatchNorm2d.forward(layer, x)
    assert torch.equal(layer(x, other), F.relu(norm.add_(other)))


@needs_kernels
def test_kernels_take_half_precision(kernels):
    torch.manual_seed(0)
    compare(make_layer(40, "relu6"), (3, 40, 9, 9), torch.float16)


@needs_kernels
@pytest.mark.parametrize("programs", [1, 7, 5000])
def test_kernels_compute_the_same_in_any_number_of_stripes(kernels, programs):
    sizes = {"TILE": 512, "BLOCK_STRIPES": 16, "REDUCE_PROGRAMS": programs, "MAP_PROGRAMS": 9}
    for name, value in sizes.items():
        kernels.setattr(batch_norm_function, name, value)
    torch.manual_seed(0)
    for channels in (5, 144):
        compare(make_layer(channels, "relu6"), (3, channels, 11, 13), torch.float32)


@needs_kernels
def test_kernels_keep_the_variance_beside_a_large_mean(kernels):
    torch.manual_seed(0)
    layer = make_layer(24, None)
    x = make_images((4, 24, 32, 32), torch.float32, mean=1e3, std=1.0)
    dy, expected = expected_pass(layer, x, make_images(x.shape, x.dtype))
    # The parameters' gradients are left out: a float32 mean of 1e3 is itself 3e-5 off.
    actual, expected = ([*each[:2], *each[4:]] for each in (actual_pass(layer, x, dy), expected))
    assert_near(actual, expected, x.dtype)


@needs_kernels
def test_kernels_round_before_the_activation_s_gradient(kernels):
    layer = FusedBatchNorm2d(1, eps=0, activation="relu6").eval()
    nn.init.constant_(layer.weight, 5.999)  # 6 in float16
    for dtype, slope in ((torch.float16, 0.0), (torch.float32, 5.999)):
        one = torch.ones(1, 1, 1, 1, dtype=dtype)
        assert actual_pass(layer, one, one)[1].item() == pytest.approx(slope)


@needs_kernels
@pytest.mark.parametrize(
    ("activation", "slopes"),
    [(None, [1, 1, 1, 1]), ("relu", [0, 0, 1, 1]), ("relu6", [0, 0, 1, 0])],
)
def test_kernels_give_no_gradient_at_the_thresholds(kernels, activation, slopes):
    layer = FusedBatchNorm2d(1, eps=0, activation=activation).eval()
    x = torch.tensor([-1.0, 0.0, 3.0, 6.0]).view(4, 1, 1, 1)
    z, dx, *_ = actual_pass(layer, x, torch.ones_like(x))
    assert dx.flatten().tolist() == slopes
    assert z.flatten().tolist() == [-1 if activation is None else 0, 0, 3, 6]


@needs_kernels
def test_kernels_let_no_stale_statistics_into_a_backward_pass(kernels):
    layer = make_layer(16, None).to(DEVICE)
    x = make_images((2, 16, 4, 4), torch.float32).to(DEVICE)
    z = layer.eval()(x)
    layer.train()(x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


@needs_kernels
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_kernels_pass_nan_on(kernels, activation):
    x = torch.full((1, 2, 1, 1), float("nan"))
    layer = FusedBatchNorm2d(2, activation=activation).eval()
    z, dx, *_ = actual_pass(layer, x, torch.ones_like(x))
    assert z.isnan().all()
    assert (dx != 0).all()


@needs_kernels
@pytest.mark.parametrize("training", [True, False])
def test_kernels_of_frozen_parameters_give_the_input_s_gradient_only(kernels, training):
    torch.manual_seed(0)
    layer = make_layer(24, "relu").train(training).requires_grad_(False)
    x = make_images((2, 24, 5, 5), torch.float32)
    dy, (_, dx, *_) = expected_pass(layer, x, make_images(x.shape, x.dtype))
    _, actual, *others = actual_pass(layer, x, dy)
    assert others[:2] == [None, None]
    torch.testing.assert_close(actual.cpu().double(), dx, rtol=1e-4, atol=1e-4)


@needs_kernels
def test_kernels_take_gradients_of_any_layout(kernels):
    torch.manual_seed(0)
    layer = make_layer(24, "relu6")
    x = make_images((2, 24, 5, 5), torch.float32)
    ones = torch.ones_like(x)
    expected = actual_pass(layer, x, ones)
    for dy in (ones.contiguous(), torch.ones(1).expand(x.shape)):
        assert all(map(torch.equal, actual_pass(layer, x, dy), expected))


@needs_kernels
def test_kernels_need_no_gradient_and_leave_evaluation_s_statistics(kernels):
    layer = make_layer(16, "relu").eval().to(DEVICE)
    before = copy.deepcopy(layer.state_dict())
    x = make_images((2, 16, 4, 4), torch.float32).to(DEVICE)
    with torch.no_grad():
        plain = layer(x)
    assert torch.equal(layer(x).detach(), plain)
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


def norm_and_activation(layer):
    """PyTorch's own modules with the same state."""
    norm = nn.BatchNorm2d(layer.num_features, layer.eps, layer.momentum)
    norm.load_state_dict(layer.state_dict())
    activation = {None: nn.Identity, "relu": nn.ReLU, "relu6": nn.ReLU6}[layer.activation]()
    return nn.Sequential(norm, activation).to(DEVICE)


def layer_pass(module, x, dy):
    x = x.detach().requires_grad_()
    z = module(x)
    z.backward(dy)
    return [z.detach(), x.grad, *(each.grad for each in module.parameters()), *module.buffers()]


@needs_gpu
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    "shape",
    [(32, 96, 56, 56), (128, 1152, 7, 7), (16, 24, 112, 112), (16, 112, 14, 14), (16, 320, 7, 7)],
)
def test_a_gpu_s_results_are_pytorch_s(shape, activation):
    torch.manual_seed(0)
    layer = make_layer(shape[1], activation).to(DEVICE)
    x, dy = (make_images(shape, torch.bfloat16).to(DEVICE) for _ in range(2))
    expected = layer_pass(norm_and_activation(layer), x, dy)
    for actual, other in zip(layer_pass(layer, x, dy), expected, strict=True):
        error = (actual.double() - other.double()).norm() / other.double().norm()
        assert error < 4e-3  # bfloat16's rounding


@needs_gpu
@pytest.mark.parametrize("size", [14, 50])
def test_a_gpu_s_results_are_the_same_bits_in_every_run_and_in_a_graph(size):
    torch.manual_seed(0)
    model = nn.Sequential(make_layer(40, "relu6"), make_layer(40, None)).to(DEVICE)
    state = copy.deepcopy(model.state_dict())
    x, dy = (make_images((16, 40, size, size), torch.bfloat16).to(DEVICE) for _ in range(2))
    wanted = [x.requires_grad_(), *model.parameters()]

    def run():
        z = model(x)
        return [z, *torch.autograd.grad(z, wanted, dy)]

    def fresh(call):
        model.load_state_dict(state)
        return [each.detach().clone() for each in (*call(), *model.buffers())]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        first, second = fresh(run), fresh(run)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        results = run()

    def replay():
        graph.replay()
        return results

    third = fresh(replay)
    assert all(map(torch.equal, first, second))
    assert all(map(torch.equal, first, third))
    assert int(model[0].num_batches_tracked) == 1
