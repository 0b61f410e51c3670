"""Binary codes of a run's images: sgn of what the last network, or a shallow hasher, gives."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.model import collect_outputs
from engine.run import Run
from retrieval.codes import binarize, pack


@dataclass(frozen=True)
class Encoded:
    """Packed codes (n, ceil(q/8)) uint8 of n images and, where there is a classifier, logits."""

    codes: NDArray[np.uint8]
    logits: NDArray[np.float32] | None


def encode(run: Run, indices: NDArray[np.int64]) -> Encoded:
    """Code the images of `indices`, in their order, with the run's networks."""
    batch_size = run.config.training_opt.evaluation_batch_size
    outputs = collect_outputs(
        run.model,
        run.dataset,
        indices,
        run.augmentation,
        run.precision,
        ("codes", "logits"),
        batch_size,
    )
    codes = np.asarray(pack(binarize(outputs["codes"].cpu().numpy())))
    return Encoded(codes, outputs["logits"].cpu().numpy())
