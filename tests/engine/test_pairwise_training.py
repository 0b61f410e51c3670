"""A method without a classifier, whose head and loss are told how far training is."""

import pytest
import torch
from small_config import make_config
from torch import nn

from engine.accelerate import make_backward
from engine.build import Criterion
from engine.experiment import test_only as run_test_only
from engine.experiment import train_and_test
from engine.model import Precision
from engine.objective import Objective
from engine.train import set_progress, train_epoch
from loss.hashnet import HashNetLoss
from models.pairwise_head import create_model

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def pairwise_config(log_dir, **changes):
    return make_config(
        log_dir,
        method="hashnet",
        networks={"hash_head": {"def_file": "./models/pairwise_head.py"}},
        criterions={"classification": {"def_file": "./loss/hashnet.py"}},
        sampler="class_aware",
        **changes,
    )


def test_a_head_without_classifier_is_trained_and_tested_without_accuracy(tmp_path):
    metrics = train_and_test(pairwise_config(tmp_path / "run"))
    assert 0 < metrics["map"] <= 1
    assert "accuracy" not in metrics
    again = run_test_only(pairwise_config(tmp_path / "run"))
    assert again["map"] == metrics["map"]


def test_each_epoch_begins_by_telling_the_head(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(
        "models.pairwise_head.PairwiseHead.set_progress",
        lambda head, epoch, num_epochs: told.append((epoch, num_epochs)),
    )
    train_and_test(pairwise_config(tmp_path / "run", num_epochs=3))
    assert told == [(0, 3), (1, 3), (2, 3)]


def test_a_resumed_run_takes_the_continuation_up_where_it_was(tmp_path, monkeypatch):
    whole = pairwise_config(tmp_path / "whole", num_epochs=4)
    broken = pairwise_config(tmp_path / "broken", num_epochs=4)

    def stop_in_epoch_3(run, training, epoch):
        if epoch == 2:
            raise KeyboardInterrupt
        return train_epoch(run, training, epoch)

    train_and_test(whole)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("engine.train.train_epoch", stop_in_epoch_3)
        train_and_test(broken)
    train_and_test(broken, resume=True)
    states = [
        torch.load(tmp_path / name / "last_checkpoint.pth", weights_only=True)["networks"]
        for name in ("whole", "broken")
    ]
    for key, value in states[0]["hash_head"].items():
        assert torch.equal(value, states[1]["hash_head"][key]), key


def test_networks_and_losses_are_told_and_others_are_left_alone():
    class Told(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("progress", torch.zeros(2))

        def set_progress(self, epoch, num_epochs):
            self.progress.copy_(torch.tensor([epoch, num_epochs]))

        def forward(self, codes):
            return codes

    network, loss = Told(), Told()
    precision = Precision(torch.device("cpu"), bf16=False)
    criterions = {"told": Criterion(loss, 1.0, ["codes"])}
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(network))
    set_progress(Objective(model, criterions, precision), 3, 7)
    assert network.progress.tolist() == loss.progress.tolist() == [3, 7]


@needs_gpu
def test_a_captured_step_follows_the_continuation():
    torch.manual_seed(0)
    device = torch.device("cuda")
    model = nn.Sequential(nn.Flatten(), create_model(27, 16, 8)).to(device)
    criterions = {"pairs": Criterion(HashNetLoss(0.5), 1.0, ["codes", "labels"])}
    objective = Objective(model, criterions, Precision(device, bf16=False))
    images = torch.randn(12, 3, 3, 3, device=device)
    labels = torch.arange(12, device=device) % 4
    captured = make_backward(objective, "graph", device)
    found = []
    for epoch in range(4):
        set_progress(objective, epoch, 4)
        found.append(captured(images, labels)["pairs"].item())
        torch.testing.assert_close(found[-1], objective(images, labels)["pairs"].item())
    assert len(set(found)) == 4
