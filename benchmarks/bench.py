"""What the measures of `benchmarks.training` share: options, figures, and what was measured."""

import argparse
import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.conventional import Conventional
from benchmarks.jpegs import write_jpegs
from benchmarks.resident_images import create_source
from benchmarks.setups import QUERIES, TrainingRun, make_config, resident
from benchmarks.timing import best_time, matrix_rate
from utils.distributed import world_size
from utils.environment import peak_gpu_memory


@dataclass(frozen=True)
class Figure:
    """One row: a value and, perhaps, what it is compared with and what the ratio should be."""

    measure: str
    value: float
    unit: str
    backbone: str = ""
    batch_size: int | None = None
    accelerate: str = ""
    against: str = ""
    against_value: float | None = None
    target: str = ""  # of the ratio, or of a value that is compared with nothing

    @property
    def ratio(self) -> float | None:
        """The value over what it is compared with."""
        return None if self.against_value is None else self.value / self.against_value


@dataclass(frozen=True)
class TrainingSpeed:
    """Images a second of an epoch and of the bare step; a GPU's memory and work for it."""

    epoch: float
    bare: float
    peak_gib: float | None
    flops_per_second: float | None


@dataclass
class Bench:
    """A run of the benchmark. What several measures need is measured once."""

    options: argparse.Namespace
    device: torch.device
    folder: Path  # for made-up files
    kept: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    failed: dict[tuple[Any, ...], str] = field(default_factory=dict)

    @property
    def mode(self) -> str:
        """The way of training that is compared with other loops: the engine's own choice."""
        modes = self.options.accelerate
        return "graph" if "graph" in modes else modes[-1]

    def once(self, key: tuple[Any, ...], work: Callable[[], Any]) -> Any:
        """The result of the work that `key` names, or its failure, as it was the first time."""
        if key in self.failed:
            raise RuntimeError(f"as before: {self.failed[key]}")
        if key not in self.kept:
            try:
                self.kept[key] = work()
            except Exception as error:  # its text only: its frames hold memory
                self.failed[key] = " ".join(str(error).split())
                raise
        return self.kept[key]

    def time(self, work: Callable[[], Any]) -> float:
        """The shortest of the repeats, in seconds."""
        return best_time(work, self.options.repeats, self.device)

    def free_memory(self) -> None:
        """Give back what earlier runs held, and count the GPU's peak from here."""
        gc.collect()
        if "compile" in self.options.accelerate:
            torch.compiler.reset()  # it compiles one function only so many times
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def matrix_rate(self) -> float:
        """Operations a second of matrix products in the precision that the engine trains in."""
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        return self.once(("matrix",), lambda: matrix_rate(self.device, dtype))

    def training(self, backbone: str, mode: str, batch_size: int) -> TrainingSpeed:
        """Speed of training on images in memory, as many of them at every batch size."""
        key = ("training", backbone, mode, batch_size)
        return self.once(key, lambda: self._training(backbone, mode, batch_size))

    def _training(self, backbone: str, mode: str, batch_size: int) -> TrainingSpeed:
        self.free_memory()
        data = resident(self.options.images)
        subject = TrainingRun(
            make_config(self.options, backbone, data, accelerate=mode, batch_size=batch_size)
        )
        subject.epoch()  # compiles and captures
        epoch_seconds = self.time(subject.epoch)
        peak = peak_gpu_memory(self.device)
        batch, steps = subject.fixed_batch(), self.options.steps
        subject.bare_steps(*batch, steps)
        step_seconds = self.time(lambda: subject.bare_steps(*batch, steps)) / steps
        alone = world_size() == 1  # several average their gradients in every backward pass
        return TrainingSpeed(
            epoch=subject.images / epoch_seconds,
            bare=batch_size / step_seconds,
            peak_gib=peak,
            flops_per_second=subject.flops(*batch) / step_seconds if alone else None,
        )

    def conventional(self, backbone: str) -> Conventional:
        """The loop to compare with."""
        options = self.options
        return Conventional(
            backbone, options.image_size, options.batch_size, options.workers, self.device
        )

    def jpegs(self) -> Path:
        """A folder of made-up JPEG files."""
        return self.once(("jpegs",), self._write_jpegs)

    def _write_jpegs(self) -> Path:
        count, links = self.options.jpegs, self.options.links
        source = create_source(self.options.data_root, count, QUERIES)
        size = write_jpegs(self.folder, source, count, links)
        print(f"{count} JPEG files of {size / 1e3:.0f} kB, {links} times each an epoch", flush=True)
        return self.folder
