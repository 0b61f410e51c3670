"""One run: a checked config brought to data, networks and a folder, then trained and tested."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from data.augment import Augmentation
from engine.accelerate import to_device
from engine.build import build_networks
from engine.checkpoint import load_initial_weights
from engine.config import RunConfig, write_config
from engine.dataset import Dataset, describe, open_dataset
from engine.event_writer import event_writer
from engine.model import Precision, choose_device, choose_precision, make_augmentation
from engine.options import TrainingOptions
from engine.recipe import recipe, recipes_of_starts
from utils.atomic_file import remove_strays, write_json
from utils.cores import use_available_cores
from utils.distributed import is_main, main_first
from utils.errors import UserError
from utils.folder_lock import locked
from utils.log import log_to_file
from utils.seed import seed_everything

logger = logging.getLogger("long_tail_hashing")


@dataclass
class Run:
    """What every part of the engine works on. `seconds` collects the time of each phase."""

    config: RunConfig
    dataset: Dataset
    model: nn.Sequential
    augmentation: Augmentation
    precision: Precision
    device: torch.device
    writer: SummaryWriter | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    images_per_second: float = 0.0
    checkpoint: dict[str, Any] = field(default_factory=dict)  # which one is tested
    recipe: str = ""  # that its networks were trained by, and their codes are made by
    under_way: dict[str, float] = field(default_factory=dict)  # phase → when it began

    @property
    def log_dir(self) -> Path:
        """The run's folder."""
        return Path(self.config.training_opt.log_dir)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the wall-clock seconds of a block to `seconds[phase]`, the device's work included."""
        self.under_way[phase] = time.perf_counter()
        try:
            yield
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.seconds[phase] = self.seconds_so_far()[phase]
        finally:
            del self.under_way[phase]

    def seconds_so_far(self) -> dict[str, float]:
        """`seconds`, with those of the phases under way."""
        now = time.perf_counter()
        running = {name: now - began for name, began in self.under_way.items()}
        return self.seconds | {name: self.seconds.get(name, 0.0) + s for name, s in running.items()}


def open_run(config: RunConfig, initial_weights: bool = True) -> Run:
    """Build data and networks; nothing is written but the cache of decoded images.

    Args:
        initial_weights: load what `networks.*.weights` names; a test loads its own checkpoint,
            and its recipe.

    Raises:
        UserError: for any mistake in config, data or weights.
    """
    options = config.training_opt
    device = prepare_device(options)
    with main_first():  # which decodes images into the cache that the others read
        dataset = open_dataset(config, device)
    loaded = config if initial_weights else _without_weights(config)
    model = build_networks(loaded, dataset.num_classes)
    load_initial_weights(loaded, model, dataset)
    return Run(
        config=config,
        dataset=dataset,
        model=to_device(model, options.accelerate, device),
        augmentation=make_augmentation(config, model),
        precision=choose_precision(options, device),
        device=device,
        recipe=recipe(config, recipes_of_starts(config)) if initial_weights else "",
    )


def prepare_device(options: TrainingOptions) -> torch.device:
    """The device of a run, with seeds, threads and the precision of matrix products set for it.

    Raises:
        UserError: if it is asked for and absent.
    """
    device = choose_device(options)
    seed_everything(options.seed)
    torch.set_float32_matmul_precision("high")
    if device.type == "cuda":  # memory is counted, and freed, anew for each of several configs
        torch.cuda.init()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    use_available_cores()
    return device


def _without_weights(config: RunConfig) -> RunConfig:
    networks = {name: replace(each, weights=None) for name, each in config.networks.items()}
    return replace(config, networks=networks)


@contextmanager
def run_folder(run: Run, fresh: bool = False) -> Iterator[None]:
    """Open the run's folder: log.txt and TensorBoard events; `fresh` drops an earlier run's.

    Only rank 0 of several processes writes there, and no other run meanwhile.

    Raises:
        UserError: if the folder cannot be made or written, or another run holds it.
    """
    if not is_main():
        yield
        return
    _make(run.log_dir)
    with locked(run.log_dir):
        remove_strays(run.log_dir)
        if fresh:
            for old in [*run.log_dir.glob("events.out.tfevents.*"), run.log_dir / "log.txt"]:
                old.unlink(missing_ok=True)
        with log_to_file(run.log_dir / "log.txt"), event_writer(run.log_dir) as run.writer:
            logger.info("%s", describe(run.dataset))
            try:
                yield
            finally:
                run.writer = None


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"training_opt.log_dir {folder} cannot be made a folder ({error.strerror}); "
            "choose another"
        ) from error


def write_identity(run: Run) -> None:
    """Write what names a run: the resolved config and the split's manifest."""
    if not is_main():
        return
    write_config(run.config, run.log_dir / "config.yaml")
    write_json(run.log_dir / "split.json", run.dataset.manifest)
