"""Range search: only hits between two distances.

L2: range_filter <= distance < radius; IP and COSINE: radius < distance <= range_filter.
"""

import math

import numpy as np
import numpy.typing as npt

from nearmq_index_store.distances import Distances
from nearmq_index_store.errors import InvalidArgument
from nearmq_index_store.schema import Metric


def check_range(metric: Metric, radius: float | None, range_filter: float | None) -> None:
    """Check that a range can hold anything.

    Raises:
        InvalidArgument: a bound is no finite number, or radius is not beyond range_filter.
    """
    for name, bound in (("radius", radius), ("range_filter", range_filter)):
        if bound is not None and not math.isfinite(bound):
            raise InvalidArgument(f"{name} must be a finite number, got {bound}", field=name)
    if radius is None or range_filter is None:
        return
    if metric == "L2" and not range_filter < radius:
        raise InvalidArgument(
            f"L2 ranges are range_filter <= distance < radius, got range_filter {range_filter} and radius {radius}",
            field="radius",
        )
    if metric != "L2" and not radius < range_filter:
        raise InvalidArgument(
            f"{metric} ranges are radius < distance <= range_filter, got radius {radius}"
            f" and range_filter {range_filter}",
            field="radius",
        )


def within(
    distances: Distances, metric: Metric, radius: float | None, range_filter: float | None
) -> npt.NDArray[np.bool_]:
    """Return for each distance whether it lies in the range; a bound that is None bounds nothing."""
    # In float64, for numpy would round a plain number to the distances' float32.
    inside = np.ones(len(distances), dtype=np.bool_)
    if radius is not None:
        inside &= distances < np.float64(radius) if metric == "L2" else distances > np.float64(radius)
    if range_filter is not None:
        inside &= distances >= np.float64(range_filter) if metric == "L2" else distances <= np.float64(range_filter)
    return inside
