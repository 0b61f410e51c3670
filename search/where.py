"""Conditions on rows: the part of SQL's WHERE that only reads, in both stores' terms.

    label = 'cat' AND (width >= 64 OR split IN ('train', 'database')) AND path NOT LIKE '%.gif'

A text is parsed here and given on as a condition, never as the text that came: what is no
comparison of a row's column with a constant does not parse. NULL makes a comparison unknown, as
in SQL.
"""

import re
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from search.rows import NUMBERS, TEXT
from utils.errors import UserError

Value = str | int | float

LONGEST = 10_000  # characters
DEEPEST = 50  # parentheses and NOTs in one another
_COMPARE = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?)(?![\w.])"
    r"|(?P<word>[A-Za-z_]\w*)|(?P<sign><=|>=|<>|!=|[=<>(),]))",
    re.ASCII,
)


class Condition(Protocol):
    """A parsed condition."""

    def sql(self) -> str:
        """The condition in SQL, made from the parsed parts."""

    def mask(self, table: pa.Table) -> pa.ChunkedArray:
        """Whether each row meets it: boolean, null for unknown."""


@dataclass(frozen=True)
class Compare:
    """A column against a constant."""

    column: str
    sign: str
    value: Value

    def sql(self) -> str:
        """As `Condition`."""
        return f"{self.column} {self.sign} {_quoted(self.value)}"

    def mask(self, table: pa.Table) -> pa.ChunkedArray:
        """As `Condition`."""
        return _over_values(table[self.column], lambda x: _COMPARE[self.sign](x, self.value))


@dataclass(frozen=True)
class Among:
    """A column in a list of constants."""

    column: str
    values: tuple[Value, ...]

    def sql(self) -> str:
        """As `Condition`."""
        return f"{self.column} IN ({', '.join(map(_quoted, self.values))})"

    def mask(self, table: pa.Table) -> pa.ChunkedArray:
        """As `Condition`."""
        values = pa.array(self.values)  # integers, or floats where one is

        def among(column: pa.Array) -> pa.Array:
            found = pc.is_in(column.cast(values.type), value_set=values)
            return pc.if_else(pc.is_valid(column), found, pa.scalar(None, pa.bool_()))

        return _over_values(table[self.column], among)


@dataclass(frozen=True)
class Like:
    """A text against a pattern of % and _."""

    column: str
    pattern: str

    def sql(self) -> str:
        """As `Condition`."""
        return f"{self.column} LIKE {_quoted(self.pattern)}"

    def mask(self, table: pa.Table) -> pa.ChunkedArray:
        """As `Condition`."""
        return _over_values(table[self.column], lambda x: pc.match_like(x, self.pattern))


@dataclass(frozen=True)
class IsNull:
    """A column without a value."""

    column: str

    def sql(self) -> str:
        """As `Condition`."""
        return f"{self.column} IS NULL"

    def mask(self, table: pa.Table) -> pa.ChunkedArray:
        """As `Condition`."""
        return pc.is_null(table[self.column])


@dataclass(frozen=True)
class Not:
    """The opposite."""

    inner: Condition

    def sql(self) -> str:
        """As `Condition`."""
        return f"NOT ({self.inner.sql()})"

    def mask(self, table: pa.Table) -> pa.ChunkedArray:
        """As `Condition`."""
        return pc.invert(self.inner.mask(table))


@dataclass(frozen=True)
class Both:
    """AND, or OR."""

    word: str
    left: Condition
    right: Condition

    def sql(self) -> str:
        """As `Condition`."""
        return f"({self.left.sql()}) {self.word} ({self.right.sql()})"

    def mask(self, table: pa.Table) -> pa.ChunkedArray:
        """As `Condition`."""
        join = pc.and_kleene if self.word == "AND" else pc.or_kleene
        return join(self.left.mask(table), self.right.mask(table))


def parse(text: str | Condition) -> Condition:
    """Read a condition, which may be read already.

    Raises:
        UserError: it is none; says what came where.
    """
    return _Parser(text).whole() if isinstance(text, str) else text


def _over_values(column: pa.ChunkedArray, test) -> pa.ChunkedArray:  # type: ignore[no-untyped-def]
    """A test of each value; of a dictionary's values once each."""
    if not pa.types.is_dictionary(column.type):
        return test(column)
    parts = [pc.take(test(chunk.dictionary), chunk.indices) for chunk in column.chunks]
    return pa.chunked_array(parts, pa.bool_())


def _quoted(value: Value) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


class _Parser:
    """Recursive descent over tokens of (kind, text)."""

    def __init__(self, text: str) -> None:
        if len(text) > LONGEST:
            raise UserError(f"the filter has {len(text)} characters, expected {LONGEST} at most")
        self.text, self.tokens, self.at, self.depth = text, _tokens(text), 0, 0

    def whole(self) -> Condition:
        found = self.either()
        if self.at < len(self.tokens):
            raise self.unexpected("AND, OR or the end")
        return found

    def either(self) -> Condition:
        found = self.both()
        while self.take("OR"):
            found = Both("OR", found, self.both())
        return found

    def both(self) -> Condition:
        found = self.one()
        while self.take("AND"):
            found = Both("AND", found, self.one())
        return found

    def one(self) -> Condition:
        self.depth += 1
        if self.depth > DEEPEST:
            raise UserError(f"the filter nests deeper than {DEEPEST}; write it flatter")
        found: Condition
        if self.take("NOT"):
            found = Not(self.one())
        elif self.take("("):
            found = self.either()
            self.need(")")
        else:
            found = self.comparison(self.column())
        self.depth -= 1
        return found

    def comparison(self, column: str) -> Condition:
        if self.take("IS"):
            negated = self.take("NOT")
            self.need("NULL")
            return Not(IsNull(column)) if negated else IsNull(column)
        if self.take("NOT"):
            return Not(self.membership(column))
        kind, sign = self.peek()
        if kind == "sign" and sign in (*_COMPARE, "<>"):
            self.at += 1
            return Compare(column, "!=" if sign == "<>" else sign, self.value(column))
        return self.membership(column)

    def membership(self, column: str) -> Condition:
        if self.take("IN"):
            self.need("(")
            values = [self.value(column)]
            while self.take(","):
                values.append(self.value(column))
            self.need(")")
            return Among(column, tuple(values))
        if self.take("BETWEEN"):
            low = self.value(column)
            self.need("AND")
            high = Compare(column, "<=", self.value(column))
            return Both("AND", Compare(column, ">=", low), high)
        if column in TEXT and self.take("LIKE"):
            return Like(column, str(self.value(column)))
        raise self.unexpected("=, !=, <, <=, >, >=, IN, BETWEEN, LIKE (of text) or IS")

    def column(self) -> str:
        kind, word = self.peek()
        if kind != "word" or word.lower() not in (*TEXT, *NUMBERS):
            raise self.unexpected(f"a column ({', '.join((*NUMBERS, *TEXT))})")
        self.at += 1
        return word.lower()

    def value(self, column: str) -> Value:
        kind, text = self.peek()
        if kind != ("text" if column in TEXT else "number"):
            wanted = "text in single quotes" if column in TEXT else "a number"
            raise self.unexpected(f"{wanted}, as {column} is,")
        self.at += 1
        if kind == "text":
            return text[1:-1].replace("''", "'")
        value = float(text) if "." in text else int(text)
        if abs(value) >= 2**63:
            raise UserError(f"the filter holds {text}, expected a number below 2^63")
        return value

    def take(self, wanted: str) -> bool:
        kind, text = self.peek()
        found = kind in ("word", "sign") and text.upper() == wanted
        self.at += found
        return found

    def need(self, wanted: str) -> None:
        if not self.take(wanted):
            raise self.unexpected(wanted)

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def unexpected(self, wanted: str) -> UserError:
        kind, text = self.peek()
        came = "ends" if kind == "end" else f"has {text!r}"
        return UserError(
            f"filter {self.text[:200]!r} {came} where {wanted} was expected; "
            "an example: label = 'cat' AND width >= 64"
        )


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise UserError(
                f"filter {text[:200]!r}: cannot read it from {text[at : at + 20]!r} on; "
                "an example: label = 'cat' AND width >= 64"
            )
        found.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return found
