"""Each fast backward pass gives the losses and gradients of the plain one."""

import shutil

import pytest
import torch
from small_config import make_config
from torch import nn

from engine.accelerate import CapturedBackward, PlainBackward, make_backward, to_device
from engine.build import Criterion
from engine.launch import run_processes
from engine.model import Precision
from engine.objective import Objective
from engine.run import open_run
from engine.train import build_training, step, train_batches, train_mode
from models.backbone import create_model
from models.direct_head import DirectHead
from utils import distributed
from utils.errors import UserError

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CPU, GPU = torch.device("cpu"), torch.device("cuda")


class CentreLoss(nn.Module):
    """A loss with a parameter, which wrappers of the networks alone would miss."""

    def __init__(self):
        super().__init__()
        self.centres = nn.Parameter(torch.linspace(-1, 1, 24).view(3, 8))

    def forward(self, codes, labels):
        return (codes - self.centres[labels]).square().mean()


class ReplacingLoss(nn.Module):
    """A loss that puts a new tensor in a buffer's place."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, codes):
        self.mean = 0.9 * self.mean + 0.1 * codes.detach().mean()
        return (codes - self.mean).square().mean()


class ReadingLoss(nn.Module):
    """A loss that reads a value back from the GPU."""

    def forward(self, codes):
        return codes.square().mean() * (1.0 if codes.sum().item() > 0 else 2.0)


def _objective(device=CPU, norm=False, dropout=0.0, losses=None):
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(27, 10), nn.BatchNorm1d(10) if norm else nn.Identity()]
    backbone = nn.Sequential(*layers, nn.Dropout(dropout))
    model = nn.Sequential(backbone, DirectHead(10, 12, 8, 3)).to(device)
    losses = losses or {
        "classification": Criterion(_CrossEntropy(), 1.0, ["logits", "labels"]),
        "centre": Criterion(CentreLoss(), 0.5, ["codes", "labels"]),
    }
    for criterion in losses.values():
        criterion.loss.to(device)
    return Objective(model, losses, Precision(device, bf16=False))


class _CrossEntropy(nn.Module):
    def forward(self, logits, labels):
        return nn.functional.cross_entropy(logits, labels)


def _batch(count=8, device=CPU, seed=1):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, 3, 3, generator=generator)
    return images.to(device), torch.randint(0, 3, (count,), generator=generator).to(device)


def _gradients(objective):
    return [parameter.grad.clone() for parameter in objective.parameters()]


def _assert_same(fast, plain, images, labels, **tolerance):
    """`fast` and `plain` are (backward, objective) of equal weights."""
    results = []
    for backward, objective in (fast, plain):
        losses = {name: loss.detach().clone() for name, loss in backward(images, labels).items()}
        results.append((losses, _gradients(objective)))
    (losses, gradients), (plain_losses, plain_gradients) = results
    torch.testing.assert_close(losses, plain_losses, **tolerance)
    for one, other in zip(gradients, plain_gradients, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


def test_plain_gradients_are_those_of_the_summed_losses():
    objective, images, labels = _objective(), *_batch()
    backward = make_backward(objective, "auto", CPU)
    assert isinstance(backward, PlainBackward)
    for _ in range(2):  # the first pass's gradients must not linger
        backward(images, labels)
    total = sum(objective(images, labels).values())
    expected = torch.autograd.grad(total, list(objective.parameters()))
    for one, other in zip(_gradients(objective), expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler here")
def test_a_compiled_pass_is_the_plain_one():
    fast, plain = _objective(), _objective()
    backward = make_backward(fast, "compile", CPU)
    for seed in (1, 2):
        _assert_same((backward, fast), (PlainBackward(plain), plain), *_batch(seed=seed))


def test_a_graph_without_a_gpu_is_refused():
    with pytest.raises(UserError, match="accelerate is 'graph', but there is no GPU"):
        make_backward(_objective(), "graph", CPU)


def _processes_gradients(folder):
    with distributed.joined(CPU):
        objective = _objective()
        backward = make_backward(objective, "auto", CPU)
        images, labels = _batch()
        losses = []
        for _ in range(3):
            mine = slice(distributed.rank(), None, 2)
            losses.append({n: v.detach() for n, v in backward(images[mine], labels[mine]).items()})
        torch.save((losses[-1], _gradients(objective)), folder / f"{distributed.rank()}.pt")


def test_two_processes_have_the_gradients_of_one(tmp_path):
    run_processes(2, _processes_gradients, tmp_path)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    objective = _objective()
    losses = PlainBackward(objective)(*_batch())
    for name, loss in losses.items():
        torch.testing.assert_close(sum(each[0][name] for each in found) / 2, loss.detach())
    for _, gradients in found:
        for one, other in zip(gradients, _gradients(objective), strict=True):
            torch.testing.assert_close(one, other)


@needs_gpu
@pytest.mark.parametrize("mode", ["graph", "compile"])
def test_a_captured_pass_is_the_plain_one_for_every_batch_and_shape(mode):
    fast, plain = _objective(GPU, norm=True), _objective(GPU, norm=True)
    backward = make_backward(fast, mode, GPU)
    plainly = PlainBackward(plain)
    for count, seed in ((8, 1), (8, 2), (5, 3), (8, 4), (5, 5)):
        batch = _batch(count, GPU, seed)
        _assert_same((backward, fast), (plainly, plain), *batch, rtol=1e-4, atol=1e-5)
    for one, other in zip(fast.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(one, other)  # the warm-up left no trace in the statistics


@needs_gpu
def test_a_captured_bf16_pass_of_convolutions_is_the_plain_one():
    objectives, backwards = [], []
    for mode, bf16 in (("graph", True), ("none", True), ("none", False)):
        torch.manual_seed(0)
        head = DirectHead(512, 12, 8, 3)
        model = to_device(nn.Sequential(create_model("resnet18"), head), mode, GPU).train()
        losses = {"classification": Criterion(_CrossEntropy(), 1.0, ["logits", "labels"])}
        objectives.append(Objective(model, losses, Precision(GPU, bf16=bf16)))
        backwards.append(make_backward(objectives[-1], mode, GPU))
    for seed in range(3):
        images = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
        images = images.to(GPU, memory_format=torch.channels_last)
        labels = torch.arange(8, device=GPU) % 3
        losses = [backward(images, labels)["classification"].item() for backward in backwards]
        assert losses[0] == pytest.approx(losses[1], rel=2e-2)
        for own, other, exact in zip(*(each.parameters() for each in objectives), strict=True):
            assert own.grad.dtype == torch.float32
            assert own.grad.stride() == own.stride()
            size = exact.grad.norm().clamp(min=1e-6)
            errors = [(each.grad - exact.grad).norm() / size for each in (own, other)]
            assert errors[0] < 2 * errors[1] + 0.02  # bfloat16's rounding, in another order


@needs_gpu
def test_dropout_in_a_captured_pass_is_drawn_anew_and_from_the_seed():
    objective = _objective(GPU, dropout=0.5)
    backward = make_backward(objective, "graph", GPU)
    images, labels = _batch(device=GPU)
    backward(images, labels)
    draws = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        draws.append([backward(images, labels)["centre"].item() for _ in range(2)])
    assert draws[0] == draws[1] != draws[2]
    assert draws[0][0] != draws[0][1]


@needs_gpu
@pytest.mark.parametrize("strict", [True, False])
def test_what_cannot_be_captured_is_refused_or_runs_plainly(strict, caplog, monkeypatch):
    monkeypatch.setattr("logging.Logger.propagate", True, raising=False)
    losses = {"reading": Criterion(ReadingLoss(), 1.0, ["codes"])}
    fast, plain = _objective(GPU, losses=losses), _objective(GPU, losses=losses)
    for objective in (fast, plain):
        objective.model[1].classifier.requires_grad_(False)
    backward = make_backward(fast, "graph" if strict else "auto", GPU)
    images, labels = _batch(device=GPU)
    if strict:
        with pytest.raises(UserError, match=r"set training_opt\.accelerate='none'"):
            backward(images, labels)
        return
    assert isinstance(backward, CapturedBackward)
    for _ in range(2):
        found, expected = backward(images, labels), PlainBackward(plain)(images, labels)
        torch.testing.assert_close(found, expected)
    assert not backward.possible


@needs_gpu
def test_a_buffer_that_is_replaced_is_refused():
    losses = {"replacing": Criterion(ReplacingLoss(), 1.0, ["codes"])}
    objective = _objective(GPU, losses=losses)
    objective.model[1].classifier.requires_grad_(False)
    with pytest.raises(UserError, match="replaces a buffer"):
        make_backward(objective, "graph", GPU)(*_batch(device=GPU))


@needs_gpu
def test_a_captured_run_follows_its_schedule_as_a_plain_one_does(tmp_path):
    weights = []
    for mode in ("none", "graph"):
        config = make_config(
            tmp_path / mode,
            device="cuda",
            precision="fp32",
            accelerate=mode,
            gradient_clip=0.5,
            scheduler={"name": "CosineAnnealingLR", "params": {}},
            warmup_epochs=1,
        )
        run = open_run(config)
        training = build_training(run)
        train_mode(run)
        for epoch in range(2):
            for images, labels in train_batches(run, epoch):
                step(run, training, images, labels)
        weights.append(run.model.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4, msg=name)
