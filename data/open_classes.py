"""Open-set queries: classes taken out of a source before it is split."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from data.source import Source
from utils.errors import UserError

_STREAM = 4  # of random numbers; the other draws from a seed are those of data/split.py
_EMPTY = np.zeros(0, dtype=np.int64)


def hold_out_classes(source: Source, open_classes: int | Sequence[str], seed: int) -> Source:
    """Return the source with some classes made unknown.

    Their query images ('test' or 'query'; all of their images where the source has neither)
    become the subset 'open' with label -1; their other images leave every subset. The remaining
    classes keep their order and are numbered anew.

    open_classes: how many classes, drawn from the seed, or their names.

    Raises:
        UserError: an unknown class name, a negative number, fewer than two classes left, or a
            multi-label source.
    """
    if source.multi_label:
        raise UserError(
            f"data.open_classes with the multi-label dataset {source.name} is not possible"
        )
    held = _held_classes(source, open_classes, seed)
    if not held.any():
        return source
    kept_label = np.append(np.cumsum(~held) - 1, -1)  # the last entry is for label -1
    kept_label[:-1][held] = -1
    is_held = np.append(held, False)[source.labels]

    asked = next((name for name in ("query", "test", "all") if name in source.subsets), None)
    if asked is None:
        raise UserError(f"data.open_classes needs query images; {source.name} has only 'train'")
    unknown = source.subsets[asked][is_held[source.subsets[asked]]]
    subsets = {name: ids[~is_held[ids]] for name, ids in source.subsets.items()}
    subsets["open"] = np.union1d(subsets.get("open", _EMPTY), unknown)
    return replace(
        source,
        class_names=[n for n, out in zip(source.class_names, held, strict=True) if not out],
        labels=kept_label[source.labels],
        subsets=subsets,
    )


def _held_classes(source: Source, open_classes: int | Sequence[str], seed: int) -> np.ndarray:
    """Return (C,) bool: which classes become unknown."""
    held = np.zeros(source.num_classes, dtype=bool)
    if isinstance(open_classes, int):
        if open_classes < 0 or seed < 0:
            name, value = (
                ("training_opt.seed", seed) if seed < 0 else ("data.open_classes", open_classes)
            )
            raise UserError(f"{name} is {value}; expected 0 or more")
        order = np.random.default_rng([seed, _STREAM]).permutation(source.num_classes)
        held[order[:open_classes]] = True
    else:
        for name in [open_classes] if isinstance(open_classes, str) else open_classes:
            if name not in source.class_names:
                raise UserError(f"data.open_classes: {name!r} is not a class of {source.name}")
            held[source.class_names.index(name)] = True
    if held.any() and (~held).sum() < 2:
        raise UserError(
            f"data.open_classes: {held.sum()} open classes of {source.num_classes}; at least 2"
            " classes must stay known"
        )
    return held
