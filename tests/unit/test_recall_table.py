"""What a table of measured recalls makes of a recall that is asked for."""

import pytest

from nearmq_index_store.indexes.recall_table import RecallPoint, find_point, limit_asked

TABLE = {
    10: (RecallPoint(16, 0, 0.8), RecallPoint(64, 0, 0.9), RecallPoint(128, 0, 0.99)),
    100: (RecallPoint(128, 0, 0.9),),
    1_000: (RecallPoint(1_500, 0, 0.9),),
}


def test_the_width_lies_between_those_of_the_points_around_the_recall():
    widths = {}
    for asked in (0.3, 0.8, 0.85, 0.9, 0.901, 0.99):
        point = find_point(TABLE, asked, 10)
        assert point is not None
        widths[asked] = point.width
    assert widths == {0.3: 16, 0.8: 16, 0.85: 32, 0.9: 64, 0.901: 65, 0.99: 128}


def test_what_was_not_reached_or_not_measured_has_no_point():
    assert find_point(TABLE, 0.991, 10) is None
    assert find_point(TABLE, 0.95, 100) is None
    assert find_point({10: (RecallPoint(16, 0, 1.0),)}, 1, 10) is None
    assert find_point({10: TABLE[10]}, 0.5, 100) is None
    assert find_point({}, 0.5, 10) is None


def test_points_of_another_refine_do_not_tell_how_wide_to_look():
    table = {10: (RecallPoint(8, 2, 0.7), RecallPoint(16, 1, 0.8), RecallPoint(32, 2, 0.9))}
    assert find_point(table, 0.75, 10) == RecallPoint(16, 1, 0.8)
    assert find_point(table, 0.85, 10) == RecallPoint(23, 2, 0.9)


@pytest.mark.parametrize(
    ("limit", "asked"), [(1, 10), (10, 10), (11, 100), (100, 100), (101, 1_000), (1_001, 1_024), (5_000, 8_192)]
)
def test_similar_limits_ask_for_the_same(limit: int, asked: int):
    assert limit_asked(limit) == asked


def test_what_is_beyond_the_largest_measured_limit_grows_in_proportion():
    assert find_point(TABLE, 0.9, 4_096) == RecallPoint(6_144, 0, 0.9)
