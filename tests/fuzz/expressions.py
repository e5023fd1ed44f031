"""Target: filter expressions, parsed, checked and evaluated."""

import pyarrow as pa

from nearmq_index_store.errors import InvalidExpression
from nearmq_index_store.filters import ColumnType, compile_filter
from tests.fuzz.target import Target

COLUMNS = {
    "id": ColumnType("int64"),
    "year": ColumnType("int64", nullable=True),
    "score": ColumnType("float64", nullable=True),
    "title": ColumnType("string", nullable=True),
    "sold": ColumnType("bool", nullable=True),
    "sizes": ColumnType("int64", is_array=True, nullable=True),
    "tags": ColumnType("string", is_array=True, nullable=True),
    "meta": ColumnType("json", nullable=True),
}
ROWS = {
    "id": pa.array([0, 2**53 + 1, -(2**63), 7]),
    "year": pa.array([1999, None, 2**63 - 1, 0]),
    "score": pa.array([0.5, float("nan"), float("-inf"), None]),
    "title": pa.array(["", "a%_\\", "é\n", None]),
    "sold": pa.array([True, False, None, True]),
    "sizes": pa.array([[], [1, None, 3], None, [2**62]], pa.list_(pa.int64())),
    "tags": pa.array([["a", "b"], [], None, ["é"]], pa.list_(pa.string())),
    "meta": pa.array(['{"a": [1, "x", null], "b": {"c": 1.5}}', "[]", None, "9007199254740993"]),
}
VALUES = {"a": [1, 2], "b": "x", "c": 1.5, "d": True, "e": []}

SEEDS = (
    "year >= 1990 and score < 2.5",
    "1990 < year <= 2000 or not (title like 'a\\%%')",
    "title in ['a', \"b\"] and id not in {a}",
    "meta['a'][0] == 1 and meta[\"b\"]['c'] > {c}",
    "json_contains(meta['a'], 'x') or array_contains_any(tags, ['a', 'b'])",
    "array_length(sizes) > 1 and sizes[0] == 1",
    "(year * 2 + id % 3) ** 2 / -score != 1e308",
    "title is null || sold && exists meta['a']",
    "year is not null and score == 9223372036854775808",
    "((((year)))) == 0x1F and title == 'é\\u00e9\\n'",
)


def run(data: bytes) -> None:
    """An expression is refused at a place, or answers for each row; in its canonical spelling it answers the same."""
    text = data.decode(errors="replace")
    try:
        found = compile_filter(text, COLUMNS, VALUES)
    except InvalidExpression as error:
        _check_refusal(error, text)
        return
    mask = found.mask(ROWS.__getitem__, 4).tolist()
    again = compile_filter(found.key, COLUMNS)
    assert again.key == found.key
    assert again.mask(ROWS.__getitem__, 4).tolist() == mask


def _check_refusal(error: InvalidExpression, text: str) -> None:
    assert 1 <= error.column <= len(text) + 1


TARGETS = (Target("expression", lambda: [text.encode() for text in SEEDS], lambda: run),)
