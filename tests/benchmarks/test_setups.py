"""Parts of a training run are timed and counted as they are."""

import torch
from torch import nn

from benchmarks.setups import TrainingRun


def test_operations_of_a_step_are_those_of_its_matrix_products():
    # A convolution's backward pass has two products of the forward one's size, the first layer's
    # one: its images have no gradient.
    class Convolutions(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3, padding=1)
            self.second = nn.Conv2d(4, 5, 3, padding=1)

        def forward(self, images, labels):
            return {"loss": self.second(self.first(images)).mean()}

    class Subject:
        class training:
            objective = Convolutions()

    counted = TrainingRun.flops(Subject, torch.zeros(2, 3, 8, 8), None)
    first, second = (2 * 2 * 8 * 8 * 9 * pair for pair in (3 * 4, 4 * 5))
    assert counted == 2 * first + 3 * second
