"""Lines of the text files that list images and labels, as they are found in the wild."""

import codecs
import re
from pathlib import Path, PurePosixPath

from data.faults import shown
from utils.errors import UserError

_MARKS = {  # byte-order marks; that of UTF-32 begins as one of UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_MARK = "\ufeff"


def line_of(path: Path, number: int) -> str:
    """Return the words for a line of a file."""
    return f"{shown(path)}, line {number}"


def read_lines(path: Path, what: str, expected: str) -> list[tuple[int, str]]:
    """Return (line number, stripped line) of all lines that are not blank.

    The text is UTF-8, or what its byte-order mark says. Line ends of Windows, byte-order marks,
    tabs and spaces at both ends are taken off.

    what, expected: name the file and its content in messages.

    Raises:
        UserError: the file cannot be read or is not such text; names the line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{what} {shown(path)} cannot be read ({error.strerror}); expected {expected}"
        ) from error
    coding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(coding)
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{line_of(path, number)}: {what} is not {coding.upper()} text; save it as UTF-8"
        ) from error
    lines = []
    for number, line in enumerate(re.split("\r\n|\r|\n", text), start=1):
        if "\0" in line:
            raise UserError(
                f"{line_of(path, number)}: {what} holds a zero byte, so it is no UTF-8 text;"
                " save it as UTF-8"
            )
        if stripped := line.strip().strip(_MARK).strip():
            lines.append((number, stripped))
    return lines


def image_name(line: str) -> str:
    """Return an image's path as image names are, '/'-separated and without './'.

    Lists made on Windows, NUS-WIDE's own among them, have '\\' between folders.
    """
    return PurePosixPath(line.replace("\\", "/")).as_posix()
