"""The hits of several queries, cut into those of their searches and to a page."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearmq_index_store.search import Hits
from nearmq_worker.search_pass import Found

COUNTS = st.lists(st.integers(0, 5), max_size=6)


def hits_of(counts: list[int], width: int = 5, *, with_places: bool = True) -> Hits:
    """Hits whose ids are their query's number and their rank, and whose padding is what no hit is."""
    cells = np.arange(len(counts))[:, np.newaxis] * 10 + np.arange(width)
    ids = np.where(np.arange(width) < np.array(counts, np.int64)[:, np.newaxis], cells, -1)
    return Hits(
        ids=ids,
        distances=ids.astype(np.float32),
        counts=np.array(counts, np.int64),
        metric="L2",
        places=ids + 1_000 if with_places else None,
    )


def rows(found: Found) -> list[list[int]]:
    """The ids of each query, after a check that all else goes with them."""
    np.testing.assert_array_equal(found.distances, found.ids.astype(np.float32))
    if found.places is not None:
        np.testing.assert_array_equal(found.places, found.ids + 1_000)
    assert sum(found.counts) == len(found.ids)
    return [share.ids.tolist() for share in found.shares([1] * len(found.counts))]


def expected(counts: list[int], page: slice = slice(None)) -> list[list[int]]:
    return [[query * 10 + rank for rank in range(count)][page] for query, count in enumerate(counts)]


@given(COUNTS, st.booleans())
def test_hits_are_found_without_their_padding(counts: list[int], with_places: bool):
    found = Found.of(hits_of(counts, with_places=with_places))

    assert found.counts == counts
    assert (found.places is not None) == with_places
    assert rows(found) == expected(counts)


@given(COUNTS, st.integers(0, 6), st.integers(1, 6))
def test_a_page_leaves_out_the_same_of_each_query(counts: list[int], offset: int, limit: int):
    page = Found.of(hits_of(counts)).page(offset, offset + limit)

    assert rows(page) == expected(counts, slice(offset, offset + limit))


@given(st.lists(COUNTS, max_size=4))
def test_the_shares_of_joined_parts_are_the_parts(parts: list[list[int]]):
    found = [Found.of(hits_of(counts)) for counts in parts]

    joined = Found.joined(found)

    assert joined.counts == [count for counts in parts for count in counts]
    for share, part in zip(joined.shares(map(len, parts)), found, strict=True):
        assert rows(share) == rows(part)


@pytest.mark.parametrize("width", [1, 3])
def test_full_rows_are_not_copied(width: int):
    hits: Any = hits_of([width] * 4, width)

    found = Found.of(hits)

    assert np.shares_memory(found.ids, hits.ids)
    assert np.shares_memory(found.distances, hits.distances)
