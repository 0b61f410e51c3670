"""An index as the page shows it: what it is, its rows, its nearest images."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search.page_classes import Classes, find_classes, labels_of
from search.sources import SPLITS
from search.store import Ids, Index, Packed
from search.where import Both, Compare, Condition, parse
from utils.errors import UserError

LARGEST_K = 200
MOST_COUNTED = 1_000_000
REFRESHED = 1.0  # seconds that a look at what other processes have written lasts
GONE_BETWEEN = 3  # tries, where another process removes what was just found

Row = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What is looked for: the k nearest of those that meet a condition.

    Attributes:
        k: images.
        label, split: of the images; empty for all.
        where: more conditions, as search.where reads them; empty for none.
    """

    k: int = 10
    label: str = ""
    split: str = ""
    where: str = ""


class Side:
    """One of the indexes that the page shows.

    Args:
        index: opened.
        name: as the page calls it.
    """

    def __init__(self, index: Index, name: str) -> None:
        self.index, self.name = index, name
        self.lock = threading.Lock()
        self.looked = time.monotonic()
        self.version = 0  # counts the changes that were seen
        self._look_again()

    def refresh(self) -> None:
        """See what other processes have written, if the last look is a while ago.

        Raises:
            UserError: the index is gone, or damaged.
        """
        if time.monotonic() - self.looked < REFRESHED or not self.lock.acquire(blocking=False):
            return
        try:
            if self.index.refresh():
                self._look_again()
                self.version += 1
            self.looked = time.monotonic()
        finally:
            self.lock.release()

    def info(self) -> Row:
        """What the page says of the index at its start."""
        coding, classes = self.index.coding, self.classes
        return {
            "name": self.name,
            "items": len(self.index),
            "code_length": coding.code_length,
            "kind": self.kind,
            "store": self.store,
            "model": coding.model_digest[:12],
            "splits": self.splits,
            "sizes": classes.source,
            "labelled": bool(classes.names),
            "classes": [
                {"name": name, "count": classes.counts.get(name), "group": classes.group(name)}
                for name in classes.names
            ],
        }

    def condition(self, asked: Asked) -> Condition | None:
        """The conditions that were asked for, as one.

        Raises:
            UserError: the text is none.
        """
        parts: list[Condition] = [parse(asked.where)] if asked.where.strip() else []
        if asked.label:
            parts.append(self.classes.condition(asked.label))
        if asked.split:
            parts.append(Compare("split", "=", asked.split))
        found = parts[0] if parts else None
        for part in parts[1:]:
            found = Both("AND", found, part) if found else part
        return found

    def browse(self, asked: Asked, offset: int, shuffle: int) -> Row:
        """k rows from `offset` on, by id, or mixed by the seed `shuffle` where that is not 0."""
        for _ in range(GONE_BETWEEN):
            ids = self.index.select(self.condition(asked))
            if shuffle:
                ids = np.random.default_rng(shuffle).permutation(ids)
            shown = ids[offset : offset + asked.k]
            try:
                return {"total": len(ids), "items": self.rows(shown)}
            except UserError as error:
                removed = error
        raise removed

    def nearest(self, code: Packed, asked: Asked, itself: int | None = None) -> Row:
        """The nearest images of a packed code (1, bytes), without the image `itself`."""
        condition = self.condition(asked)
        more = 1 if itself is None else 2  # one beyond the last tells whether its tie goes on
        started = time.perf_counter()
        for _ in range(GONE_BETWEEN):
            hits = self.index.search(code, asked.k + more, condition)
            kept = (hits.ids[0] >= 0) & (hits.ids[0] != (-1 if itself is None else itself))
            ids, distances = hits.ids[0][kept], hits.distances[0][kept]
            try:
                rows = self.rows(ids[: asked.k])
                break
            except UserError as error:
                removed = error
        else:
            raise removed
        taken = (time.perf_counter() - started) * 1e3
        return {
            "milliseconds": round(taken, 2),
            "searched": self._count(condition),
            "cut_tie": bool(
                len(ids) > asked.k > 0 and distances[asked.k] == distances[asked.k - 1]
            ),
            "items": [
                row | place for row, place in zip(rows, _places(distances[: asked.k]), strict=True)
            ],
        }

    def rows(self, ids: Ids | Sequence[int]) -> list[Row]:
        """The rows of images, with the sizes of their classes."""
        return [self._shown(row) for row in self.index.rows(ids).to_pylist()]

    def find_path(self, path: str | None) -> int | None:
        """The id of the image of that path, if there is one."""
        if not path:
            return None
        found = self.index.select(Compare("path", "=", path), limit=1)
        return int(found[0]) if len(found) else None

    def _count(self, condition: Condition | None) -> int | None:
        """Images that meet a condition; None where counting them takes longer than the search."""
        if condition is None:
            return len(self.index)
        return len(self.index.select(condition)) if len(self.index) <= MOST_COUNTED else None

    def _shown(self, row: Row) -> Row:
        labels = labels_of(row["label"])
        known = [(self.classes.counts.get(label), self.classes.group(label)) for label in labels]
        path = row["path"] or ""
        return {
            "id": row["id"],
            "path": Path(path).name if Path(path).is_absolute() else path,
            "label": row["label"] or "",
            "split": row["split"] or "",
            "width": row["width"],
            "height": row["height"],
            "sizes": [{"label": label, "count": count, "group": group}
                      for label, (count, group) in zip(labels, known, strict=True)],
        }  # fmt: skip

    def _look_again(self) -> None:
        self.classes: Classes = find_classes(self.index)
        self.splits = [
            split for split in SPLITS
            if len(self.index.select(Compare("split", "=", split), limit=1))
        ]  # fmt: skip
        info = self.index.info()
        self.kind, self.store = str(info["kind"]), str(info["store"])


def mark_right(items: list[Row], label: str) -> None:
    """Note in each item whether it shares a label with the query, where both have one."""
    wanted = set(labels_of(label))
    for item in items:
        own = set(labels_of(item["label"]))
        item["right"] = bool(wanted & own) if wanted and own else None


def _places(distances: np.ndarray) -> list[Row]:
    """Rank, distance and size of the tie, of each."""
    values, counts = np.unique(distances, return_counts=True)
    tied = dict(zip(values.tolist(), counts.tolist(), strict=True))
    return [
        {"rank": rank + 1, "distance": distance, "tied": tied[distance]}
        for rank, distance in enumerate(distances.tolist())
    ]
