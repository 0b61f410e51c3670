"""Rows are added to a file of the same columns only."""

import pytest

from benchmarks.rows import append_row
from utils.errors import UserError


def test_a_file_of_other_columns_is_refused_and_left(tmp_path):
    path = tmp_path / "rows.csv"
    append_row(path, {"a": 1, "b": "x, y"})
    append_row(path, {"a": 2, "b": ""})
    with pytest.raises(UserError, match="columns differ"):
        append_row(path, {"a": 1})
    assert path.read_text() == 'a,b\n1,"x, y"\n2,\n'
