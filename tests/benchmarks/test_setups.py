"""Parts of a training run are timed and counted as they are."""

from types import SimpleNamespace

import torch
from torch import nn

from benchmarks.setups import TrainingRun, depthwise_flops
from models.depthwise_conv import DepthwiseConv2d


class Objective(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, images, labels):
        return {"loss": self.layers(images).mean()}


def count(*layers):
    """Operations of a step on 2 images of 3 channels and 8 x 8 pixels."""
    training = SimpleNamespace(objective=Objective(*layers))
    subject = SimpleNamespace(training=training)
    return TrainingRun.flops(subject, torch.zeros(2, 3, 8, 8), None)


def test_operations_of_a_step_are_those_of_its_matrix_products():
    # A layer's backward pass has two products of the forward one's size, the first layer's one:
    # its images have no gradient.
    pixels, window = 2 * 8 * 8, 3 * 3
    first, second = (2 * pixels * window * pair for pair in (3 * 4, 4 * 5))
    linear = 2 * 2 * (5 * 8 * 8) * 7
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)]
    assert count(*layers, nn.Flatten(), nn.Linear(5 * 8 * 8, 7)) == 2 * first + 3 * (
        second + linear
    )


def test_a_depthwise_convolution_has_the_operations_of_its_own_weights():
    pointwise, depthwise = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, padding=1, groups=6)
    pixels = 2 * 8 * 8
    assert count(pointwise, depthwise) == 2 * (2 * pixels * 3 * 6) + 3 * (2 * pixels * 9 * 6)


def test_kernels_that_torch_cannot_count_are_counted_by_their_layers(monkeypatch):
    layer = DepthwiseConv2d(6, 5, stride=2, same=True)
    plain = nn.Conv2d(6, 6, 5, stride=2, padding=2, groups=6)
    images = torch.zeros(2, 6, 8, 8)
    with depthwise_flops(nn.Sequential(layer)) as unseen:
        layer(images)
    assert unseen == []  # on a CPU torch counts them
    expected = count(nn.Conv2d(3, 6, 1), plain) - count(nn.Conv2d(3, 6, 1))
    monkeypatch.setattr(DepthwiseConv2d, "forward", lambda self, x: plain(x))
    monkeypatch.setattr(DepthwiseConv2d, "covers", lambda self, x: True)
    with depthwise_flops(nn.Sequential(layer)) as unseen:
        layer(images)
    layer(images)
    assert sum(unseen) == expected
