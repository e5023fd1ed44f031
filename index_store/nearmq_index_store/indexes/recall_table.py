"""What recall an index was measured to reach with which params, and with which a search reaches the one it asks for."""

import math
from collections.abc import Mapping
from typing import Annotated

import msgspec

from nearmq_index_store.indexes.params import power_of_two

#: The limits at which recall is measured. What holds at one is taken to hold for smaller ones; what limits beyond the
#: last need is taken to be in proportion.
MEASURED_LIMITS = (10, 100, 1_000)


class RecallPoint(msgspec.Struct, frozen=True, array_like=True):
    """One measurement.

    Attributes:
        width: the ef of HNSW, the nprobe of the IVF kinds.
        refine: of IVF_SQ8 and IVF_PQ; 0 of the other kinds.
        recall: 0..1; what was found on average, less the standard error of that.
    """

    width: Annotated[int, msgspec.Meta(ge=1, le=2**32)]
    refine: Annotated[int, msgspec.Meta(ge=0, le=2**32)]
    recall: Annotated[float, msgspec.Meta(ge=0, le=1)]


#: By measured limit: points of rising effort and recall. Without a limit, nothing is known at it.
RecallTable = Mapping[int, tuple[RecallPoint, ...]]


def limit_asked(limit: int) -> int:
    """Return the limit for which a search that wants so many hits chooses its params; the same for similar limits."""
    return next((measured for measured in MEASURED_LIMITS if limit <= measured), power_of_two(limit))


def find_point(table: RecallTable, recall: float, limit: int) -> RecallPoint | None:
    """Return the least effort that reaches a recall, None where none that was measured does; so always for 1.

    Args:
        limit: what `limit_asked` returned.
    """
    points = table.get(min(limit, MEASURED_LIMITS[-1]), ())
    reached = next((number for number, point in enumerate(points) if point.recall >= recall), None)
    if reached is None or recall == 1:
        return None
    point = points[reached]
    width = float(point.width)
    below = [other for other in points[:reached] if other.refine == point.refine]
    if below:
        # Recall over the logarithm of the width is concave, so between two points there is at least this.
        share = (recall - below[-1].recall) / (point.recall - below[-1].recall)
        width = below[-1].width * (point.width / below[-1].width) ** share
    width *= max(1.0, limit / MEASURED_LIMITS[-1])
    return msgspec.structs.replace(point, width=math.ceil(width))
