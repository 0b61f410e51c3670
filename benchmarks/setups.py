"""The runs that are measured: config/Cifar100_LT without weights, on images in memory or files."""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from benchmarks.timing import StreamClock, wait
from engine.accelerate import PlainBackward
from engine.build import check_config_parts
from engine.config import RunConfig, load_config
from engine.run import Run, open_run
from engine.train import Training, build_training, step, train_batches, train_epoch
from models.depthwise_conv import DepthwiseConv2d
from utils.def_file import PROJECT

CONFIGS = PROJECT / "config" / "Cifar100_LT"
QUERIES = 100  # where none are asked
DIRECT, META = "stage_1", "stage_2_meta_embedding"
PUBLISHED = "lthnet_published"  # trains a memory of centroids and samples along


def make_config(
    options: argparse.Namespace,
    backbone: str,
    data: dict[str, Any],
    stage: str = DIRECT,
    **training_opt: Any,
) -> RunConfig:
    """The config of a stage with another backbone, other data and `training_opt`, no weights."""
    values = {
        "training_opt": {
            "log_dir": "unused",
            "imbalance_factor": None,
            "num_classes": None,
            "image_size": options.image_size,
            "batch_size": options.batch_size,
            "evaluation_batch_size": min(500, options.codes),
            "device": options.device,
            "num_workers": options.workers,
            "data_root": options.data_root,
            **training_opt,
        },
        "data": data,
        "networks": {
            "feat_model.params.arch": backbone,
            "feat_model.weights": None,
            "feat_model.fix_statistics": False,  # the longer step
        },
    }
    values["networks"]["hash_head.weights"] = None
    overrides = [
        f"{section}.{key}={json.dumps(value)}"  # JSON is YAML
        for section, entries in values.items()
        for key, value in entries.items()
    ]
    config = load_config(str(CONFIGS / f"{stage}.py"), overrides)
    check_config_parts(config)
    return config


def resident(train: int, test: int = QUERIES) -> dict[str, Any]:
    """`data` of images in memory."""
    params = {"train": train, "test": test}
    return {"def_file": "./benchmarks/resident_images.py", "params": params}


def files() -> dict[str, Any]:
    """`data` of large image files under the data root, read in every epoch."""
    return {"def_file": "./data/image_folder.py", "params": {}, "cache_size": None}


def convolution_backward_flops(
    output_gradient: list[int], images: list[int], weight: list[int], *others: Any, **named: Any
) -> int:
    """Operations of a convolution's gradients, from shapes: each asked one costs a forward pass.

    torch's own formula does not know of groups, and counts a depthwise convolution as a full one.
    """
    transposed, (for_images, for_weight, _) = others[4], others[7]
    return (for_images + for_weight) * conv_flop_count(images, weight, output_gradient, transposed)


@contextmanager
def depthwise_flops(network: nn.Module) -> Iterator[list[int]]:
    """Operations, forward and backward, of depthwise layers whose kernels torch cannot count."""
    found: list[int] = []

    def count(layer: DepthwiseConv2d, inputs: tuple[Tensor], output: Tensor) -> None:
        if layer.covers(inputs[0]):
            found.append(3 * 2 * layer.kernel_size[0] ** 2 * output.numel())

    layers = [each for each in network.modules() if isinstance(each, DepthwiseConv2d)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    yield found
    for handle in handles:
        handle.remove()


class TrainingRun:
    """A run of a config and its training, to time parts of."""

    def __init__(self, config: RunConfig) -> None:
        self.run: Run = open_run(config)
        self.training: Training = build_training(self.run)
        self.epochs = count()

    @property
    def images(self) -> int:
        """Images of an epoch: class-aware sampling fills the last batch."""
        batch_size = self.run.config.training_opt.batch_size
        return -(-len(self.run.dataset.split.train) // batch_size) * batch_size

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The next epoch's batches."""
        return train_batches(self.run, next(self.epochs))

    def epoch(self) -> None:
        """Train the next epoch as the engine does."""
        train_epoch(self.run, self.training, next(self.epochs))

    def steady_rate(self) -> tuple[float, float]:
        """Images a second of the next epoch, and the share of its time that the device waits.

        Both after the first batch, whose readers have to start. The device waits from a step's end
        until the next batch is there.
        """
        batches = self.batches()
        step(self.run, self.training, *next(batches))
        wait(self.run.device)
        images, clock, started = 0, StreamClock(self.run.device), time.perf_counter()
        clock.mark()
        for batch, labels in batches:
            clock.mark()
            step(self.run, self.training, batch, labels)
            clock.mark()
            images += len(batch)
        wait(self.run.device)
        seconds = time.perf_counter() - started
        return images / seconds, clock.between_pairs() / seconds

    def fixed_batch(self) -> tuple[Tensor, Tensor]:
        """A batch on the device, in the layout that its convolutions are fastest with."""
        images, labels = next(self.batches())
        if images.is_cuda:
            images = images.contiguous(memory_format=torch.channels_last)
        return images, labels

    def bare_steps(self, images: Tensor, labels: Tensor, steps: int) -> None:
        """Forward, losses, backward and optimizer, again and again on one batch."""
        for _ in range(steps):
            self.training.backward(images, labels)
            self.training.optimizer.step()

    def flops(self, images: Tensor, labels: Tensor) -> int:
        """Floating-point operations of a forward and backward pass on a batch."""
        formulas = {torch.ops.aten.convolution_backward: convolution_backward_flops}
        with (
            FlopCounterMode(display=False, custom_mapping=formulas) as counter,
            depthwise_flops(self.training.objective) as unseen,
        ):
            PlainBackward(self.training.objective)(images, labels)
        return counter.get_total_flops() + sum(unseen)
