"""Open-set queries: images of classes never trained on, to be rejected by Hamming distance."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from engine.coding import Encoded, Encoder
from engine.run import Run
from retrieval.hamming import nearest
from utils.errors import UserError

UNKNOWN = -1
ACCEPTED_SHARE = 0.95  # of the validation queries, all of known classes


def evaluate_open_set(
    run: Run,
    encoder: Encoder,
    query: Encoded,
    database: Encoded,
) -> dict[str, float]:
    """Reject queries whose nearest database code is far.

    The threshold is the least distance that accepts 95 % of the validation queries, which are of
    known classes and are looked up in the database without them.

    Args:
        run: of one code length.
        encoder: gives the codes of images by index.
        query, database: the codes of the split's queries and database.

    Returns:
        `auroc` of the distance as a sign of the unknown (ties count half), `f_measure` (OLTR's),
        `threshold` in bits, and the shares `known_accepted` and `unknown_rejected`.

    Raises:
        UserError: if there are no open-set queries, or the labels are multi-hot.
    """
    split, source = run.dataset.split, run.dataset.source
    check_open_queries(run)
    rest = np.isin(split.database, split.validation, invert=True)
    (bits,) = run.config.training_opt.code_lengths
    validation = encoder(run, split.validation)
    unknown = encoder(run, split.open_query)
    accepted = _distances(validation.codes, database.codes[rest], bits)
    threshold = float(np.quantile(accepted, ACCEPTED_SHARE, method="higher"))

    asked = np.concatenate([query.codes, unknown.codes])
    distances, found = _nearest_one(asked, database.codes, bits)
    labels = np.concatenate([source.labels[split.query], np.full(len(split.open_query), UNKNOWN)])
    predicted = source.labels[split.database][found]
    if query.logits is not None and unknown.logits is not None:
        predicted = np.concatenate([query.logits, unknown.logits]).argmax(1)
    predicted = np.where(distances > threshold, UNKNOWN, predicted)
    known = labels != UNKNOWN
    return {
        "auroc": float(roc_auc_score(~known, distances)),
        "f_measure": f_measure(predicted, labels),
        "threshold": threshold,
        "known_accepted": float((predicted[known] != UNKNOWN).mean()),
        "unknown_rejected": float((predicted[~known] == UNKNOWN).mean()),
    }


def check_open_queries(run: Run) -> None:
    """Raise a UserError unless the run's data has open-set queries."""
    if not len(run.dataset.split.open_query):
        raise UserError(
            f"--test_open: {run.dataset.source.name} has no open-set queries; "
            "hold classes out with data.open_classes, or add a folder or list named open"
        )
    if run.dataset.source.multi_label:
        raise UserError("--test_open: open-set queries need one label an image, not several")


def f_measure(predicted: NDArray[Any], labels: NDArray[Any]) -> float:
    """OLTR's open-set F-measure; -1 stands for unknown in both arrays (n,).

    A known query counts as a true positive if its class is predicted, else as a false positive;
    an unknown query that is not rejected counts as a false negative (Liu et al., CVPR 2019).
    """
    known = labels != UNKNOWN
    true_positives = int(((predicted == labels) & known).sum())
    false_positives = int(((predicted != labels) & known).sum())
    false_negatives = int(((predicted != labels) & ~known).sum())
    denominator = 2 * true_positives + false_positives + false_negatives
    return 2 * true_positives / denominator if denominator else 0.0


def _distances(asked: NDArray[Any], database: NDArray[Any], bits: int) -> NDArray[Any]:
    return _nearest_one(asked, database, bits)[0]


def _nearest_one(
    asked: NDArray[Any], database: NDArray[Any], bits: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    indices, distances = nearest(asked, database, 1, code_length=bits)
    return np.asarray(distances)[:, 0], np.asarray(indices)[:, 0]
