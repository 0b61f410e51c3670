"""All that the page answers from: indexes, their coders, pictures and curves."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np

from search.coder import query_coder
from search.opening import open_index
from search.page_coder import CodingQueue, QuickCoder
from search.page_curve import ClassCurve
from search.page_pictures import Pictures
from search.page_side import Asked, Side
from search.page_upload import MAX_BYTES, Uploads
from search.store import Index
from utils.errors import UserError


@dataclass
class Shown:
    """An index with what shows it.

    Attributes:
        queue: codes pictures for it; None where no model does.
        no_coder: why none does.
    """

    side: Side
    pictures: Pictures
    curve: ClassCurve
    queue: CodingQueue | None
    no_coder: str = ""


@dataclass
class Page:
    """What the page shows; to be closed.

    Args:
        indexes: folders or URIs, one or two.
        checkpoints: of each index, what codes for it, if not what it names.
        also: folders beside those of the indexes' images whose pictures may be shown.
        max_bytes: of an uploaded picture.
    """

    indexes: Sequence[str]
    checkpoints: Sequence[str] = ()
    also: Sequence[str] = ()
    max_bytes: int = MAX_BYTES
    shown: list[Shown] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="search_page_")
        self.uploads = Uploads(Path(self._folder.name), self.max_bytes)
        opened = [open_index(place) for place in self.indexes]
        for number, (index, name) in enumerate(zip(opened, _names(self.indexes), strict=True)):
            queue, why = self._coder(index, number)
            side = Side(index, name)
            if len(index):  # the first search compiles
                side.nearest(index.codes(index.select(limit=1)), Asked(1))
            pictures = Pictures(index, [Path(each) for each in self.also])
            self.shown.append(Shown(side, pictures, ClassCurve(side), queue, why))

    def __enter__(self) -> "Page":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        for queue in {id(each.queue): each.queue for each in self.shown}.values():
            if queue is not None:
                queue.close()
        self._folder.cleanup()

    def _coder(self, index: Index, number: int) -> tuple[CodingQueue | None, str]:
        """What codes pictures for an index; the same as for an index before, if that fits."""
        stated = self.checkpoints[number] if number < len(self.checkpoints) else None
        for before in self.shown:
            same = before.queue and before.side.index.coding.model_digest
            if same and _same_codes(before.side.index, index) and stated is None:
                return before.queue, ""
        try:
            return CodingQueue(QuickCoder(query_coder(index.coding, stated))), ""
        except UserError as error:
            if stated is not None:
                raise
            return None, f"pictures cannot be coded: {error}"


def _same_codes(one: Index, other: Index) -> bool:
    one_coding, other_coding = one.coding, other.coding
    return (one_coding.model_digest, one_coding.code_length) == (
        other_coding.model_digest, other_coding.code_length,
    )  # fmt: skip


def _names(places: Sequence[str]) -> list[str]:
    """Short names of the indexes, each another."""
    short = [place.rstrip("/").rsplit("/", 1)[-1] or place for place in places]
    if len(set(short)) < len(short):
        return [f"{name} ({number + 1})" for number, name in enumerate(short)]
    return short


def from_hex(text: str, side: Side) -> np.ndarray:
    """The packed code (1, bytes) that a text of hexadecimal digits states.

    Raises:
        UserError: it states none of the index's length.
    """
    try:
        code = np.frombuffer(bytes.fromhex(text), np.uint8)[None]
    except ValueError:
        raise UserError(f"the code {text[:40]!r} is not hexadecimal") from None
    return side.index.coding.check_codes(code)
