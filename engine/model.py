"""A run's networks on their device, and passes over many images with them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.augment import Augmentation
from data.samplers import evaluation_batches
from engine.config import RunConfig
from engine.dataset import Dataset
from engine.options import TrainingOptions
from utils.distributed import gather, local_rank, share
from utils.errors import UserError


def choose_device(options: TrainingOptions) -> torch.device:
    """The device that `training_opt.device` asks for.

    Raises:
        UserError: if CUDA is asked for and absent.
    """
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "training_opt.device is 'cuda', but torch finds no CUDA device; "
            "use 'auto' or 'cpu', or install a CUDA build of torch"
        )
    if options.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    count, number = torch.cuda.device_count(), local_rank()
    if number >= count:
        raise UserError(
            f"process {number} has no GPU of its own, torch sees {count}; "
            "start one process a GPU, or set training_opt.device=cpu"
        )
    return torch.device("cuda", number)


@dataclass(frozen=True)
class Precision:
    """How forward passes compute: bf16 autocast or plain float32."""

    device: torch.device
    bf16: bool

    def __call__(self) -> torch.autocast:
        """A context for one forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


def choose_precision(options: TrainingOptions, device: torch.device) -> Precision:
    """bf16 where it is asked for, or by default on a GPU."""
    automatic = options.precision == "auto" and device.type == "cuda"
    return Precision(device, bf16=options.precision == "bf16" or automatic)


def make_augmentation(config: RunConfig, model: nn.Sequential, final: bool = False) -> Augmentation:
    """The config's augmentation, normalised as the first network expects; or that of the end."""
    options = config.training_opt
    backbone = model[0] if len(model) else None
    chosen = {**options.augmentation, **(options.final_augmentation if final else {})}
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in chosen.items()
    }
    return Augmentation(
        image_size=options.image_size,
        mean=tuple(getattr(backbone, "mean", (0.0, 0.0, 0.0))),
        std=tuple(getattr(backbone, "std", (1.0, 1.0, 1.0))),
        **given,
    )


@torch.inference_mode()
def collect_outputs(
    model: nn.Sequential,
    dataset: Dataset,
    indices: NDArray[np.int64],
    augmentation: Augmentation,
    precision: Precision,
    names: tuple[str, ...],
    batch_size: int,
    mirrored: bool = False,
) -> dict[str, Tensor]:
    """Named outputs of the model, in evaluation mode, for images in the order of `indices`.

    Several processes each take a share of the images; all get all outputs.

    mirrored: give the mean of the outputs for an image and for its mirror image.

    Returns:
        name → (len(indices), …) float32, on the dataset's device; without the names that the
        model does not give.
    """
    was_training = model.training
    model.eval()
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    total = len(indices)
    mine = indices[share(total)]
    batches = evaluation_batches(mine if len(mine) else indices[:1], batch_size)
    for images, _ in dataset.batches(batches, augmentation):
        with precision():
            views = [model(images), *([model(images.flip(3))] if mirrored else [])]
        for name in names:
            if name in views[0]:
                parts[name].append(torch.stack([view[name].float() for view in views]).mean(0))
    model.train(was_training)
    given = {name: torch.cat(part)[: len(mine)] for name, part in parts.items() if part}
    return {name: gather(part, total) for name, part in given.items()}
