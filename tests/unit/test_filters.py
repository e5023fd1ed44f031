import json
import math
import operator
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearmq_index_store.errors import IndexCorrupt, InvalidExpression
from nearmq_index_store.filters import ColumnType, Filter, compile_filter, compiling

Row = dict[str, Any]

COLUMNS = {
    "id": ColumnType("int64"),
    "year": ColumnType("int64", nullable=True),
    "score": ColumnType("float64", nullable=True),
    "title": ColumnType("string", nullable=True),
    "sold": ColumnType("bool", nullable=True),
    "sizes": ColumnType("int64", is_array=True, nullable=True),
    "rates": ColumnType("float64", is_array=True, nullable=True),
    "tags": ColumnType("string", is_array=True, nullable=True),
    "flags": ColumnType("bool", is_array=True, nullable=True),
    "meta": ColumnType("json", nullable=True),
    "events": ColumnType("json", is_array=True, nullable=True),
    "in-print": ColumnType("bool"),
    "like": ColumnType("int64"),
}

ARROW = {
    "bool": pa.bool_(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "string": pa.string(),
    "json": pa.string(),
}

INTS = [0, 1, -1, 2, 3, 7, -7, 1999, 2**53, 2**53 + 1, -(2**53) - 1, 2**62, 2**63 - 1, -(2**63), None]
FLOATS = [0.0, -0.0, 0.5, 1.0, -1.5, 2.0, 7.0, 2.0**53, 2.0**63, -(2.0**63), 1e308, math.inf, -math.inf, math.nan, None]
STRINGS = ["", "a", "ab", "abc", "b%", "a_c", "a\\c", "aéc", "a\nc", "é", "\U0001f600", None]
BOOLS = [True, False, None]
SCALARS = [None, True, False, 0, 1, 1.0, 2.5, 2**53 + 1, 2**70, "", "a", "abc"]
JSON = [
    *SCALARS,
    [],
    [1, 2.5, "a"],
    [[1, 2], True],
    {},
    *({"a": value, "b": [value, 1]} for value in SCALARS),
    {"a": [1, "a", [1, 2]], "b": {"c": 1}},
    {"b": {"c": "abc"}},
]


def example_rows(count: int) -> list[Row]:
    random = np.random.default_rng(3)

    def one(values: list[Any]) -> Any:
        return values[random.integers(len(values))]

    def some(values: list[Any]) -> list[Any] | None:
        return None if random.random() < 0.2 else [one(values) for _ in range(random.integers(4))]

    return [
        {
            "id": number,
            "year": one(INTS),
            "score": one(FLOATS),
            "title": one(STRINGS),
            "sold": one(BOOLS),
            "sizes": some(INTS),
            "rates": some(FLOATS),
            "tags": some(STRINGS),
            "flags": some(BOOLS),
            "meta": one(JSON),
            "events": some(JSON),
            "in-print": number % 2 == 0,
            "like": number,
        }
        for number in range(count)
    ]


def as_column(name: str, values: list[Any]) -> pa.Array:
    column = COLUMNS[name]
    if column.kind == "json":
        inner = json.dumps
        values = [
            ([inner(item) for item in value] if column.is_array else inner(value)) if value is not None else None
            for value in values
        ]
    return pa.array(values, pa.list_(ARROW[column.kind]) if column.is_array else ARROW[column.kind])


ROWS = example_rows(120)
#: Slices, so that an offset into the arrays is always in play.
TABLE = {name: as_column(name, [row[name] for row in ROWS])[20:] for name in COLUMNS}
ROWS = ROWS[20:]


def compiled(expr: str, **values: object) -> Filter:
    return compile_filter(expr, COLUMNS, values)


def allowed(expr: str, **values: object) -> list[int]:
    mask = compiled(expr, **values).mask(TABLE.__getitem__, len(ROWS))
    assert mask.dtype == np.bool_
    assert mask.shape == (len(ROWS),)
    return [ROWS[row]["id"] for row in np.flatnonzero(mask)]


# What the language means, a row at a time. None is null.

ORDERED = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


def kind(value: object) -> type:
    return float if type(value) is int else type(value)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return a is not None and kind(a) is kind(b) and a == b


def compare(op: str, a: Any, b: Any) -> bool | None:
    if kind(a) is not kind(b) or kind(a) not in (float, str, bool) or (kind(a) is bool and op not in ("==", "!=")):
        return None
    return ORDERED[op](a, b)


def both(a: bool | None, b: bool | None) -> bool | None:
    if a is False or b is False:
        return False
    return None if a is None or b is None else True


def negated(a: bool | None) -> bool | None:
    return None if a is None else not a


def power(a: float, b: float) -> float:
    is_odd = b.is_integer() and b % 2 == 1
    try:
        return math.pow(a, b)
    except OverflowError:
        return -math.inf if a < 0 and is_odd else math.inf
    except ValueError:
        if a != 0:
            return math.nan
        return math.copysign(math.inf, a) if is_odd else math.inf


def arithmetic(op: str, a: Any, b: Any) -> float | None:
    if kind(a) is not float or kind(b) is not float or (op in ("/", "%") and b == 0):
        return None
    if isinstance(a, int) and isinstance(b, int) and op != "**":
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1) if b else 0
        exact = {"+": a + b, "-": a - b, "*": a * b, "/": quotient, "%": a - quotient * b}[op]
        return exact if -(2**63) <= exact < 2**63 else None
    a, b = float(a), float(b)
    if op == "%":
        return math.nan if math.isinf(a) else math.fmod(a, b)
    return {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "**": power}[op](a, b)


def like(text: Any, pattern: str) -> bool | None:
    if not isinstance(text, str):
        return None
    if not pattern:
        return not text
    if pattern[0] == "%":
        return any(like(text[start:], pattern[1:]) for start in range(len(text) + 1))
    if pattern[0] == "\\":
        pattern = pattern[1:]
    elif pattern[0] == "_":
        return bool(text) and like(text[1:], pattern[1:])
    return text[:1] == pattern[0] and like(text[1:], pattern[1:])


def contains(array: Any, wanted: list[Any], *, need_all: bool) -> bool | None:
    if not isinstance(array, list):
        return None
    found = [any(equal(item, value) for item in array) for value in wanted]
    return all(found) if need_all else any(found)


def follow(value: Any, *path: str | int) -> Any:
    for key in path:
        try:
            value = value[key] if isinstance(value, dict if isinstance(key, str) else list) else None
        except (KeyError, IndexError):
            value = None
    return value


EXAMPLES: dict[str, Callable[[Row], bool | None]] = {
    "year > 1": lambda r: compare(">", r["year"], 1),
    "1 < year <= 7": lambda r: both(compare("<", 1, r["year"]), compare("<=", r["year"], 7)),
    "7 >= year + 1 > -2": lambda r: both(
        compare(">=", 7, arithmetic("+", r["year"], 1)), compare(">", arithmetic("+", r["year"], 1), -2)
    ),
    "year == score": lambda r: compare("==", r["year"], r["score"]),
    "score > 9007199254740993": lambda r: compare(">", r["score"], 2**53 + 1),
    "year < .5e1": lambda r: compare("<", r["year"], 5.0),
    "id % 0x10 == 0b11": lambda r: r["id"] % 16 == 3,
    "id + 2 * 3 ** 2 / 9 == 30": lambda r: r["id"] + 2 == 30,
    "(id + 2) * 3 == 90": lambda r: r["id"] == 28,
    "2 ** 3 ** 2 == 64 and - 2 ** 2 == -4 and 2 ** -1 == 0.5": lambda _: True,
    "-year / 2 == -3": lambda r: compare("==", arithmetic("/", arithmetic("-", 0, r["year"]), 2), -3),
    "-7 / 2 == -3 and -7 % 2 == -1 and 7 % -2 == 1": lambda _: True,
    "year * 4 < 0": lambda r: compare("<", arithmetic("*", r["year"], 4), 0),
    "not (year / 0 == 1) or score % 0 == 1": lambda _: None,
    "year == -9223372036854775808": lambda r: compare("==", r["year"], -(2**63)),
    "year in [1, 2.0, 2.5, -1,]": lambda r: r["year"] in (1, 2, -1),
    "score not in [0, 2]": lambda r: r["score"] is not None and r["score"] not in (0, 2),
    "NOT sold AND id < 50 OR id == 60": lambda r: (r["sold"] is False and r["id"] < 50) or r["id"] == 60,
    "! sold && id < 50 || id == 60": lambda r: (r["sold"] is False and r["id"] < 50) or r["id"] == 60,
    "not id > 50": lambda r: r["id"] <= 50,
    "id > 50 == true": lambda r: r["id"] > 50,
    "sold is null": lambda r: r["sold"] is None,
    "sold IS NOT NULL and True": lambda r: r["sold"] is not None,
    "`in-print` and `like` > 30": lambda r: r["id"] % 2 == 0 and r["id"] > 30,
    "title == 'ab' or title == \"\\u00e9\"": lambda r: r["title"] in ("ab", "é"),
    "title == '\\ud83d\\ude00'": lambda r: r["title"] == "\U0001f600",
    "title > 'abc'": lambda r: compare(">", r["title"], "abc"),
    "title in []": lambda _: False,
    "title like 'a%'": lambda r: like(r["title"], "a%"),
    "title LIKE '%c'": lambda r: like(r["title"], "%c"),
    "title like 'a_c'": lambda r: like(r["title"], "a_c"),
    r"title like 'a\_c'": lambda r: r["title"] == "a_c",
    r"title like '%\%'": lambda r: r["title"] == "b%",
    r"title like 'a\\\\c'": lambda r: r["title"] == "a\\c",
    "sizes[0] == 1": lambda r: equal(follow(r["sizes"], 0), 1),
    "sizes[9] is null": lambda _: True,
    "sizes[9223372036854775807] is null": lambda _: True,
    "array_length(sizes) == 2": lambda r: len(r["sizes"] or "") == 2,
    "array_contains(sizes, 1.0)": lambda r: 1 in (r["sizes"] or []),
    "ARRAY_CONTAINS_ALL(rates, [0, 0.5])": lambda r: contains(r["rates"], [0, 0.5], need_all=True),
    "array_contains_all(tags, [])": lambda r: r["tags"] is not None,
    "json_contains_any(tags, ['a', 'é'])": lambda r: contains(r["tags"], ["a", "é"], need_all=False),
    "array_contains(flags, true)": lambda r: True in (r["flags"] or []),
    "meta is null": lambda r: r["meta"] is None,
    "meta['a'] == 1": lambda r: equal(follow(r["meta"], "a"), 1),
    "meta['a'] != 1": lambda r: compare("!=", follow(r["meta"], "a"), 1),
    "meta['b'][1] == 1": lambda r: equal(follow(r["meta"], "b", 1), 1),
    "meta['b']['c'] like 'a%'": lambda r: like(follow(r["meta"], "b", "c"), "a%"),
    "meta['a'] + 1 > id / 100.0": lambda r: compare(
        ">", arithmetic("+", follow(r["meta"], "a"), 1.0), arithmetic("/", r["id"], 100.0)
    ),
    "json_contains(meta['a'], [1, 2])": lambda r: contains(follow(r["meta"], "a"), [[1, 2]], need_all=False),
    "JSON_CONTAINS_ALL(meta['a'], ['a', 1.0])": lambda r: contains(follow(r["meta"], "a"), ["a", 1], need_all=True),
    "array_length(meta) == 3": lambda r: isinstance(r["meta"], list) and len(r["meta"]) == 3,
    "events[0]['a'] == meta['a']": lambda r: compare("==", follow(r["events"], 0, "a"), follow(r["meta"], "a")),
    "json_contains(events, 'abc')": lambda r: contains(r["events"], ["abc"], need_all=False),
    "array_length(events) == 1": lambda r: len(r["events"] or "") == 1,
    "'abc' like 'a%' and 'b' in ['b'] and 1 < 1.5 and 'a' < 'b'": lambda _: True,
    "false": lambda _: False,
}


@pytest.mark.parametrize("expr", EXAMPLES)
def test_an_expression_allows_the_rows_it_describes(expr: str):
    assert allowed(expr) == [row["id"] for row in ROWS if EXAMPLES[expr](row)]


# Random expressions: the text, how tightly its outermost operator binds, and what it means.


@dataclass(frozen=True)
class Expr:
    text: str
    level: int
    value: Callable[[Row], Any]

    def inside(self, level: int) -> str:
        return self.text if self.level >= level else f"({self.text})"

    def __repr__(self) -> str:
        return self.text


OR, AND, NOT, EQUALITY, CONDITION, SUM, PRODUCT, UNARY, POWER, ATOM = range(10)
LEVELS = {"+": SUM, "-": SUM, "*": PRODUCT, "/": PRODUCT, "%": PRODUCT, "**": POWER}


def literal(value: Any) -> Expr:
    if isinstance(value, str):
        # A literal % or _ is what the string holds; only backslashes and quotes are escaped.
        return Expr(json.dumps(value, ensure_ascii=len(value) % 2 == 0), ATOM, lambda _: value)
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return Expr(text, UNARY if text.startswith("-") else ATOM, lambda _: value)


def column(name: str) -> Expr:
    return Expr(name, ATOM, lambda row: row[name])


def path(name: str, *keys: str | int) -> Expr:
    return Expr(name + "".join(f"[{json.dumps(key)}]" for key in keys), ATOM, lambda row: follow(row[name], *keys))


INT_LITERALS = [value for value in INTS if value is not None]
FLOAT_LITERALS = [0.5, 1.0, 2.5, -1.5, 1e3, 9007199254740992.0, 9.3e18, 1e-7]
PATTERNS = ["", "%", "a%", "%c", "a_c", "%b%", "_", "a\\_c", "b\\%", "a\\\\%", "é%", "%\n%"]
JSON_PATHS = [
    path("meta"),
    path("meta", "a"),
    path("meta", "b", 0),
    path("meta", "b", "c"),
    path("meta", 1),
    path("events", 0),
    path("events", 1, "a"),
]
NUMBERS = st.sampled_from(
    [column("id"), column("year"), column("score"), path("sizes", 0), path("rates", 1)]
    + [literal(value) for value in INT_LITERALS + FLOAT_LITERALS]
    + [
        Expr(f"array_length({name})", ATOM, lambda row, name=name: None if row[name] is None else len(row[name]))
        for name in ("sizes", "tags", "events")
    ]
)
TEXTS = st.sampled_from(
    [column("title"), path("tags", 0), path("tags", 2), *(literal(value) for value in STRINGS if value is not None)]
)


@st.composite
def numbers(draw: st.DrawFn, depth: int = 2) -> Expr:
    if depth == 0 or draw(st.integers(0, 2)) == 0:
        return draw(NUMBERS)
    if draw(st.integers(0, 5)) == 0:
        operand = draw(numbers(depth - 1))
        if operand.text == str(-(2**63)):
            return operand  # its opposite is no literal
        return Expr(f"-{operand.inside(UNARY)}", UNARY, lambda row: arithmetic("-", 0, operand.value(row)))
    op = draw(st.sampled_from(list(LEVELS)))
    left = draw(numbers(depth - 1) | st.sampled_from(JSON_PATHS))
    right = draw(numbers(depth - 1))
    level = LEVELS[op]
    is_json = left in JSON_PATHS

    def value(row: Row) -> Any:
        a = left.value(row)
        return arithmetic(op, float(a) if is_json and kind(a) is float else a, right.value(row))

    return Expr(f"{left.inside(level)} {op} {right.inside(level + 1)}", level, value)


@st.composite
def conditions(draw: st.DrawFn, depth: int = 3) -> Expr:  # noqa: PLR0911 - one a form
    form = draw(st.integers(0, 12 if depth else 8))
    if form == 0:
        return draw(st.sampled_from([column("sold"), path("flags", 0), literal(True), literal(False)]))
    if form <= 2:
        pairs = st.tuples(numbers(), numbers()) | st.tuples(TEXTS, TEXTS)
        pairs |= st.tuples(st.sampled_from(JSON_PATHS), st.sampled_from(JSON_PATHS) | TEXTS | numbers(0))
        left, right = draw(pairs | pairs.map(lambda pair: pair[::-1]))
        op = draw(st.sampled_from(list(ORDERED)))
        level = EQUALITY if op in ("==", "!=") else CONDITION
        return Expr(
            f"{left.inside(SUM)}{op}{right.inside(SUM)}",
            level,
            lambda row: compare(op, left.value(row), right.value(row)),
        )
    if form == 3:
        low, middle, high = draw(numbers(1)), draw(numbers(1)), draw(numbers(1))
        one, two = draw(st.sampled_from([("<", "<="), ("<=", "<"), (">", ">="), (">=", ">=")]))
        return Expr(
            f"{low.inside(SUM)} {one} {middle.inside(SUM)} {two} {high.inside(SUM)}",
            CONDITION,
            lambda row: both(
                compare(one, low.value(row), middle.value(row)), compare(two, middle.value(row), high.value(row))
            ),
        )
    if form == 4:
        operand, items = draw(
            st.tuples(numbers(1), st.lists(st.sampled_from(INT_LITERALS + FLOAT_LITERALS), max_size=4))
            | st.tuples(TEXTS, st.lists(st.sampled_from(STRINGS[:-1]), max_size=4))
            | st.tuples(st.sampled_from(JSON_PATHS), st.lists(st.sampled_from(SCALARS[1:7]), max_size=4))
        )
        word, is_not = draw(st.sampled_from([("in", False), ("not in", True)]))

        def among(row: Row) -> bool | None:
            value = operand.value(row)
            found = None if value is None else any(equal(value, item) for item in items)
            return negated(found) if is_not else found

        listed = ", ".join(literal(item).text for item in items)
        return Expr(f"{operand.inside(SUM)} {word} [{listed}]", CONDITION, among)
    if form == 5:
        text, pattern = draw(TEXTS | st.sampled_from(JSON_PATHS)), draw(st.sampled_from(PATTERNS))
        return Expr(f"{text.text} like {json.dumps(pattern)}", CONDITION, lambda row: like(text.value(row), pattern))
    if form == 6:
        what = draw(st.sampled_from([*map(column, list(COLUMNS)[:11]), path("tags", 1), *JSON_PATHS]))
        return Expr(f"{what.text} is null", CONDITION, lambda row: what.value(row) is None)
    if form <= 8:
        array, values = draw(
            st.tuples(st.sampled_from([column("sizes"), column("rates")]), st.just(INT_LITERALS + FLOAT_LITERALS))
            | st.tuples(st.just(column("tags")), st.just(STRINGS[:-1]))
            | st.tuples(st.sampled_from([*JSON_PATHS, column("events")]), st.just([*SCALARS[1:7], [1, 2], []]))
        )
        wanted = draw(st.lists(st.sampled_from(values), max_size=3))
        listed = ", ".join(json.dumps(item) for item in wanted)
        need_all = draw(st.booleans())
        return Expr(
            f"array_contains_{'all' if need_all else 'any'}({array.text}, [{listed}])",
            CONDITION,
            lambda row: contains(array.value(row), wanted, need_all=need_all),
        )
    if form == 9:
        operand = draw(conditions(depth - 1))
        return Expr(f"not {operand.inside(NOT)}", NOT, lambda row: negated(operand.value(row)))
    left, right = draw(conditions(depth - 1)), draw(conditions(depth - 1))
    if form == 10:
        return Expr(
            f"{left.inside(EQUALITY)} == {right.inside(CONDITION)}",
            EQUALITY,
            lambda row: compare("==", left.value(row), right.value(row)),
        )
    if form == 11:
        return Expr(
            f"{left.inside(AND)} and {right.inside(NOT)}", AND, lambda row: both(left.value(row), right.value(row))
        )
    return Expr(
        f"{left.inside(OR)} || {right.inside(AND)}",
        OR,
        lambda row: negated(both(negated(left.value(row)), negated(right.value(row)))),
    )


@settings(max_examples=1_000, deadline=None)
@given(conditions())
def test_any_expression_means_the_same_in_arrow_and_row_by_row(expr: Expr):
    meant = [expr.value(row) for row in ROWS]
    assert allowed(expr.text) == [row["id"] for row, value in zip(ROWS, meant, strict=True) if value]
    # What is not allowed is false or unknown; the opposite tells these apart.
    opposite = [row["id"] for row, value in zip(ROWS, meant, strict=True) if value is False]
    assert allowed(f"not ({expr.text})") == opposite
    key = compiled(expr.text).key
    assert compiled(key).key == key, "the canonical text is itself an expression, and its own key"


@pytest.mark.parametrize(
    ("expr", "column", "message"),
    [
        ("yeer > 3", 1, "expr 'yeer > 3': unknown field 'yeer' at column 1, did you mean 'year'"),
        ("id > 1 and\n zzz == 2", 13, "known are 'events', 'flags'"),
        ("", 1, "unexpected end"),
        ("year >", 7, "unexpected end"),
        ("year = 3", 6, "unexpected '=' at column 6, did you mean '=='"),
        ("year > 3 & sold", 10, "did you mean '&&'"),
        ("year > 017", 9, "unexpected '17'"),
        ("foo(year)", 4, "unexpected '('"),
        ("title == 'abc", 10, "a ' without its end"),
        (r"title == 'a\qc'", 12, r"unknown escape '\\q'"),
        (r"title == '\u00g0'", 11, "unknown escape"),
        (r"title == '\ud83d'", 10, "half a surrogate pair"),
        ("title like 'a\\\\'", 12, "the pattern ends with a lone backslash"),
        ("title like {n}", 12, "an int64 is no pattern"),
        ("year like 'a'", 1, "an int64 is not like a pattern, strings are"),
        ("year > 'x'", 6, "cannot compare an int64 with a string"),
        ("sold == 1", 6, "cannot compare a bool with an int64"),
        ("sold < true", 6, "bools have no order for <"),
        ("1 < year > 3", 10, "a range goes one way, not < and >"),
        ("title + 1 > 3", 7, "a string cannot be used with +"),
        ("sizes == 3", 1, "an array of int64 has no single value at column 1, take an element [0]"),
        ("sizes['a'] == 3", 1, "it takes one index"),
        ("title[0] == 'a'", 1, "field 'title' is a string, it has no elements"),
        ("array_contains(year, 3)", 16, "an int64 is no array"),
        ("array_contains(sizes, [3])", 23, "a list is not comparable with an int64"),
        ("array_contains_any(sizes, [1, 'a'])", 31, "cannot compare an int64 with a string"),
        ("year in [1, 'x']", 13, "cannot compare an int64 with a string"),
        ("year", 1, "an int64 is no condition at column 1, compare it with a value"),
        ("sold and meta['a']", 10, "a json is no condition"),
        ("year > 9223372036854775808", 8, "an integer beyond 64 bits"),
        ("year > " + "9" * 5000, 8, "an integer beyond 64 bits"),
        ("score > 1e999", 9, "the number inf is not finite"),
        ("year == {missing}", 9, "no value for placeholder 'missing' at column 9, known are 'half', 'many', 'n'"),
        ("year in {n}", 9, "the value of placeholder 'n' is no list"),
        ("year in {many}", 9, "a list of 65537 elements, at most 65536 are allowed"),
        ("title == {half}", 10, "half a surrogate pair"),
        ("year == {nothing}", 9, "a value of type NoneType, allowed are bool, int, float and str"),
        ("not " * 16_000 + "sold", 64_001, "more than 100 levels of nesting"),
        ("+".join(["id"] * 10_000) + " > 3", 29_700, "more than 100 levels of nesting"),
        ("id in " + "[" * 30_000 + "]" * 30_000, None, "more than 100 levels of nesting"),
        ("(" * 60_000, 60_001, "unexpected end"),
        ("sold and " + "x" * 60_000, 10, "unknown field 'xxx"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_is_wrong_is_quoted_with_its_place(expr: str, column: int | None, message: str):
    values = {"n": 3, "many": [1] * 65_537, "half": "\ud83d"}
    if "nothing" in expr:
        values["nothing"] = None  # type: ignore[assignment]
    with pytest.raises(InvalidExpression) as raised:
        compiled(expr, **values)
    error = raised.value
    assert message in str(error)
    assert f"at column {error.column}" in str(error)
    assert column in (error.column, None)
    assert error.expression == expr
    assert error.field == "expr"
    assert len(str(error)) < 500


def test_a_placeholder_stands_for_its_value():
    assert allowed("year in {years} and title != {title}", years=[1, 2, 3], title='quote" and \\ and %') == [
        row["id"] for row in ROWS if row["year"] in (1, 2, 3) and row["title"] is not None
    ]
    assert allowed("array_contains_any(tags, {tags}) or id == {id}", tags=("a", "ab"), id=40) == [
        row["id"] for row in ROWS if contains(row["tags"], ["a", "ab"], need_all=False) or row["id"] == 40
    ]
    assert allowed("title like {pattern}", pattern="a\\_c") == [row["id"] for row in ROWS if row["title"] == "a_c"]


def test_a_filter_names_what_it_reads_and_reads_it_once():
    reads: list[str] = []

    def read(name: str) -> pa.Array:
        reads.append(name)
        return TABLE[name]

    found = compiled("year > 1 and (year < 9 or meta['a'] == 1 or meta['b'][0] == 2) and sizes[0] > {n}", n=3)
    found.mask(read, len(ROWS))
    assert sorted(reads) == sorted(found.fields) == ["meta", "sizes", "year"]


@pytest.mark.parametrize(
    ("one", "other", "are_same"),
    [
        ("year>3 AND sold", "( year > {n} ) && sold", True),
        ("score > 3", "score > 3.0", True),
        ("title == 'a'", 'title == "\\x61"', True),
        ("1 < year < 3", "1 < year and year < 3", True),
        ("year > 3", "year > 4", False),
        ("title == 'true'", "title in ['true']", False),
        ("meta['0'] == 1", "meta[0] == 1", False),
        ("meta == 1", "meta == true", False),
    ],
)
def test_the_key_is_the_meaning_and_not_the_spelling(one: str, other: str, are_same: bool):
    assert (compiled(one).key == compiled(other, n=3).key) == are_same


def test_a_filter_works_on_large_strings_and_lists_and_on_no_rows():
    table = {
        "title": TABLE["title"].cast(pa.large_string()),
        "tags": TABLE["tags"].cast(pa.large_list(pa.large_string())),
    }
    expr = (
        "title >= 'a' and title in ['a', 'abc'] and title like 'a%' or array_contains_all(tags, ['a']) or tags[0]=='b%'"
    )
    mask = compiled(expr).mask(table.__getitem__, len(ROWS))
    assert [ROWS[row]["id"] for row in np.flatnonzero(mask)] == allowed(expr)
    for any_expr in EXAMPLES:
        assert compiled(any_expr).mask(lambda name: TABLE[name][:0], 0).shape == (0,)


def test_elements_behind_a_null_array_are_not_seen():
    full = pa.array([[1, 2], [3, 4], [5]])
    hidden = pa.ListArray.from_arrays(full.offsets, full.values, mask=pa.array([False, True, False]))
    for expr in ("array_contains(sizes, 3)", "sizes[0] == 3", "array_contains_all(sizes, [3, 4])"):
        assert not compiled(expr).mask({"sizes": hidden}.__getitem__, 3).any()


def test_a_row_that_holds_no_json_is_corrupt():
    with pytest.raises(IndexCorrupt, match="json field 'meta'"):
        compiled("meta['a'] == 1").mask({"meta": pa.array(["{}", "{"])}.__getitem__, 2)


def test_the_deepest_and_the_longest_expressions_fit_the_stack():
    depth = sys.getrecursionlimit()
    assert allowed("not (id < 30 or " * 49 + "id > 90" + ")" * 49)
    assert allowed(" or ".join(f"id == {number}" for number in range(depth * 4))) == [row["id"] for row in ROWS]
    assert allowed("(" * depth * 4 + "id == 30" + ")" * depth * 4) == [30]


def test_rows_are_evaluated_in_blocks_that_do_not_show(monkeypatch: pytest.MonkeyPatch):
    whole = {expr: allowed(expr) for expr in EXAMPLES}
    monkeypatch.setattr(compiling, "_BLOCK", 7)
    assert {expr: allowed(expr) for expr in EXAMPLES} == whole


def test_a_list_of_ten_thousand_is_one_look_up():
    numbers = ",".join(str(number) for number in range(30, 10_030))
    assert allowed(f"id in [{numbers}]") == [row["id"] for row in ROWS if row["id"] >= 30]
