"""Rows of figures, kept in CSV files."""

import csv
import io
from pathlib import Path
from typing import Any

from utils.atomic_file import write_text
from utils.errors import UserError


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add a row to a CSV file, which gets a header when it is new.

    Raises:
        UserError: the file's columns are others.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ",".join(row) + "\n"
    header = next(csv.reader([text.splitlines()[0]]))
    if header != list(row):
        raise UserError(f"{path}: its columns differ from this benchmark's; give another file")
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(row.values())
    write_text(path, text + line.getvalue())
