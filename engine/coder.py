"""Codes of image files without labels, by the way of pixels and networks that a run's test takes.

So they are the codes that the test gives the same images, bit for bit.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from data.decoding import decode_files
from data.file_images import FileImages
from data.images import ArrayImages, Images
from data.source import Source, read_image
from engine.coding import coding_batch_size, encode_lengths
from engine.open_model import Model
from engine.run import Run
from utils.cores import available_cores
from utils.errors import UserError

Tick = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class FileSource(Source):
    """Image files without labels; a blank stands for one that cannot be read.

    unreadable: (n,) uint8 in shared memory, in which processes that read note it.
    """

    unreadable: Tensor

    def read(self, index: int) -> Image.Image:
        """Return one image, or a blank."""
        try:
            return super().read(index)
        except UserError:
            self.unreadable[index] = 1
            return Image.new("RGB", (1, 1))


@dataclass(frozen=True)
class _Counted:
    """Images that tell how many of them have been asked for."""

    images: Images
    tick: Tick

    def batches(self, *args: Any, **options: Any) -> Iterator[tuple[Tensor, Tensor]]:
        for images, indices in self.images.batches(*args, **options):
            yield images, indices
            self.tick(len(indices))


def encode_files(
    model: Model, root: Path, names: Sequence[str], tick: Tick = lambda count: None
) -> tuple[dict[int, NDArray[np.uint8]], dict[str, str]]:
    """Code the image files `root`/name.

    tick: told the size of each batch that is done, of which the last is filled up.

    Returns:
        code length q → packed codes (n, ceil(q / 8)), without meaning where a file is unreadable;
        and name → why, of those files.
    """
    source = FileSource(
        name="images",
        class_names=model.run.dataset.source.class_names,
        image_names=list(names),
        labels=np.zeros(len(names), dtype=np.int64),
        subsets={},
        root=root,
        unreadable=torch.zeros(len(names), dtype=torch.uint8).share_memory_(),
    )
    held = model.preprocessing["held_size"]
    images: Images
    if held is None:
        images = FileImages(source, model.run.config.data.decode)
    else:
        images = ArrayImages(_held(source, held))
    dataset = replace(
        model.run.dataset,
        source=source,
        images=_Counted(images, tick),  # type: ignore[arg-type]
        labels=torch.zeros(len(names), dtype=torch.int64, device=model.run.device),
    )
    found = encode_lengths(replace(model.run, dataset=dataset), np.arange(len(names)))
    broken = source.unreadable.nonzero()[:, 0].tolist()
    reasons = {names[row]: _reason(source.path(row)) for row in broken}
    return {length: each.codes for length, each in found.items()}, reasons


def made_with(run: Run) -> dict[str, Any]:
    """What decides a code beside the model and the image: two codes compare where these agree."""
    return {
        "device": run.device.type,
        "bf16": run.precision.bf16,
        "batch_size": coding_batch_size(run),
        "decode": run.config.data.decode,
    }


def _held(source: FileSource, size: int) -> NDArray[np.uint8]:
    """Pixels (n, size, size, 3) of the files; black where a file cannot be read."""
    array = np.zeros((len(source), size, size, 3), dtype=np.uint8)
    paths = [str(source.path(row)) for row in range(len(source))]
    try:
        decode_files(array, paths, available_cores(), bar=False)
    except UserError:  # of one file at least: which are they?
        for row in range(len(source)):
            source.read(row)
        rows = (source.unreadable == 0).nonzero()[:, 0].numpy()
        readable = np.zeros((len(rows), *array.shape[1:]), dtype=np.uint8)
        decode_files(readable, [paths[row] for row in rows], available_cores(), bar=False)
        array[rows] = readable
    return array


def _reason(path: Path) -> str:
    """Why a file could not be read."""
    try:
        read_image(path)
    except UserError as error:
        return str(error)
    return f"image {path} could not be read at first; run the command again"
