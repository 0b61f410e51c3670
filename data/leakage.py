"""No query may be an image that was trained on or is searched."""

import logging
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from data.faults import shown
from data.images import Images
from data.source import Source
from data.split import Split
from utils.errors import UserError

logger = logging.getLogger("long_tail_hashing")

OnLeak = Literal["error", "warn"]

_SHOWN = 5


def find_leaks(
    query_names: Sequence[str],
    query_digests: Iterable[bytes],
    other_names: Sequence[str],
    other_digests: Iterable[bytes],
) -> list[tuple[str, str]]:
    """Return (query, other) names of equal content, one pair a leaking query, in query order."""
    owner: dict[bytes, str] = {}
    for name, digest in zip(other_names, other_digests, strict=True):
        owner.setdefault(digest, name)
    return [
        (name, owner[digest])
        for name, digest in zip(query_names, query_digests, strict=True)
        if digest in owner
    ]


def check_leakage(
    images: Images,
    source: Source,
    split: Split,
    on_leak: OnLeak = "error",
) -> list[tuple[str, str]]:
    """Compare by content: queries with training and database images, validation with training.

    Open-set queries count as queries. Validation queries may be database images.

    on_leak: 'error' raises at the first finding; 'warn' logs it and returns the leaks.

    Raises:
        UserError: a leak, naming the first files; or `on_leak` is neither word.
    """
    if on_leak not in ("error", "warn"):
        raise UserError(f"on_leak is {on_leak!r}; expected 'error' or 'warn'")
    queries = np.union1d(split.query, split.open_query)
    seen = np.union1d(split.train, split.database)
    leaks = _compare(images, source, queries, seen)
    leaks += _compare(images, source, split.validation, split.train)
    if leaks:
        message = describe_leaks(leaks)
        if on_leak == "error":
            raise UserError(f"{message}; remove them, or set data.on_leak to 'warn' to go on")
        logger.warning(message)
    return leaks


def describe_leaks(leaks: Sequence[tuple[str, str]]) -> str:
    """Return one line that counts the leaks and names the first five."""
    listed = ", ".join(f"{shown(query)} = {shown(other)}" for query, other in leaks[:_SHOWN])
    more = ", ..." if len(leaks) > _SHOWN else ""
    return f"{len(leaks)} queries are copies of training or database images: {listed}{more}"


def _compare(
    images: Images, source: Source, queries: np.ndarray, others: np.ndarray
) -> list[tuple[str, str]]:
    return find_leaks(
        [source.image_names[index] for index in queries],
        images.digests(queries),
        [source.image_names[index] for index in others],
        images.digests(others),
    )
