"""The scalar values of hits, read from the segments that hold their rows."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any

import numpy as np

from nearmq_index_store.search import Places, split_places
from nearmq_index_store.segment import Segment


def read_fields(
    names: Sequence[str], places: Sequence[Places], open_part: Callable[[int], AbstractContextManager[Segment]]
) -> list[dict[str, list[Any]]]:
    """Return for each query the values of each scalar field, in the order of its hits.

    Args:
        names: the scalar fields.
        places: of each query's hits, shape (hits,).
        open_part: opens the segment that was searched under this number; each is opened once, and no two together.
    """
    bounds = np.cumsum([0, *map(len, places)]).tolist()
    values: dict[str, list[Any]] = {name: [None] * bounds[-1] for name in names}
    if bounds[-1] and names:
        parts, rows = split_places(np.concatenate(places))
        for part in np.unique(parts).tolist():
            positions = np.flatnonzero(parts == part)
            with open_part(part) as segment:
                for name, column in values.items():
                    found = segment.rows.values_at(name, rows[positions])
                    for position, value in zip(positions.tolist(), found, strict=True):
                        column[position] = value
    return [{name: column[start:stop] for name, column in values.items()} for start, stop in pairwise(bounds)]
