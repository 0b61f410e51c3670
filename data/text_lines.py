"""Lines of the text files that list images and labels, as they are found in the wild."""

from pathlib import Path, PurePosixPath

from utils.errors import UserError


def read_lines(path: Path, what: str, expected: str) -> list[tuple[int, str]]:
    """Return (line number, stripped line) of all lines that are not blank.

    Line ends of Windows and a byte-order mark are taken off.

    what, expected: name the file and its content in messages.

    Raises:
        UserError: the file cannot be read or is not UTF-8 text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(
            f"{what} {path} cannot be read ({error.strerror}); expected {expected}"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{what} {path} is not UTF-8 text; expected {expected}") from error
    stripped = enumerate((line.strip() for line in text.splitlines()), start=1)
    return [(number, line) for number, line in stripped if line]


def image_name(line: str) -> str:
    """Return an image's path as image names are, '/'-separated and without './'.

    Lists made on Windows, NUS-WIDE's own among them, have '\\' between folders.
    """
    return PurePosixPath(line.replace("\\", "/")).as_posix()
