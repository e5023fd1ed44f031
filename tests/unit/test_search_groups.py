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

    def find(numbers: Sequence[int], window: int) -> list[Found]:
        """The nearest hits of a query, whose places are their ranks."""
        windows.append(window)
        ranks = [np.arange(min(window, len(queries[number]))) + 1_000 * number for number in numbers]
        return [Found(places, places.astype(np.float32), places) for places in ranks]

    def groups_of(places: np.ndarray) -> np.ndarray:
        return np.array([queries[place // 1_000][place % 1_000] for place in places], dtype=np.int64)

    found = find_groups(find, groups_of, len(queries), offset=offset, limit=limit, size=size, most=200)
    for number, (groups, hits) in enumerate(zip(queries, found, strict=True)):
        ranks = [place - 1_000 * number for place in hits.ids.tolist()]
        assert ranks == expected(groups, offset=offset, limit=limit, size=size)
    assert windows == sorted(set(windows))


def test_one_window_is_enough_where_the_nearest_rows_are_of_as_many_groups():
    windows: list[int] = []

    def find(numbers: Sequence[int], window: int) -> list[Found]:
        windows.append(window)
        places = np.arange(window)
        return [Found(places, places.astype(np.float32), places)] * len(numbers)

    [hits] = find_groups(find, lambda places: places % 7, 1, offset=2, limit=5, size=1, most=1_000_000)
    assert (hits.ids.tolist(), windows) == ([2, 3, 4, 5, 6], [28])
