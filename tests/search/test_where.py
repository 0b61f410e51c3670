import sqlite3

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.where import DEEPEST, LONGEST, parse
from utils.errors import UserError

TEXTS = ["cat", "o'neil", "", "50%_off", "Cat", "\\", "ü;b", None]
NUMBERS = [-3, 0, 7, 64, None]
ROWS = [
    {"id": at, "path": TEXTS[at % 8], "label": TEXTS[at * 5 % 8], "split": None,
     "width": NUMBERS[at % 5], "height": NUMBERS[at * 3 % 5]}
    for at in range(40)
]  # fmt: skip


@pytest.fixture(scope="module")
def sqlite():
    """SQLite's answer to the same WHERE."""
    base = sqlite3.connect(":memory:")
    base.execute("PRAGMA case_sensitive_like = ON")
    base.execute("CREATE TABLE images (id, path, label, split, width, height)")
    base.executemany(
        "INSERT INTO images VALUES (:id, :path, :label, :split, :width, :height)", ROWS
    )
    return lambda where: {row[0] for row in base.execute(f"SELECT id FROM images WHERE {where}")}


def rows_table(dictionary):
    columns = {
        "id": pa.int64(), "path": pa.string(), "label": pa.string(),
        "split": pa.string(), "width": pa.int32(), "height": pa.int32(),
    }  # fmt: skip
    table = pa.Table.from_pylist(ROWS, schema=pa.schema(list(columns.items())))
    halves = pa.concat_tables([table.slice(0, 13), table.slice(13)])
    if not dictionary:
        return halves
    at = halves.schema.get_field_index("label")
    return halves.set_column(at, "label", halves["label"].dictionary_encode())


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


texts = st.sampled_from([text for text in TEXTS if text is not None])
numbers = st.sampled_from(["-3", "0", "7.5", "64", "1000"])
signs = st.sampled_from(["=", "!=", "<>", "<", "<=", ">", ">="])


def comparisons():
    text_column = st.sampled_from(["path", "label", "split"])
    number_column = st.sampled_from(["id", "width", "HEIGHT"])
    negated = st.sampled_from(["", "NOT "])
    text_list = st.lists(texts.map(quoted), min_size=1, max_size=3).map(", ".join)
    number_list = st.lists(numbers, min_size=1, max_size=3).map(", ".join)
    return st.one_of(
        st.builds("{} {} {}".format, text_column, signs, texts.map(quoted)),
        st.builds("{} {} {}".format, number_column, signs, numbers),
        st.builds("{} {}IN ({})".format, text_column, negated, text_list),
        st.builds("{} {}in ({})".format, number_column, negated, number_list),
        st.builds("{} {}BETWEEN {} AND {}".format, number_column, negated, numbers, numbers),
        st.builds("{} {}LIKE {}".format, text_column, negated,
                  st.sampled_from(["'%a%'", "'c_t'", "'%'", "''"])),
        st.builds("{} IS {}NULL".format, text_column | number_column, negated),
    )  # fmt: skip


conditions = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        st.builds("({}) AND {}".format, inner, inner),
        st.builds("{} or ({})".format, inner, inner),
        st.builds("NOT ({})".format, inner),
    ),
    max_leaves=5,
)


@settings(max_examples=300)
@given(where=conditions, dictionary=st.booleans())
def test_conditions_mean_what_sqlite_takes_them_to_mean(sqlite, where, dictionary):
    expected = sqlite(where)
    condition = parse(where)
    mask = condition.mask(rows_table(dictionary)).to_pylist()
    assert {row["id"] for row, meets in zip(ROWS, mask, strict=True) if meets} == expected
    assert sqlite(condition.sql()) == expected


@pytest.mark.parametrize(
    "where",
    [
        "",
        "label",
        "label =",
        "label = cat",
        "label = 3",
        "width = '3'",
        "width = 99999999999999999999",
        "colour = 'red'",
        "label = 'cat' garbage",
        "label = 'cat'; DROP TABLE images",
        "label = 'cat' -- comment",
        "label = 'unfinished",
        "1 = 1",
        "width = width",
        "label IN ()",
        "label IN (SELECT path FROM images)",
        "label = load_extension('x')",
        "label = char(65)",
        "width LIKE '3%'",
        "(label = 'cat'",
        "label = 'cat' AND",
        'label = "cat"',
        "label = 'a' UNION SELECT 1",
        "NOT " * (DEEPEST + 1) + "width = 1",
        "(" * 3000 + "width = 1" + ")" * 3000,
        "label = '" + "x" * LONGEST + "'",
        "label = 'cat\\' OR 1=1",
    ],
)
def test_all_else_is_refused_in_one_line(where):
    with pytest.raises(UserError) as refused:
        parse(where)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


def test_a_quote_in_a_value_stays_in_the_value():
    condition = parse("label = 'x'' OR ''1''=''1'")
    assert condition.value == "x' OR '1'='1"
    assert condition.sql() == "label = 'x'' OR ''1''=''1'"
