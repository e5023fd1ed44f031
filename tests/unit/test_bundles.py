"""Replies that share a message."""

import pytest

from nearmq.bundles import join, shared_out


@pytest.mark.parametrize(
    ("lengths", "shared"),
    [
        ([5], [[5]]),
        ([10], [[10]]),
        ([3, 4], [[3, 4]]),  # ten with the brackets and the comma
        ([4, 4], [[4], [4]]),
        ([1, 1, 1, 1, 1], [[1, 1, 1, 1], [1]]),
        ([20, 1, 2, 30, 1], [[20], [1, 2], [30], [1]]),
    ],
)
def test_as_many_share_a_message_as_fit_in_their_order(lengths: list[int], shared: list[list[int]]):
    assert [lengths[part] for part in shared_out(lengths, 10)] == shared
    together = [len(join([bytes(length) for length in lengths[part]])) for part in shared_out(lengths, 10)]
    assert all(size <= 10 for size, part in zip(together, shared, strict=True) if len(part) > 1)
