"""The truth that recall is measured against."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nearmq_index_store.indexes import measuring
from nearmq_index_store.indexes.allowed import AllowedRows
from nearmq_index_store.indexes.registry import index_kind
from nearmq_index_store.schema import IndexSpec, VectorField


@pytest.mark.parametrize("is_held_out", [False, True])
@pytest.mark.parametrize("limit", [10, 1_000])
def test_the_truth_is_found_part_by_part(monkeypatch: pytest.MonkeyPatch, limit: int, is_held_out: bool):
    monkeypatch.setattr(measuring, "_ROWS_AT_ONCE", 500)  # the last part has three rows
    vectors = np.random.default_rng(1).integers(-9, 9, (2_003, 4)).astype(np.float32)
    held = measuring.held_out(len(vectors), seed=1)
    present = np.ones(len(vectors), dtype=np.bool_)
    if is_held_out:
        present[held] = False
    queries = measuring.Queries(vectors=vectors[held], rows=held, present=AllowedRows(present))
    field = VectorField(name="vector", dim=4, metric="L2", index=IndexSpec(kind="IVF_FLAT"))
    reads: list[None] = []
    kind = index_kind("IVF_FLAT")
    subject = measuring._Subject(kind, None, vectors, field, lambda: reads.append(None))

    with ThreadPoolExecutor(2) as pool:
        shares = measuring._ranked(subject, queries, {1: 1, limit: 3}, 2, pool)

    for measured, expected in ((1, held), (limit, held[::3])):
        asked_rows = []
        for share in shares:
            asked = share.asked(measured, len(vectors))
            assert asked.queries.rows is not None
            for query, row in enumerate(asked.queries.rows.tolist()):
                squares = np.square(vectors - vectors[row]).sum(axis=1)
                counted = present & (np.arange(len(vectors)) != row)
                last = np.sort(squares[counted])[measured - 1]
                truth = asked.truths[asked.truths // len(vectors) == query] % len(vectors)
                np.testing.assert_array_equal(truth, np.flatnonzero(counted & (squares <= last)))
                asked_rows.append(row)
        assert sorted(asked_rows) == expected.tolist()
    assert len(reads) == 5
