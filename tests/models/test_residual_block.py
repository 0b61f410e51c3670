"""ResNets with fused blocks compute what torchvision's own compute, with the same parameters."""

import copy
import pickle

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from triton_kernels import DEVICE, needs_gpu, needs_kernels, run_in_the_interpreter

from models.fused_batch_norm import fuse_batch_norms
from models.overlapped_conv import overlap_weight_gradients
from models.residual_block import ResidualBlock, fuse_residual_blocks
from utils import optional_triton


def basic():
    return ResNet(BasicBlock, [1, 2, 1, 1], num_classes=10)


def bottleneck():
    return ResNet(Bottleneck, [1, 2, 1, 1], num_classes=10)


networks = pytest.mark.parametrize("build", [basic, bottleneck])


def fused(model):
    model = copy.deepcopy(model)
    fuse_batch_norms(model)
    return model, fuse_residual_blocks(model)


def one_step(model, images):
    """Outputs, gradients and buffers of a pass in training mode, and outputs in evaluation."""
    model.train().zero_grad()
    outputs = model(images)
    (outputs**2).mean().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    with torch.no_grad():
        return [outputs.detach(), *gradients, *model.buffers(), model.eval()(images)]


@networks
def test_a_fused_resnet_computes_the_same_bits_on_the_cpu(build):
    torch.manual_seed(0)
    model = build()
    other, count = fused(model)
    assert count == 5
    images = torch.randn(3, 3, 64, 64)
    expected, actual = one_step(model, images), one_step(other, images)
    assert len(expected) == len(actual)
    assert all(torch.equal(*pair) for pair in zip(expected, actual, strict=True))


@networks
def test_no_activation_is_left_beside_a_normalisation(build):
    model, _ = fused(build())
    calls = []
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda *_: calls.append(1))
    model(torch.randn(2, 3, 64, 64))
    assert not calls
    assert type(model.relu) is nn.Identity
    activations = {
        name: module.activation for name, module in model.named_modules() if hasattr(module, "eps")
    }
    shortcuts = {name for name in activations if "downsample" in name}
    assert len(shortcuts) == (4 if build is bottleneck else 3)
    assert all((activations[name] is None) == (name in shortcuts) for name in activations)


@networks
def test_keys_and_parameters_stay(build):
    model = build()
    fuse_batch_norms(model)
    tensors = [*model.named_parameters(), *model.named_buffers()]
    fuse_residual_blocks(model)
    after = [*model.named_parameters(), *model.named_buffers()]
    for (name, tensor), (new_name, new_tensor) in zip(tensors, after, strict=True):
        assert name == new_name
        assert tensor is new_tensor
    model.load_state_dict(build().state_dict())


def test_a_block_is_left_that_is_no_plain_one():
    class Own(BasicBlock):
        pass

    gelu, watched, other, sharing, plain_norms = (BasicBlock(4, 4) for _ in range(5))
    gelu.relu = nn.GELU()
    watched.relu.register_forward_hook(lambda *_: None)
    other.forward = lambda x: x
    video = torchvision.models.video.r3d_18(num_classes=3)  # its blocks have the same name
    model = nn.Sequential(Own(4, 4), gelu, watched, other, nn.ReLU(), video, sharing, sharing.bn2)
    fuse_batch_norms(model)
    model.append(plain_norms)
    assert fuse_residual_blocks(model) == 0
    assert not any(isinstance(module, ResidualBlock) for module in model.modules())
    assert gelu.bn1.activation is sharing.bn2.activation is None


def test_a_watched_first_activation_stays():
    model = basic()
    seen = []
    model.relu.register_forward_hook(lambda *_: seen.append(1))
    model, count = fused(model)
    assert count == 5
    model(torch.randn(2, 3, 64, 64))
    assert seen and model.bn1.activation is None


def test_a_fused_network_is_copied_pickled_and_watched():
    torch.manual_seed(0)
    model, _ = fused(basic())
    images = torch.randn(2, 3, 64, 64)
    expected = model.eval()(images)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(images), expected)
    seen = []
    model.layer1[0].register_forward_hook(lambda *_: seen.append(1))
    model(images)
    assert seen


def test_in_the_interpreter():
    run_in_the_interpreter(__file__)


@needs_kernels
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck])
def test_kernels_compute_a_block(monkeypatch, kind, frozen, training):
    torch.manual_seed(0)
    width = 8 * kind.expansion
    model = nn.Sequential(kind(width, 8)).to(DEVICE, memory_format=torch.channels_last)
    model.train(training)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not (frozen and "bn" in name))
    other, count = fused(model)
    assert count == 1
    x = torch.randn(2, width, 6, 6).to(DEVICE, memory_format=torch.channels_last)
    dy = torch.randn(2, width, 6, 6, device=DEVICE)
    expected = block_pass(model, x, dy)  # by PyTorch
    monkeypatch.setattr(optional_triton, "DEVICE", DEVICE)
    monkeypatch.setattr(nn.BatchNorm2d, "forward", never)
    for right, own in zip(expected, block_pass(other, x, dy), strict=True):
        torch.testing.assert_close(own, right, rtol=1e-4, atol=1e-4 * float(right.abs().max()))


def never(*_):
    raise AssertionError("PyTorch's batch normalisation was called")


def block_pass(model, x, dy):
    """Output, gradients of the input and of what is trained, and buffers."""
    x = x.clone().requires_grad_()
    outputs = model(x)
    outputs.backward(dy)
    gradients = [each.grad for each in model.parameters() if each.requires_grad]
    return [outputs.detach(), x.grad, *gradients, *(each.double() for each in model.buffers())]


def test_fusing_twice_changes_nothing():
    torch.manual_seed(0)
    model, _ = fused(basic())
    images = torch.randn(2, 3, 64, 64)
    expected = model.eval()(images)
    fuse_batch_norms(model)
    assert fuse_residual_blocks(model) == 0
    assert torch.equal(model(images), expected)


def pass_of(model, images, training):
    """Features and the gradient of the first layer's weight, in bf16."""
    model.train(training).zero_grad()
    with torch.autocast("cuda", torch.bfloat16):
        outputs = model(images)
    (outputs.float() ** 2).mean().backward()
    return outputs.detach().float(), model.conv1.weight.grad.clone()


@needs_gpu
@networks
@pytest.mark.parametrize("training", [True, False])
def test_a_gpu_s_results_are_as_near_to_exact_ones_as_pytorch_s(build, training):
    torch.manual_seed(0)
    model = build().to("cuda", memory_format=torch.channels_last)
    images = torch.randn(16, 3, 96, 96, device="cuda").to(memory_format=torch.channels_last)
    other, _ = fused(model)
    exact = copy.deepcopy(model).train(training)
    outputs = exact(images)
    (outputs**2).mean().backward()
    wanted = outputs.detach(), exact.conv1.weight.grad
    for right, plain, own in zip(
        wanted, pass_of(model, images, training), pass_of(other, images, training), strict=True
    ):
        limit = 1.2 * (plain - right).norm() + 1e-3 * right.norm()
        assert (own - right).norm() < limit


@needs_gpu
@networks
@pytest.mark.parametrize("captured", [False, True])
def test_a_shortcut_beside_the_rest_gives_every_step_the_same_gradients(build, captured):
    torch.manual_seed(0)
    model = build().to("cuda", memory_format=torch.channels_last)
    plain, _ = fused(model)
    other, _ = fused(model)
    assert overlap_weight_gradients(other) == 5 + sum(
        type(each) is nn.Conv2d for each in model.modules()
    )
    batches = [torch.randn(16, 3, 96, 96, device="cuda") for _ in range(8)]
    batches = [each.to(memory_format=torch.channels_last) for each in batches]
    images, stream = batches[0].clone(), torch.cuda.Stream()

    def step(network, images):
        for parameter in network.parameters():
            parameter.grad = None
        with torch.autocast("cuda", torch.bfloat16):
            outputs = network(images)
        (outputs.float() ** 2).mean().backward()
        return [outputs.detach(), *(parameter.grad for parameter in network.parameters())]

    with torch.cuda.stream(stream):
        for _ in range(3):
            found = step(other, images)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    if captured:
        with torch.cuda.graph(graph, stream=stream):
            found = step(other, images)
    for batch in batches:
        images.copy_(batch)
        if captured:
            graph.replay()
        else:
            found = step(other, images)
        for own, reference in zip(found, step(plain, batch), strict=True):
            assert torch.allclose(own, reference, rtol=2e-2, atol=2e-2 * reference.abs().max())


def test_resnet34_is_torchvision_s_network():
    model, count = fused(torchvision.models.resnet34())
    assert count == 16
    assert model.bn1.activation == "relu"
