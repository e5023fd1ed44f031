"""Groups are picked from windows of hits that widen until they are enough."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nearmq_worker.search_groups import find_groups
from nearmq_worker.search_pass import Found

GROUPS = st.lists(st.integers(0, 12), max_size=200)


def expected(groups: Sequence[int], *, offset: int, limit: int, size: int) -> list[int]:
    order = list(dict.fromkeys(groups))[offset : offset + limit]
    return [place for place, group in enumerate(groups) if group in order and groups[:place].count(group) < size]


@given(
    st.lists(GROUPS, max_size=4),
    st.integers(0, 5),
    st.integers(1, 15),
    st.integers(1, 6),
)
def test_the_rows_of_a_page_of_groups_are_those_of_the_whole(
    queries: list[list[int]], offset: int, limit: int, size: int
):
    windows: list[int] = []

    def find(numbers: Sequence[int], window: int) -> Found:
        """The nearest hits of some queries, whose places are their ranks."""
        windows.append(window)
        ranks = [np.arange(min(window, len(queries[number]))) + 1_000 * number for number in numbers]
        places = np.concatenate(ranks)
        return Found(list(map(len, ranks)), places, places.astype(np.float32), places)

    def groups_of(places: np.ndarray) -> np.ndarray:
        return np.array([queries[place // 1_000][place % 1_000] for place in places], dtype=np.int64)

    found = find_groups(find, groups_of, len(queries), offset=offset, limit=limit, size=size, most=200)
    assert len(found.counts) == len(queries)
    for number, (groups, hits) in enumerate(zip(queries, found.shares([1] * len(queries)), strict=True)):
        ranks = [place - 1_000 * number for place in hits.ids.tolist()]
        assert ranks == expected(groups, offset=offset, limit=limit, size=size)
    assert windows == sorted(set(windows))


def test_one_window_is_enough_where_the_nearest_rows_are_of_as_many_groups():
    windows: list[int] = []

    def find(_: Sequence[int], window: int) -> Found:
        windows.append(window)
        places = np.arange(window)
        return Found([window], places, places.astype(np.float32), places)

    hits = find_groups(find, lambda places: places % 7, 1, offset=2, limit=5, size=1, most=1_000_000)
    assert (hits.counts, hits.ids.tolist(), windows) == ([5], [2, 3, 4, 5, 6], [28])
