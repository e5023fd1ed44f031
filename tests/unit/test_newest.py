"""The last of numbers without a gap, as heads, floors and names are looked for."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from nearmq_index_store.head import newest


class Numbers:
    """A store that has the numbers up to one, and counts what it is asked."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.turns = self.looks = 0

    def which_exist(self, keys: Sequence[str]) -> Iterator[bool]:
        self.turns += 1
        return map(self._exists, keys)

    def _exists(self, key: str) -> bool:
        self.looks += 1
        return int(key) <= self.last


@pytest.mark.parametrize("base", [0, 1, 7, 100])
def test_the_last_is_found_from_any_base(base: int):
    for last in range(base, base + 150):
        numbers: Any = Numbers(last)
        assert newest(numbers, str, base) == last


@pytest.mark.parametrize(("last", "turns", "looks"), [(0, 1, 1), (1, 1, 2), (2, 1, 3), (3, 1, 4), (500, 5, 19)])
def test_few_turns_are_taken_and_no_number_is_looked_at_beyond_a_gap(last: int, turns: int, looks: int):
    numbers: Any = Numbers(last)
    newest(numbers, str, 0)
    assert (numbers.turns, numbers.looks) == (turns, looks)
