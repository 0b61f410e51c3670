"""What a config's values may be: what YAML, a checkpoint and the name of a file can hold."""

import math
import reprlib
import unicodedata
from collections.abc import Iterator
from itertools import count
from typing import Any

from utils.errors import UserError

DEEPEST = 20  # lists and dicts within each other
MOST = 100_000  # values in all: a few lines of YAML can stand for billions
LARGEST = 2**63  # numbers that every library takes
LONGEST = 4096  # characters, of a path
LONGEST_NAME = 255  # bytes, of a part of a path

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 100
_short.maxlist = _short.maxtuple = _short.maxdict = 8


def shown(value: Any) -> str:
    """The value for a message, as Python writes it; long ones are cut."""
    return _short.repr(value)


def plain_copy(value: Any) -> Any:
    """A copy of a config's dict, no two parts of which are one object.

    Raises:
        UserError: naming the key, if a value is no text, finite number, True, False, None, list or
            dict with texts as keys; is absurdly large; or is a text that no file's name can hold.
    """
    return _copy(value, "config", 0, count())


def _copy(value: Any, key: str, depth: int, visited: Iterator[int]) -> Any:
    if depth > DEEPEST or next(visited) > MOST:
        raise UserError(f"{key[:200]} holds too many lists and dicts within each other")
    if isinstance(value, dict):
        return {
            _check_name(name, key): _copy(
                each, f"{key}.{name}" if depth else name, depth + 1, visited
            )
            for name, each in value.items()
        }
    if isinstance(value, list | tuple):
        kind = list if isinstance(value, list) else tuple
        return kind(_copy(each, key, depth + 1, visited) for each in value)
    if isinstance(value, str):
        return check_text(value, key)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _check_number(value, key)
    raise UserError(
        f"{key} is {shown(value)} ({type(value).__name__}), expected text, a number, True, False, "
        "None, a list or a dict"
    )


def _check_name(name: Any, key: str) -> str:
    if name == "":
        raise UserError(f"a key of {key} is empty, expected a name")
    return check_text(name, f"a key of {key}")


def _check_number(value: int | float, key: str) -> int | float:
    if isinstance(value, int):
        if abs(value) >= LARGEST:
            raise UserError(f"{key} is a number of {value.bit_length()} bits, expected at most 63")
        return int(value)
    if not math.isfinite(value):
        raise UserError(f"{key} is {value}, expected a finite number")
    return float(value)  # of numpy's floats, which YAML cannot hold


def check_text(value: Any, key: str) -> str:
    """The text itself.

    Raises:
        UserError: it is none, or has characters or a length that no path may have.
    """
    if not isinstance(value, str):
        raise UserError(f"{key} is {shown(value)}, expected text")
    if any(unicodedata.category(each) in ("Cc", "Cs") for each in value):
        raise UserError(f"{key} is {shown(value)}, expected text without control characters")
    parts = value.split("/")
    if len(value) > LONGEST or any(len(part.encode()) > LONGEST_NAME for part in parts):
        raise UserError(
            f"{key} is a text of {len(value)} characters, expected at most {LONGEST}, and "
            f"{LONGEST_NAME} bytes between two slashes"
        )
    return value
