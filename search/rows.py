"""Rows beside the codes: what an index knows of each image."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from utils.errors import UserError

TEXT = ("path", "label", "split")
NUMBERS = ("id", "width", "height")
SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("label", pa.string()),  # the class's name; several are joined by ';'
        ("split", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)


def make_rows(count: int, **columns: Any) -> pa.Table:
    """A table of `SCHEMA` from sequences of `count` values; columns left out are null.

    Raises:
        UserError: a column is unknown, of another length or of another type.
    """
    unknown = sorted(set(columns) - set(SCHEMA.names))
    if unknown:
        raise UserError(f"rows have no column {unknown[0]!r}; they are {', '.join(SCHEMA.names)}")
    arrays = []
    for field in SCHEMA:
        values = columns.get(field.name)
        try:
            array = pa.nulls(count, field.type) if values is None else pa.array(values, field.type)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"rows: {field.name} is not {field.type} ({reason})") from None
        if len(array) != count:
            raise UserError(f"rows: {len(array)} values of {field.name} for {count} codes")
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def check_rows(rows: pa.Table, count: int) -> pa.Table:
    """Rows with the columns of `SCHEMA` in its order, one a code.

    Raises:
        UserError: columns are missing, or there are more or fewer rows than codes.
    """
    missing = [name for name in SCHEMA.names if name not in rows.column_names]
    if missing:
        raise UserError(f"rows lack the column {missing[0]}; make them with search.rows.make_rows")
    if rows.num_rows != count:
        raise UserError(f"got {rows.num_rows} rows for {count} codes, expected one each")
    return pa.table({name: plain(rows[name]) for name in SCHEMA.names}).cast(SCHEMA)


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column without a dictionary."""
    if pa.types.is_dictionary(column.type):
        return pc.cast(column, column.type.value_type)
    return column
