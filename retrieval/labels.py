"""Labels of queries and database, and what makes an item relevant."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrieval.codes import Array, as_tensor, as_words, pack_bits
from utils.errors import UserError


@dataclass(frozen=True)
class Labels:
    """Labels of both sides in the one form that the kernels read.

    Single-label: `query` and `database` are class indices, int64 (n,), and `grades` is 2.
    Multi-label: they are multi-hot rows packed into words, int64 (n, ceil(classes / 64)), and an
    item's grade for a query is the number of labels they share, at most `grades` - 1. An item is
    relevant when its grade is at least 1. `classes` counts the classes of both sides.
    """

    query: Tensor
    database: Tensor
    grades: int
    classes: int

    @property
    def multi(self) -> bool:
        """Whether images carry several labels."""
        return self.query.ndim == 2

    def rows(self, start: int, stop: int) -> "Labels":
        """The labels with only the queries from `start` to `stop`."""
        return Labels(self.query[start:stop], self.database, self.grades, self.classes)


def match_labels(query_labels: Array, database_labels: Array, device: torch.device) -> Labels:
    """Check the labels of both sides against each other and bring them to one form.

    Args:
        query_labels: class indices (queries,) or multi-hot (queries, classes).
        database_labels: the same kind for the database.
        device: where the result lives.

    Raises:
        UserError: the kinds differ, a class index is negative or no integer, a multi-hot value is
            neither 0 nor 1, or the numbers of classes differ.
    """
    query = _checked(query_labels, "query_labels").to(device)
    database = _checked(database_labels, "database_labels").to(device)
    if query.ndim != database.ndim:
        raise UserError(
            f"query_labels have shape {tuple(query.shape)} and database_labels "
            f"{tuple(database.shape)}; give both as class indices (n,) or both as multi-hot (n, C)"
        )
    if query.ndim == 1:
        return _single_label(query, database)
    if query.shape[1] != database.shape[1]:
        raise UserError(
            f"query_labels have {query.shape[1]} classes and database_labels "
            f"{database.shape[1]}; both must list the same classes"
        )
    return _multi_label(query, database)


def _checked(labels: Array, name: str) -> Tensor:
    tensor = as_tensor(labels)
    if tensor.ndim == 1:
        if tensor.is_floating_point() or tensor.dtype == torch.bool:
            raise UserError(f"{name} are {tensor.dtype} of shape (n,), expected integer indices")
        if len(tensor) and bool((tensor < 0).any()):
            raise UserError(f"{name} hold {int(tensor.min())}, expected class indices from 0 up")
        return tensor.long()
    if tensor.ndim != 2 or tensor.shape[1] == 0:
        raise UserError(
            f"{name} have shape {tuple(tensor.shape)}, expected indices (n,) or multi-hot (n, C)"
        )
    if not bool(((tensor == 0) | (tensor == 1)).all()):
        raise UserError(
            f"{name} of shape (n, C) hold other values than 0 and 1, expected multi-hot"
        )
    return tensor.bool()


def _single_label(query: Tensor, database: Tensor) -> Labels:
    classes = 1 + max(int(side.max()) if len(side) else 0 for side in (query, database))
    return Labels(query, database, grades=2, classes=classes)


def _multi_label(query: Tensor, database: Tensor) -> Labels:
    counts = [side.sum(1) for side in (query, database)]
    classes = query.shape[1]
    if all(bool((count == 1).all()) for count in counts):  # one-hot rows are plain class indices
        return Labels(query.byte().argmax(1), database.byte().argmax(1), 2, classes)
    most = [int(count.max()) if len(count) else 0 for count in counts]
    words = [as_words(pack_bits(side)) for side in (query, database)]
    return Labels(words[0], words[1], max(1, min(most)) + 1, classes)


def class_sums(labels: Labels, values: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the queries' `values` over each class, and queries of each class, float64 (classes,).

    A query with several labels counts in each of its classes.
    """
    if labels.multi:
        shifts = torch.arange(64, device=labels.query.device)
        member = (labels.query[:, :, None] >> shifts & 1).flatten(1)[:, : labels.classes].double()
        return values @ member, member.sum(0)
    counts = torch.bincount(labels.query, minlength=labels.classes).double()
    sums = torch.zeros_like(counts).index_add_(0, labels.query, values)
    return sums, counts


def class_counts(values: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Training images of each class as int64 (classes,).

    Raises:
        UserError: not one-dimensional, or a count is negative or no whole number.
    """
    counts = as_tensor(np.asarray(values)).numpy()
    if counts.ndim != 1 or (counts < 0).any() or (counts != np.floor(counts)).any():
        raise UserError(
            f"train_class_counts of shape {counts.shape} must be whole numbers, one a class"
        )
    return counts.astype(np.int64)
