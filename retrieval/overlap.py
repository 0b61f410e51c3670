"""Queries that sit in the database: they find themselves and flatter every score."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval.codes import Codes

Strings = np.ndarray[Any, np.dtype[np.str_]]


@dataclass(frozen=True)
class Overlap:
    """Queries also found in the database; None where there was nothing to compare by.

    Attributes:
        same_name_and_code: their name and their code both are in one database item.
        same_content: their pixels are.
        examples: indices of up to ten such queries.
    """

    same_name_and_code: int | None
    same_content: int | None
    examples: tuple[int, ...]

    @property
    def any(self) -> bool:
        """Whether a query sits in the database."""
        return bool(self.same_name_and_code or self.same_content)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return vars(self) | {"examples": list(self.examples)}


def find_overlap(
    codes: Codes, query_digests: Strings | None = None, database_digests: Strings | None = None
) -> Overlap:
    """Compare queries and database by (code, name), and by content where digests are given.

    Args:
        codes: with names, or that comparison is left out.
        query_digests: `content_digests` of the query images, (queries,).
        database_digests: of the database images, (database,).
    """
    named = content = None
    if codes.query_names is not None and codes.database_names is not None:
        database = set(zip(codes.database_names, _rows(codes.database_codes), strict=True))
        pairs = zip(codes.query_names, _rows(codes.query_codes), strict=True)
        named = np.array([pair in database for pair in pairs], dtype=bool)
    if query_digests is not None and database_digests is not None:
        content = np.isin(query_digests, database_digests)
    marks = [mark for mark in (named, content) if mark is not None]
    examples = np.flatnonzero(np.logical_or.reduce(marks))[:10] if marks else np.empty(0, int)
    return Overlap(
        same_name_and_code=None if named is None else int(named.sum()),
        same_content=None if content is None else int(content.sum()),
        examples=tuple(int(index) for index in examples),
    )


def content_digests(images: Iterable[Any]) -> Strings:
    """SHA-256 of each image's shape, type and pixels; equal for equal images only."""
    digests = []
    for image in images:
        pixels = np.ascontiguousarray(image)
        head = f"{pixels.shape} {pixels.dtype}".encode()
        digests.append(hashlib.sha256(head + pixels.tobytes()).hexdigest())
    return np.array(digests, dtype=np.str_)


def _rows(packed: np.ndarray[Any, np.dtype[np.uint8]]) -> list[bytes]:
    return [row.tobytes() for row in packed]
