"""Binary codes of a run's images: sgn of what the last network, or a shallow hasher, gives.

A kernel may round otherwise in a batch of another size, and a bit whose output is nearly 0 would
turn. So all batches are of one size, the last filled up: then the code of an image does not depend
on which others are coded with it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from engine.model import collect_outputs
from engine.run import Run
from retrieval.codes import binarize, pack
from utils.distributed import world_size
from utils.errors import UserError

CPU_BATCH = 32  # images at a time; more are not faster there, and fewer fill up the last batch
_RESIZED = 256  # small images that data.images makes ready at a time on a GPU, at least


@dataclass(frozen=True)
class Encoded:
    """Packed codes (n, ceil(q/8)) uint8 of n images and, where there is a classifier, logits."""

    codes: NDArray[np.uint8]
    logits: NDArray[np.float32] | None


Encoder = Callable[[Run, NDArray[np.int64]], Encoded]


def encode(run: Run, indices: NDArray[np.int64]) -> Encoded:
    """Code the images of `indices`, in their order, with the networks of a run of one length."""
    (encoded,) = encode_lengths(run, indices).values()
    return encoded


def network_encoders(run: Run) -> dict[int, Encoder]:
    """An encoder a code length, by the run's networks; one pass over images serves all lengths."""
    return encoders_by_length(run, partial(encode_lengths, run))


def encoders_by_length(
    run: Run, encode_all: Callable[[NDArray[np.int64]], dict[int, Encoded]]
) -> dict[int, Encoder]:
    """An encoder a code length of the run, by what codes images in all lengths at once.

    The codes of the images asked for last are kept for the other lengths.
    """
    lengths = run.config.training_opt.code_lengths
    kept: list[tuple[NDArray[np.int64], dict[int, Encoded]]] = []

    def one_of(code_length: int, _: Run, indices: NDArray[np.int64]) -> Encoded:
        if not kept or kept[0][0] is not indices:
            kept[:] = [(indices, encode_all(indices))]
        found = kept[0][1][code_length]
        if len(lengths) == 1:
            kept.clear()
        return found

    return {length: partial(one_of, length) for length in lengths}


def coding_batch_size(run: Run) -> int:
    """Images that go through the networks at once."""
    size = run.config.training_opt.evaluation_batch_size
    return size if run.device.type == "cuda" else min(size, CPU_BATCH)


def coding_block(run: Run) -> int:
    """Images that are resized and coded in kernels of one size: a number of whole batches."""
    size = coding_batch_size(run)
    return size * -(-_RESIZED // size) if run.device.type == "cuda" else size


def encode_lengths(run: Run, indices: NDArray[np.int64]) -> dict[int, Encoded]:
    """Codes of the images of `indices`, in their order, by code length.

    Raises:
        UserError: if the networks do not give codes of each length.
    """
    names = run.config.training_opt.code_outputs
    count = len(indices)
    added = -count % (coding_block(run) * world_size())
    found = collect_outputs(
        run.model,
        run.dataset,
        np.pad(indices, (0, added), "edge"),
        run.augmentation,
        run.precision,
        (*names.values(), "logits"),
        coding_batch_size(run),
        run.config.training_opt.mirror_codes,
    )
    outputs = {name: values[:count] for name, values in found.items()}
    missing = [name for name in names.values() if name not in outputs]
    if missing:
        raise UserError(f"the networks give no {', '.join(missing)}; use another head")
    logits = outputs["logits"].cpu().numpy() if "logits" in outputs else None
    return {
        length: Encoded(np.asarray(pack(binarize(outputs[name].cpu().numpy()))), logits)
        for length, name in names.items()
    }
