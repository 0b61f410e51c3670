"""The classes of an index as the page shows them: how many training images, which group."""

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from retrieval.metrics import FEW_BELOW, MANY_ABOVE
from search.store import Coding, Index
from search.where import Both, Compare, Condition, Like

LOOKED_AT = 200_000  # rows, to find the classes of an index that does not state them
JOIN = ";"  # between the labels of an image


@dataclass(frozen=True)
class Classes:
    """Names of classes and, where they are known, their training images.

    Attributes:
        names: of all classes, in the order of their numbers.
        counts: training images of each class by name; empty where nothing tells them.
        source: what told them, in words.
        multi_label: whether an image may have several labels.
    """

    names: tuple[str, ...]
    counts: dict[str, int]
    source: str
    multi_label: bool

    def group(self, label: str) -> str | None:
        """'many', 'medium' or 'few', by OLTR's bounds; None where the size is unknown."""
        count = self.counts.get(label)
        if count is None:
            return None
        if count > MANY_ABOVE:
            return "many"
        return "few" if count < FEW_BELOW else "medium"

    def condition(self, label: str) -> Condition:
        """Rows that have the label, alone or among others."""
        found: Condition = Compare("label", "=", label)
        if self.multi_label:
            for pattern in (f"{label}{JOIN}%", f"%{JOIN}{label}", f"%{JOIN}{label}{JOIN}%"):
                found = Both("OR", found, Like("label", pattern))
        return found


def labels_of(text: str | None) -> list[str]:
    """The labels of a row."""
    return text.split(JOIN) if text else []


def find_classes(index: Index) -> Classes:
    """What the index states of its classes, else what its rows tell."""
    coding = index.coding
    texts, train_counts = _seen(index)
    multi_label = any(JOIN in text for text in texts)
    seen = sorted({label for text in texts for label in labels_of(text)}, key=_by_number)
    names = coding.class_names or tuple(seen)
    if _states_counts(coding):
        counts = dict(zip(names, coding.class_counts, strict=True))
        return Classes(names, counts, "training images, as the model's run counted them",
                       multi_label)  # fmt: skip
    source = "images of the index's split 'train'" if train_counts else ""
    return Classes(names, train_counts, source, multi_label)


def _states_counts(coding: Coding) -> bool:
    return bool(coding.class_names) and len(coding.class_counts) == len(coding.class_names)


def _seen(index: Index) -> tuple[list[str], dict[str, int]]:
    """Distinct texts of labels, and the images of each label in the split 'train'."""
    rows = index.rows(index.select(limit=LOOKED_AT))
    texts = [text for text in pc.unique(rows["label"]).to_pylist() if text]
    complete = len(index) <= LOOKED_AT
    train = rows.filter(pc.equal(rows["split"], "train")) if complete else rows.slice(0, 0)
    counts: dict[str, int] = {}
    for pair in pc.value_counts(train["label"].combine_chunks()).to_pylist():
        for label in labels_of(pair["values"]):
            counts[label] = counts.get(label, 0) + int(pair["counts"])
    return texts, counts


def _by_number(text: str) -> tuple[int, int, str]:
    """Sorts '2' before '10', and numbers before words."""
    return (0, int(text), text) if text.isascii() and text.isdigit() else (1, 0, text)


def sizes_known(classes: Classes) -> np.ndarray | None:
    """Training images of each class, (classes,), or None."""
    if not classes.counts:
        return None
    return np.array([classes.counts.get(name, 0) for name in classes.names])
