"""What an opened segment keeps of filters and deleted rows."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from nearmq_index_store.deletes import NONE_DELETED, DeletedRows
from nearmq_index_store.search import Hits, read_expr, resolve, search_part
from nearmq_index_store.segment import Segment
from tests.segments import make_segment, schema_of, vector_field

ROWS, DIM = 4_000, 16
VECTORS = np.random.default_rng(1).standard_normal((ROWS, DIM), dtype=np.float32)


@pytest.fixture(params=["FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8"])
def segment(request: pytest.FixtureRequest, tmp_path: Path) -> Segment:
    return make_segment(tmp_path, vector_field(DIM, "L2", request.param), VECTORS, range(ROWS))


def search(segment: Segment, expr: str | None, deleted: DeletedRows = NONE_DELETED) -> Hits:
    schema = schema_of(segment.field)
    params = resolve(schema, field=None, metric_type=None, params={}, limit=10)[1]
    condition = None if expr is None else read_expr(schema, expr, {})
    return search_part(segment, VECTORS[:3], 10, params, deleted=deleted, condition=condition)


def is_cached(hits: Hits) -> bool:
    assert hits.explanation is not None
    return hits.explanation.cached


def test_what_is_kept_stays_within_its_budget_and_answers_stay_the_same(segment: Segment):
    budget = VECTORS.nbytes + 16 * ROWS
    first = {start: search(segment, f"{start} <= id < {start + 1_000}") for start in range(0, 3_000, 50)}
    assert VECTORS.nbytes // 8 < segment.kept_bytes <= budget + 4 * ROWS
    for start, hits in first.items():
        again = search(segment, f"{start} <= id < {start + 1_000}")
        assert again.ids.tolist() == hits.ids.tolist()
        assert again.distances.tolist() == hits.distances.tolist()


def test_the_masks_used_last_are_kept(segment: Segment):
    assert not is_cached(search(segment, "id < 100"))
    assert is_cached(search(segment, "id < 100"))
    for least in range(40):
        search(segment, f"id >= {least}")
    assert not is_cached(search(segment, "id < 100"))
    segment.forget()
    assert segment.kept_bytes == 0
    assert not is_cached(search(segment, "id < 100"))


def test_masks_belong_to_the_deleted_rows_too(segment: Segment):
    versions = [NONE_DELETED, DeletedRows([1, 2]), DeletedRows([0, 1, 2])]
    for deleted in versions * 2:
        found = search(segment, "id < 20", deleted)
        assert not np.isin(found.ids, segment.rows.ids[deleted.numbers()]).any()
    assert all(is_cached(search(segment, "id < 20", deleted)) for deleted in versions)


def test_no_copy_is_kept_where_most_rows_are_left(segment: Segment):
    search(segment, None, DeletedRows(range(0, ROWS, 10)))
    search(segment, "id >= 1000")
    assert segment.kept_bytes <= VECTORS.nbytes // 2


def test_threads_that_search_among_the_same_rows_get_the_same(segment: Segment):
    expected = search(segment, "id < 500").distances.tolist()
    segment.forget()
    with ThreadPoolExecutor(4) as threads:
        for hits in threads.map(lambda _: search(segment, "id < 500"), range(40)):
            assert hits.distances.tolist() == expected


def test_a_segment_that_nobody_uses_is_freed_at_once(segment: Segment):
    gc.collect()
    gc.disable()
    try:
        copy = Segment(entry=segment.entry, field=segment.field, rows=segment.rows, index=segment.index)
        search(copy, "id < 100", DeletedRows([5]))
        search(copy, "id >= 100")
        gone = weakref.ref(copy)
        kept = weakref.ref(copy.narrowed(NONE_DELETED, None))
        del copy
        assert gone() is None
        assert kept() is None
    finally:
        gc.enable()
