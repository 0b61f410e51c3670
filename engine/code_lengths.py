"""A run of several code lengths as one run a length, which shares networks and data."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import fmean

from torch.utils.tensorboard import SummaryWriter

from engine.run import Run
from retrieval.metrics import Evaluation


@dataclass(frozen=True)
class Validation:
    """How well the validation queries retrieve, by code length; a checkpoint is kept by `map`."""

    by_length: Mapping[int, Evaluation]

    @property
    def map(self) -> float:
        """MAP, the mean over code lengths."""
        return fmean(each.map for each in self.by_length.values())

    @property
    def groups(self) -> dict[str, float | None]:
        """MAP of many-, medium- and few-shot classes, or, of several code lengths, of each."""
        if len(self.by_length) == 1:
            (only,) = self.by_length.values()
            return only.groups
        return {f"{length}bits": each.map for length, each in self.by_length.items()}


@contextmanager
def run_of_length(run: Run, code_length: int) -> Iterator[Run]:
    """The run as one of a single code length.

    Where there are several, each has a folder in the run's, `<q>bits`, with TensorBoard events of
    its own, and counts the seconds of its own phases on top of those before.
    """
    if len(run.config.training_opt.code_lengths) == 1:
        yield run
        return
    folder = run.log_dir / f"{code_length}bits"
    options = replace(run.config.training_opt, code_length=code_length, log_dir=str(folder))
    config = replace(run.config, training_opt=options)
    writer = None
    if run.writer is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        writer = SummaryWriter(str(folder))
    try:
        yield replace(run, config=config, writer=writer, seconds=dict(run.seconds))
    finally:
        if writer is not None:
            writer.close()
