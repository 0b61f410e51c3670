"""Class sizes and MAP along them: how well an index's own queries retrieve from its database."""

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.metrics import evaluate
from search.page_classes import labels_of, sizes_known
from search.page_side import Side
from utils.errors import UserError

QUERY, DATABASE = "split = 'query'", "split = 'database'"
MOST_PAIRS = 5_000_000_000  # of query and database image; beyond, queries are drawn
DRAWN_BY = 0  # seed

Curve = dict[str, Any]


class ClassCurve:
    """The curve of one index: computed by a thread when first asked for, and once its codes change.

    Args:
        side: the index.
    """

    def __init__(self, side: Side) -> None:
        self.side = side
        self.lock = threading.Lock()
        self.version: int | None = None  # of the index, that `found` is or will be of
        self.found: Curve = {}

    def get(self) -> Curve:
        """The curve: `state` is 'computing', 'ready' or 'missing' (then `why` says what)."""
        with self.lock:
            if self.version != self.side.version:
                self.version, self.found = self.side.version, {"state": "computing"}
                threading.Thread(target=self._compute, args=(self.version,), daemon=True).start()
            return self.found

    def _compute(self, version: int) -> None:
        try:
            found = compute(self.side)
        except UserError as error:
            found = {"state": "missing", "why": str(error)}
        except Exception as error:  # a thread's would be lost, and the page wait for ever
            found = {"state": "missing", "why": f"it failed: {type(error).__name__}"}
        with self.lock:
            if self.version == version:
                self.found = found


def compute(side: Side) -> Curve:
    """MAP of each class over the whole ranked database, the exact mean over orders of ties.

    Raises:
        UserError: the index lacks queries, a database, labels or the sizes of classes.
    """
    index, classes = side.index, side.classes
    sizes = sizes_known(classes)
    queries, database = index.select(QUERY), index.select(DATABASE)
    if not len(queries) or not len(database):
        raise UserError(
            f"the index has {len(queries)} images of split 'query' and {len(database)} of split "
            "'database'; build it from a run (python -m search.index build RUN), which has both"
        )
    if not classes.names:
        raise UserError("the index holds no labels; build it from a run, which has them")
    asked = _drawn(queries, len(database))
    numbers = {name: number for number, name in enumerate(classes.names)}
    found = evaluate(
        index.codes(asked),
        index.codes(database),
        _labels(index.rows(asked)["label"].to_pylist(), numbers, classes.multi_label),
        _labels(index.rows(database)["label"].to_pylist(), numbers, classes.multi_label),
        code_length=index.coding.code_length,
        top_k=(),
        train_class_counts=sizes,
    )
    scores = dict(zip(classes.names, found.map_per_class, strict=False))
    return {
        "state": "ready",
        "map": found.map,
        "groups": found.groups,
        "queries": found.queries,
        "queries_there": len(queries),
        "database": found.database,
        "sizes": classes.source,
        "classes": [
            {"name": name, "count": classes.counts.get(name), "group": classes.group(name),
             "map": scores.get(name)}
            for name in classes.names
        ],
    }  # fmt: skip


def _drawn(queries: NDArray[np.int64], database: int) -> NDArray[np.int64]:
    """The queries, or as many of them, drawn at random, as take seconds."""
    most = max(1, MOST_PAIRS // database)
    if len(queries) <= most:
        return queries
    return np.sort(np.random.default_rng(DRAWN_BY).choice(queries, most, replace=False))


def _labels(texts: list[str | None], numbers: dict[str, int], multi: bool) -> NDArray[np.generic]:
    """Class numbers (n,), or multi-hot rows (n, classes) where images have several.

    Raises:
        UserError: an image has no label, or one that is no class.
    """
    unknown = sorted({label for text in set(texts) for label in labels_of(text)} - set(numbers))
    if unknown or (not multi and None in texts):
        what = f"the label {unknown[0]!r}, which is no class" if unknown else "no label"
        raise UserError(f"an image among the index's queries and database has {what}")
    if not multi:
        return np.array([numbers[text] for text in texts if text is not None])
    hot = np.zeros((len(texts), len(numbers)), np.uint8)
    for row, text in enumerate(texts):
        hot[row, [numbers[label] for label in labels_of(text)]] = 1
    return hot
