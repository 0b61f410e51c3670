"""What every index of codes offers, whichever store keeps it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrieval.codes import as_tensor, check_packed
from search.where import Condition
from utils.errors import UserError

STORES = ("faiss", "lance")
KINDS = ("flat", "ivf", "hnsw", "mih")
BIT_ORDER = "little"  # bit i of a code is bit i % 8, the least significant first, of byte i // 8

Packed = NDArray[np.uint8]
Ids = NDArray[np.int64]
Where = str | Condition | None


@dataclass(frozen=True)
class Coding:
    """Which codes an index holds, and what made them.

    Attributes:
        code_length: bits of a code.
        model_digest: names the weights that made the codes; empty where nothing told it.
        checkpoint: what codes a query picture: a checkpoint, a published folder or a run's.
        image_root: the folder that the rows' paths are relative to; empty for none.
        class_names: one name a class, or none.
        class_counts: training images of each class, or none.
        bit_order: of the packed codes.
    """

    code_length: int
    model_digest: str = ""
    checkpoint: str = ""
    image_root: str = ""
    class_names: tuple[str, ...] = ()
    class_counts: tuple[int, ...] = ()
    bit_order: str = BIT_ORDER

    @property
    def code_bytes(self) -> int:
        """Bytes of a packed code."""
        return -(-self.code_length // 8)

    def check_model(self, digest: str | None) -> None:
        """Refuse codes that another model made; None or an unknown model passes.

        Raises:
            UserError: the digests differ.
        """
        if digest and self.model_digest and digest != self.model_digest:
            raise UserError(
                f"the codes come from the model {digest[:12]}, but the index holds codes of "
                f"{self.model_digest[:12]}; code with {self.checkpoint or 'that model'}, or build "
                "another index"
            )

    def check_codes(self, codes: Packed) -> Packed:
        """Packed codes of this length as a contiguous array.

        Raises:
            UserError: they are not uint8 of the right width, or bits past the length are set.
        """
        packed = np.ascontiguousarray(codes)
        if packed.ndim == 2 and packed.dtype == np.uint8 and packed.shape[1] != self.code_bytes:
            raise UserError(
                f"codes of {packed.shape[1]} bytes came to an index of {self.code_length} bits, "
                f"which takes {self.code_bytes}; code with the index's model"
            )
        check_packed(as_tensor(packed), self.code_length)
        return packed

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a manifest."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Coding":
        """What `to_dict` gave, after a journey through JSON.

        Raises:
            UserError: the bit order is another than this project's.
        """
        lists = {name: tuple(values[name]) for name in ("class_names", "class_counts")}
        coding = Coding(**{**values, **lists})
        if coding.bit_order != BIT_ORDER:
            raise UserError(
                f"the index has bit order {coding.bit_order!r}, expected {BIT_ORDER!r}; "
                "build it again with this version"
            )
        return coding


@dataclass(frozen=True)
class Hits:
    """The nearest items of each query, ordered by (distance, id).

    Attributes:
        ids: int64 (queries, k); -1 where fewer than k items are there.
        distances: Hamming distances int32 (queries, k); -1 there too.
    """

    ids: Ids
    distances: NDArray[np.int32]


class Index(ABC):
    """Codes with stable ids and a row each, searched by Hamming distance.

    Ids count up from 0 and are never used again. One process writes at a time, and a write is
    on disk when its call returns; readers go on with what they opened until `refresh`.
    """

    coding: Coding

    @abstractmethod
    def __len__(self) -> int:
        """Items that can be found."""

    @abstractmethod
    def add(self, codes: Packed, rows: pa.Table, model_digest: str | None = None) -> Ids:
        """Add packed codes (n, bytes) with a row each (search.rows); returns their ids (n,).

        Raises:
            UserError: codes or rows do not fit, another model made them, or another process
                is writing.
        """

    @abstractmethod
    def remove(self, ids: Ids | Sequence[int]) -> int:
        """Remove items for good; returns how many.

        Raises:
            UserError: an id is not there, or another process is writing.
        """

    @abstractmethod
    def search(
        self,
        codes: Packed,
        k: int,
        where: Where = None,
        *,
        model_digest: str | None = None,
        effort: int | None = None,
        exact: bool = False,
    ) -> Hits:
        """The k nearest of each query.

        Args:
            codes: packed queries (queries, bytes).
            k: items a query.
            where: a condition on the rows, as text (search.where) or read already; those that
                meet it are searched exactly.
            model_digest: of the model that made the queries.
            effort: lists probed (ivf), candidates kept (hnsw) or bits flipped (mih); None is the
                kind's default.
            exact: scan, whatever structure there is.

        Raises:
            UserError: codes, k, condition or model do not fit.
        """

    @abstractmethod
    def rows(self, ids: Ids | Sequence[int]) -> pa.Table:
        """The rows of items, in the order of `ids`: id, path, label, split, width, height.

        Raises:
            UserError: an id is not there.
        """

    @abstractmethod
    def codes(self, ids: Ids | Sequence[int]) -> Packed:
        """The packed codes of items, in the order of `ids`.

        Raises:
            UserError: an id is not there.
        """

    @abstractmethod
    def select(self, where: Where = None, limit: int | None = None, offset: int = 0) -> Ids:
        """Ids, ascending, of the items whose rows meet a condition."""

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """What the index is, in plain values."""

    @abstractmethod
    def verify(self) -> list[str]:
        """Read everything; returns a line for each fault, none when all is well."""

    @abstractmethod
    def compact(self, kind: str | None = None) -> None:
        """Merge what adds and removes left apart, and build the structure (anew, of `kind`)."""

    @abstractmethod
    def refresh(self) -> bool:
        """See what others have written since; returns whether there was something."""


def check_k(k: int) -> None:
    """Refuse k below 1."""
    if k < 1:
        raise UserError(f"asked for the {k} nearest, expected at least 1")


def check_kind(kind: str, offered: Sequence[str], store: str) -> None:
    """Refuse a kind that a store does not offer."""
    if kind not in offered:
        raise UserError(
            f"the {store} store has no kind {kind!r}; its kinds are {', '.join(offered)}"
        )


def no_such_id(missing: int) -> UserError:
    """The error for an id that is not there."""
    return UserError(f"the index has no id {missing}; it was removed or never given")
