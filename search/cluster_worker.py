"""What each worker of a cluster job does: code blocks of images with a model of its own."""

import os
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import torch

from engine.coder import made_with
from engine.model import choose_precision
from engine.run import Run
from search.cluster_output import Stated
from search.cluster_parts import Parts
from search.cluster_sources import ImageSource, Taken
from search.coder import Coder
from search.rows import make_rows
from search.sources import image_rows, image_sizes
from utils.errors import UserError

RETRIES = 5  # of a block whose worker dies: what is wrong may be the block


@dataclass(frozen=True)
class Job:
    """What all workers are told.

    options: training options in place of the model's, such as device.
    """

    checkpoint: str
    options: dict[str, Any]
    source: ImageSource
    output: str
    stated: Stated


@dataclass(frozen=True)
class Done:
    """What a worker tells of a block.

    unreadable: path → why.
    mistake: why the job cannot go on; empty when it can.
    """

    part: str
    images: int
    unreadable: dict[str, str]
    mistake: str = ""
    worker: str = f"{os.uname().nodename}, process {os.getpid()}"


class BlockCoder:
    """A model on this machine; mistakes are told, not raised, lest they come out wrapped."""

    def __init__(self, job: Job) -> None:
        self.job, self.mistake = job, ""
        self.parts = Parts(job.output, job.stated)
        try:
            self.coder = Coder(job.checkpoint, job.stated.coding.code_length, job.options)
            self._check_same()
        except UserError as error:
            self.mistake = f"{error} (on {os.uname().nodename})"

    def code(self, part: str, block: pa.Table) -> Done:
        """Code a block of a listing into its part, unless that is there."""
        if self.mistake:
            return Done(part, 0, {}, self.mistake)
        try:
            unreadable = self.parts.unreadable(part)
            if unreadable is None:
                unreadable = self._code(part, block)
            return Done(part, len(block), unreadable)
        except UserError as error:
            return Done(part, 0, {}, str(error))
        except OSError as error:  # a full disk, rights
            return Done(part, 0, {}, " ".join(str(error).split()))
        except torch.cuda.OutOfMemoryError:
            return Done(part, 0, {}, "out of GPU memory; lower --batch_size")

    def _code(self, part: str, block: pa.Table) -> dict[str, str]:
        paths = block["path"].to_pylist()
        if self.parts.begun(part) > RETRIES:
            raise UserError(
                f"workers died {RETRIES + 1} times over the images from {paths[0]} to {paths[-1]}: "
                "look for one that breaks the decoder, or give workers more memory or a lower "
                "--block"
            )
        with self.job.source.taken(block) as taken:
            codes, broken = self.coder.code(taken.root, taken.names)
            whole = [row for row, name in enumerate(taken.names) if name not in broken]
            rows = _rows(taken, paths, whole)
        unreadable = {
            path: broken[name].replace(str(taken.root / name), path)
            for path, name in zip(paths, taken.names, strict=True)
            if name in broken
        }
        self.parts.write(
            part, block.take(pa.array(whole, pa.int64())), codes[whole], rows, unreadable
        )
        return unreadable

    def _check_same(self) -> None:
        """Refuse to code otherwise than the other workers."""
        job, run = self.job.stated, self.coder.model.run
        own = replace(
            job,
            coding=replace(job.coding, model_digest=self.coder.digest),
            made_with={**job.made_with, **made_with(run)},
        )
        for name, theirs, ours in own.differences(job):
            raise UserError(
                f"{self.job.checkpoint}: a worker would code with another {name} ({ours}) than the "
                f"job ({theirs}); give all machines the same model and the same kind of device"
            )


def made_with_on(run: Run, device: str) -> dict[str, Any]:
    """`engine.coder.made_with` of a run as it would be on a device that may be elsewhere."""
    there = torch.device(device)
    options = run.config.training_opt
    return made_with(replace(run, device=there, precision=choose_precision(options, there)))


def _rows(taken: Taken, paths: list[str], whole: list[int]) -> pa.Table:
    """Rows (search.rows) of the readable images: what their table says, else what paths say."""
    told = image_rows([paths[row] for row in whole], "")
    texts = {"label": taken.labels, "split": taken.splits}
    columns = {
        name: told[name] if values is None else [values[row] for row in whole]
        for name, values in texts.items()
    }
    sizes = image_sizes([taken.names[row] for row in whole], str(taken.root))
    return make_rows(len(whole), path=told["path"], **columns, **sizes)


def as_row(part: str, block: pa.Table) -> pa.Table:
    """A block as one row, which Ray Data carries to a worker."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, block.schema) as writer:
        writer.write_table(block)
    return pa.table({"part": [part], "block": [sink.getvalue().to_pybytes()]})


def from_row(row: dict[str, Any]) -> tuple[str, pa.Table]:
    """What `as_row` was given."""
    return row["part"], pa.ipc.open_stream(row["block"]).read_all()
