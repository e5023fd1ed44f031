"""DESIGN, section 6, rows expr and filtered search: only rows for which the expression is true take part."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nearmq
from nearmq.collection import Collection
from nearmq.errors import InvalidExpression
from tests.world import World

ROWS = 800
YEARS = [1900 + number % 120 for number in range(ROWS)]
GENRES = [None if number % 11 == 0 else ("essay", "novel", "poem")[number % 3] for number in range(ROWS)]
TAGS = [[number % 7, number % 5] for number in range(ROWS)]
VECTORS = np.random.default_rng(1).standard_normal((ROWS, 16), dtype=np.float32)
QUERIES = np.random.default_rng(2).standard_normal((5, 16), dtype=np.float32)

KINDS = ["FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8", "IVF_PQ"]

#: An expression, its values, and the same for one row in plain Python.
FILTERS: dict[str, tuple[dict[str, Any], Callable[[int], bool]]] = {
    "year >= 1990": ({}, lambda row: YEARS[row] >= 1990),
    "1910 < year <= 1912 and genre != 'poem'": (
        {},
        lambda row: 1910 < YEARS[row] <= 1912 and GENRES[row] in {"essay", "novel"},
    ),
    "genre in {genres} or year == {year}": (
        {"genres": ["essay"], "year": 1955},
        lambda row: GENRES[row] == "essay" or YEARS[row] == 1955,
    ),
    "genre is null": ({}, lambda row: GENRES[row] is None),
    "not array_contains(tags, 3)": ({}, lambda row: 3 not in TAGS[row]),
    "id in [5, 17, 700]": ({}, lambda row: row in {5, 17, 700}),
    "year > 3000": ({}, lambda _: False),
    "year > 0": ({}, lambda _: True),
}


def books(world: World, kind: str, metric: Any = "L2") -> Collection:
    vector = nearmq.VectorFieldSpec(name="vector", dim=16, metric_type=metric, index=kind)
    scalars = [
        nearmq.ScalarFieldSpec(name="year", type="int64"),
        nearmq.ScalarFieldSpec(name="genre", type="string", nullable=True),
        nearmq.ScalarFieldSpec(name="tags", type="array<int64>"),
    ]
    schema = nearmq.Schema(vector_fields=[vector], scalar_fields=scalars)
    collection = world.client.create_collection("books", schema=schema)
    columns = {"year": YEARS, "genre": GENRES, "tags": TAGS}
    world.add("books", range(ROWS), VECTORS, scalars=columns, segments=3)
    return collection


def nearest(query: np.ndarray, rows: list[int], metric: str, limit: int) -> list[int]:
    vectors = VECTORS[rows].astype(np.float64)
    if metric == "L2":
        keys = np.square(vectors - query).sum(axis=1)
    else:
        keys = -(vectors @ query) / np.linalg.norm(vectors, axis=1)
    return [rows[position] for position in np.argsort(keys.astype(np.float32), kind="stable")[:limit]]


@pytest.mark.parametrize("kind", KINDS)
def test_expr_row_a_filtered_search_is_exact_over_the_rows_allowed_for_every_index(world: World, kind: str):
    metric = "COSINE" if kind == "HNSW" else "L2"
    collection = books(world, kind, metric)
    for expr, (values, allows) in FILTERS.items():
        allowed = [row for row in range(ROWS) if allows(row)]
        found = collection.search(QUERIES, limit=10, expr=expr, expr_params=values, output_fields=["year"])
        for query, hits in zip(QUERIES, found, strict=True):
            assert hits.ids.tolist() == nearest(query, allowed, metric, 10), expr
            assert hits.fields == {"year": [YEARS[row] for row in hits.ids]}


def test_expr_row_jobs_of_different_filters_in_one_batch_get_what_they_get_alone(world: World):
    collection = books(world, "HNSW")
    jobs = [(expr, values, limit) for limit in (1, 5, 50) for expr, (values, _) in FILTERS.items()]
    jobs += [("", {}, 10)]
    alone = [collection.search(QUERIES, limit=limit, expr=expr, expr_params=values) for expr, values, limit in jobs]
    together = [collection.submit(QUERIES, limit=limit, expr=expr, expr_params=values) for expr, values, limit in jobs]
    for expected, future in zip(alone, together, strict=True):
        for one, other in zip(expected, future.result(), strict=True):
            assert one.ids.tolist() == other.ids.tolist()
            assert one.distances.tolist() == other.distances.tolist()


@pytest.mark.parametrize(
    ("expr", "values", "message"),
    [
        ("yeer > 3", {}, "unknown field 'yeer' at column 1, did you mean 'year'"),
        ("year = 3", {}, "at column 6"),
        ("year > 'x'", {}, "cannot compare"),
        ("year > {least}", {}, "least"),
        ("vector > 1", {}, "vector"),
        ("not " * 500 + "true", {}, "nest"),
    ],
    ids=["field", "operator", "types", "value", "vector", "nesting"],
)
def test_expr_row_an_error_quotes_the_expression_and_the_place(
    world: World, expr: str, values: dict[str, Any], message: str
):
    collection = books(world, "FLAT")
    with pytest.raises(InvalidExpression, match="expr ") as caught:
        collection.search(QUERIES, limit=3, expr=expr, expr_params=values)
    assert message in caught.value.message
    assert caught.value.field == "expr"
    assert len(collection.search(QUERIES, limit=3, expr="year > 0")[0]) == 3
