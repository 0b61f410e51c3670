"""Consecutive batches made at once: of few images, launches take longer than the kernels."""

from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

B = TypeVar("B", bound=Sized)
AT_ONCE = 256  # images on a GPU


def group_batches(batches: Iterable[B], least: int) -> Iterator[list[B]]:
    """Join consecutive batches until a group has `least` images; the last may have fewer."""
    group: list[B] = []
    for batch in batches:
        group.append(batch)
        if sum(map(len, group)) >= least:
            yield group
            group = []
    if group:
        yield group
