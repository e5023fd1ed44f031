"""Hits by group: the groups whose best hits are nearest, each with its nearest rows.

Whether the nearest rows hold enough groups is known only after they were found; so the window is widened until they do,
or until it holds every row that may be a hit.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from nearmq_index_store.distances import RowNumbers
from nearmq_index_store.places import Places
from nearmq_worker.search_pass import Found

#: Finds the nearest rows of some queries, given by their numbers, up to a window.
Find = Callable[[Sequence[int], int], Found]

#: Tells the groups of rows at some places, equal numbers for equal values.
GroupsOf = Callable[[Places], npt.NDArray[np.int64]]

#: How much wider than the answer the first window is: some rows of its groups too many cost less than a second one.
_FIRST = 4
#: How much wider the next window is; the last few queries cost least when they get there soon.
_WIDER = 8


def find_groups(
    find: Find, groups_of: GroupsOf, queries: int, *, offset: int, limit: int, size: int, most: int
) -> Found:
    """Find for each query the groups after the first `offset`, at most `limit`, each with at most `size` rows.

    Args:
        find: returns hits with their places, fewer than the window only where there are no more.
        groups_of: returns the groups of hits.
        queries: how many there are.
        most: rows that a window may hold at the most.

    Returns:
        The hits of the queries, nearest first.
    """
    answers: list[Found | None] = [None] * queries
    pending = list(range(queries))
    window = min(most, _FIRST * (offset + limit) * size)
    while pending:
        left = []
        for query, found in zip(pending, find(pending, window).shares([1] * len(pending)), strict=True):
            assert found.places is not None
            kept, is_whole = pick(groups_of(found.places), offset=offset, limit=limit, size=size)
            if is_whole or len(found.ids) < window or window == most:
                answers[query] = Found([len(kept)], found.ids[kept], found.distances[kept], found.places[kept])
            else:
                left.append(query)
        pending = left
        window = most if window * _WIDER * _WIDER > most else window * _WIDER
    return Found.joined([answer for answer in answers if answer is not None])


def pick(groups: npt.NDArray[np.int64], *, offset: int, limit: int, size: int) -> tuple[RowNumbers, bool]:
    """Choose the hits of the groups of a page.

    Args:
        groups: the group of each hit, nearest first.

    Returns:
        The positions of the chosen hits, ascending, and whether no hit further away could be chosen too.
    """
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    rank_of = np.empty(len(first), dtype=np.int64)
    rank_of[np.argsort(first)] = np.arange(len(first))
    ranks = rank_of[inverse]  # of each hit's group, the one with the nearest hit first
    counts = np.bincount(ranks, minlength=offset + limit)[offset : offset + limit]
    in_order = np.argsort(ranks, kind="stable")
    starts = np.searchsorted(ranks[in_order], ranks[in_order])
    nth = np.empty(len(ranks), dtype=np.int64)
    nth[in_order] = np.arange(len(ranks)) - starts
    chosen = np.flatnonzero((ranks >= offset) & (ranks < offset + limit) & (nth < size))
    return chosen, bool((counts >= size).all())
