"""Mistakes in data: all of a kind in one error, and names that stay on one line."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from utils.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


class DataError(UserError):
    """Mistakes in the data; the message is the first of them and how many there are.

    faults: all of them, one line each.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        count = len(faults)
        more = f" (the first of {count} faults; --check_data lists all)" if count > 1 else ""
        super().__init__(f"{faults[0]}{more}")
        self.faults = list(faults)


def for_all(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Return function(item) of every item.

    Raises:
        DataError: the UserErrors of all items that gave one.
    """
    results, faults = [], []
    for item in items:
        try:
            results.append(function(item))
        except DataError as error:
            faults += error.faults
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise DataError(faults)
    return results


def shown(name: str | os.PathLike[str]) -> str:
    """Return a name for a message: as it is, or escaped where it would break the line.

    Line ends, control characters and bytes that are not UTF-8 are escaped.
    """
    text = os.fspath(name)
    return text if text.isprintable() else repr(text)
