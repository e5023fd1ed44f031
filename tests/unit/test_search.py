from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearmq_index_store.errors import (
    DimensionMismatch,
    FieldNotFound,
    InvalidArgument,
    MetricMismatch,
    PartitionNotFound,
    StoreError,
)
from nearmq_index_store.indexes.protocol import SearchParams
from nearmq_index_store.manifest import BlobRef, KeysEntry, Manifest, SegmentEntry, Snapshot
from nearmq_index_store.places import split_places
from nearmq_index_store.schema import METRICS, Metric
from nearmq_index_store.search import Hits, check_queries, merge, no_hits, plan, resolve, search_part
from tests.segments import make_segment, schema_of, vector_field

FIELD = vector_field(4, "COSINE", "HNSW")
SCHEMA = schema_of(FIELD)


def oracle(queries: np.ndarray, vectors: np.ndarray, ids: list[int] | list[str], limit: int, metric: Metric):
    """The nearest ids and distances by float64 sums, float32 distances and smaller ids."""
    wide = vectors.astype(np.float64)
    answers = []
    for query in queries.astype(np.float64):
        exact = ((wide - query) ** 2 if metric == "L2" else wide * query).sum(axis=1)
        if metric == "COSINE":
            scale = np.sqrt((wide**2).sum(axis=1)) * np.sqrt((query**2).sum())
            exact = np.where(scale == 0, 0, exact / np.where(scale == 0, 1, scale)).clip(-1, 1)
        distances = exact.astype(np.float32)
        sign = 1 if metric == "L2" else -1
        order = sorted(range(len(ids)), key=lambda row: (sign * distances[row], ids[row]))[:limit]
        answers.append(([ids[row] for row in order], distances[order].tolist()))
    return answers


def answers_of(hits: Hits):
    return [
        (ids[:count].tolist(), distances[:count].tolist())
        for ids, distances, count in zip(hits.ids, hits.distances, hits.counts, strict=True)
    ]


def ids_at_places(hits: Hits, ids: list[int] | list[str], bounds: list[int]):
    """The ids in the rows that the hits say they are in; part number i begins at bounds[i]."""
    found = []
    for places, count in zip(hits.places, hits.counts, strict=True):
        parts, rows = split_places(places[:count])
        found.append([ids[bounds[part] + row] for part, row in zip(parts, rows, strict=True)])
    return found


@st.composite
def searches(draw: st.DrawFn):
    """Vectors on a coarse grid, so that duplicates, ties at the limit and zero vectors are common."""
    dim = draw(st.integers(1, 6))
    rows = draw(st.integers(1, 400))
    grid = draw(st.sampled_from([1, 2, 1000]))
    scale = draw(st.sampled_from([1, 2.0**-70, 2.0**50]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    vectors = (random.integers(-grid, grid + 1, (rows, dim)) * scale).astype(np.float32)
    queries = (random.integers(-grid, grid + 1, (draw(st.sampled_from([1, 3, 9])), dim)) * scale).astype(np.float32)
    keys = random.permutation(rows) - rows // 2
    ids = [str(key) for key in keys] if draw(st.booleans()) else keys.tolist()
    cuts = sorted(draw(st.lists(st.integers(1, rows), max_size=3, unique=True)))
    bounds = [0, *(cut for cut in cuts if cut < rows), rows]
    return vectors, queries, ids, bounds, draw(st.sampled_from([1, 2, 10, 50, 1_000]))


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=60, deadline=None)
@given(search=searches())
def test_flat_over_several_segments_equals_the_oracle(metric: Metric, search: tuple[Any, ...]):
    vectors, queries, ids, bounds, limit = search
    field = vector_field(vectors.shape[1], metric)
    with TemporaryDirectory() as folder:
        parts = []
        for start, stop in pairwise(bounds):
            part_folder = Path(folder, str(start))
            part_folder.mkdir()
            segment = make_segment(part_folder, field, vectors[start:stop], ids[start:stop])
            parts.append(search_part(segment, queries, limit, SearchParams(), part=len(parts)))
    expected = oracle(queries, vectors, ids, limit, metric)
    assert answers_of(merge(parts, limit)) == expected
    assert ids_at_places(merge(parts, limit), ids, bounds) == [found for found, _ in expected]
    backwards = merge(parts[::-1], limit)
    assert answers_of(backwards) == expected
    assert ids_at_places(backwards, ids, bounds) == [found for found, _ in expected]


@pytest.mark.parametrize("metric", METRICS)
def test_near_ties_that_float32_cannot_tell_apart_are_ordered_by_the_exact_distance(tmp_path: Path, metric: Metric):
    random = np.random.default_rng(3)
    base = random.standard_normal(384).astype(np.float32)
    # Far from the origin and close to each other: |x|^2 - 2xy + |y|^2 in float32 would be noise.
    vectors = 100 + base + 1e-4 * random.standard_normal((2_000, 384)).astype(np.float32)
    queries = vectors[:20] + np.float32(1e-4)
    segment = make_segment(tmp_path, vector_field(384, metric), vectors, range(2_000))
    hits = search_part(segment, queries, 10, SearchParams())
    assert answers_of(hits) == oracle(queries, vectors, list(range(2_000)), 10, metric)


def test_no_segments_give_no_hits():
    hits = no_hits(3, FIELD, "string")
    assert (hits.ids.shape, hits.distances.shape, hits.counts.tolist()) == ((3, 0), (3, 0), [0, 0, 0])
    assert hits.places is None
    assert no_hits(3, FIELD, "string", with_places=True).places.shape == (3, 0)
    assert merge([hits, hits], 10).counts.tolist() == [0, 0, 0]


def test_no_queries_give_no_rows(tmp_path: Path):
    segment = make_segment(tmp_path, FIELD, np.ones((5, 4), dtype=np.float32), range(5))
    hits = search_part(segment, np.empty((0, 4), dtype=np.float32), 3, SearchParams(ef=64))
    assert merge([hits, hits], 3).ids.shape == (0, 3)


def test_the_only_field_and_its_metric_may_be_left_out():
    assert resolve(SCHEMA, field=None, metric_type=None, params={}, limit=100) == (
        FIELD,
        SearchParams(ef=100, candidates=100),
    )
    assert resolve(SCHEMA, field="vector", metric_type="COSINE", params={"ef": 80}, limit=5)[1] == SearchParams(
        ef=80, candidates=20
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"field": "vectors"}, FieldNotFound, "no vector field 'vectors', the collection has 'vector'"),
        ({"metric_type": "L2"}, MetricMismatch, "has metric_type COSINE, the search names L2"),
        ({"metric_type": "cosine"}, InvalidArgument, "must be one of L2, IP, COSINE, got 'cosine'"),
        ({"limit": 0}, InvalidArgument, "limit must be from 1 to 1048576, offset included, got 0"),
        ({"limit": 1_048_577}, InvalidArgument, "got 1048577"),
        ({"params": {"eff": 80}}, InvalidArgument, "HNSW search has no parameter 'eff', did you mean 'ef'"),
    ],
)
def test_a_search_that_does_not_fit_the_schema_is_refused(
    arguments: dict[str, Any], error: type[StoreError], message: str
):
    with pytest.raises(error, match=message):
        resolve(SCHEMA, **({"field": None, "metric_type": None, "params": {}, "limit": 10} | arguments))


def test_queries_of_another_dim_are_refused_naming_both():
    with pytest.raises(DimensionMismatch, match="field 'vector' has dim 4, the queries have 5"):
        check_queries(FIELD, np.zeros((2, 5), dtype=np.float32))
    check_queries(FIELD, np.zeros((2, 4), dtype=np.float32))


def snapshot_of(*partitions: str) -> Snapshot:
    blob = BlobRef(key="nowhere", bytes=0, digest="")
    return Snapshot(
        manifest=Manifest(
            collection_id="0197", version=1, attempt="", name="books", schema=SCHEMA, partitions=("_default", "a", "b")
        ),
        segments=tuple(
            SegmentEntry(
                id=str(number),
                partition=partition,
                rows=1,
                rows_blob=blob,
                keys=KeysEntry(blob=blob, min=0, max=0),
                indexes={},
            )
            for number, partition in enumerate(partitions)
        ),
    )


def test_only_the_named_partitions_are_planned():
    snapshot = snapshot_of("a", "b", "a", "_default")
    assert [segment.id for segment in plan(snapshot, None)] == ["0", "1", "2", "3"]
    assert [segment.id for segment in plan(snapshot, ["a"])] == ["0", "2"]
    assert [segment.id for segment in plan(snapshot, ["b", "_default", "b"])] == ["1", "3"]


def test_any_unknown_partition_is_refused():
    with pytest.raises(PartitionNotFound, match=r"no partition 'a\*', 'c' in collection 'books'"):
        plan(snapshot_of("a"), ["a", "c", "a*"])
    with pytest.raises(InvalidArgument, match="partition_names is empty"):
        plan(snapshot_of("a"), [])
