"""The rows among which the hits of a batch are."""

import numpy as np

from nearmq_index_store.indexes.candidates import Candidates

FOUND = [[5, 3], [], [7], [], [1, 2, 9]]


def of(*found: list[int]) -> Candidates:
    return Candidates.of([np.array(rows, np.int64) for rows in found])


def lists(candidates: Candidates) -> list[list[int]]:
    return [rows.tolist() for rows in candidates]


def test_each_query_has_its_rows():
    assert lists(of(*FOUND)) == FOUND
    assert lists(of()) == []
    assert lists(Candidates.same(np.array([4, 6]), 3)) == [[4, 6]] * 3


def test_batches_are_joined_in_their_order():
    assert lists(Candidates.joined([of(*FOUND[:2]), of(), of(*FOUND[2:])])) == FOUND
    assert lists(Candidates.joined([])) == []


def test_queries_that_have_none_get_those_of_others():
    found = of(*FOUND)
    assert found.without().tolist() == [1, 3]
    assert lists(found.filled(np.array([1, 3]), of([8], [6, 4]))) == [[5, 3], [8], [7], [6, 4], [1, 2, 9]]
    assert lists(found.filled(np.array([1, 3]), of([], [6, 4]))) == [[5, 3], [], [7], [6, 4], [1, 2, 9]]
    assert lists(found.filled(np.array([3]), of([8]))) == [[5, 3], [], [7], [8], [1, 2, 9]]


def test_rows_that_are_not_allowed_are_left_out():
    allowed = np.isin(np.arange(10), [1, 2, 3, 7])
    assert lists(of(*FOUND, [8]).among(allowed)) == [[3], [], [7], [], [1, 2], []]


def test_positions_are_turned_into_row_numbers():
    assert lists(of([2, 0], [1]).taken(np.array([10, 20, 30]))) == [[30, 10], [20]]
