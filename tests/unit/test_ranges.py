import math

import numpy as np
import pytest

from nearmq_index_store.errors import InvalidArgument
from nearmq_index_store.ranges import check_range, within
from nearmq_index_store.schema import Metric

DISTANCES = np.array([0.1, 0.2, 0.3, 0.4], dtype=np.float32)


@pytest.mark.parametrize(
    ("metric", "radius", "range_filter", "inside"),
    [
        ("L2", None, None, [True, True, True, True]),
        ("L2", 0.35, None, [True, True, True, False]),
        ("L2", None, 0.15, [False, True, True, True]),
        ("L2", float(DISTANCES[3]), float(DISTANCES[1]), [False, True, True, False]),
        ("COSINE", float(DISTANCES[1]), float(DISTANCES[3]), [False, False, True, True]),
        ("IP", None, float(DISTANCES[1]), [True, True, False, False]),
        ("IP", 0.15, None, [False, True, True, True]),
        ("IP", -1e300, 1e300, [True, True, True, True]),
    ],
)
def test_the_near_end_is_in_the_range_and_the_far_end_is_not(
    metric: Metric, radius: float | None, range_filter: float | None, inside: list[bool]
):
    check_range(metric, radius, range_filter)
    assert within(DISTANCES, metric, radius, range_filter).tolist() == inside


def test_a_bound_between_two_float32_values_is_not_rounded_to_either():
    assert within(DISTANCES[:1], "L2", math.nextafter(float(DISTANCES[0]), 1), None).tolist() == [True]
    assert within(DISTANCES[:1], "L2", None, math.nextafter(float(DISTANCES[0]), 1)).tolist() == [False]


@pytest.mark.parametrize(
    ("metric", "radius", "range_filter", "message"),
    [
        ("L2", 1.0, 2.0, "L2 ranges are range_filter <= distance < radius, got range_filter 2.0 and radius 1.0"),
        ("L2", 1.0, 1.0, "range_filter 1.0 and radius 1.0"),
        ("IP", 3.0, 2.0, "IP ranges are radius < distance <= range_filter, got radius 3.0 and range_filter 2.0"),
        ("COSINE", 0.5, 0.5, "COSINE ranges are radius < distance <= range_filter"),
        ("L2", math.inf, None, "radius must be a finite number, got inf"),
        ("IP", None, math.nan, "range_filter must be a finite number, got nan"),
    ],
)
def test_a_range_that_can_hold_nothing_is_refused_naming_both_ends(
    metric: Metric, radius: float | None, range_filter: float | None, message: str
):
    with pytest.raises(InvalidArgument, match=message):
        check_range(metric, radius, range_filter)
