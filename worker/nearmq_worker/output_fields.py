"""The values of rows that a reply carries, read from the segments that hold them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nearmq.errors import LimitExceeded
from nearmq_index_store.distances import FloatMatrix, RowNumbers
from nearmq_index_store.places import Places, split_places
from nearmq_index_store.rows import Rows
from nearmq_index_store.schema import VectorField

#: Opens the segment of a number.
OpenPart = Callable[[int], AbstractContextManager[Rows]]


class RowReader:
    """Reads values of rows for one job, up to a bound on their bytes.

    Each segment is opened once for all that a call reads from it, and no two together.
    """

    def __init__(self, open_part: OpenPart, most_bytes: int, *, integers_as_text: bool = False) -> None:
        """Take what opens the segments.

        Args:
            integers_as_text: int64 values are written as strings, as the job's `id_format` says.
        """
        self._open_part = open_part
        self._most_bytes = most_bytes
        self._bytes = 0
        self._integers_as_text = integers_as_text

    def scalars(self, names: Sequence[str], places: Places) -> dict[str, list[Any]]:
        """Return the values of scalar fields, one a place.

        Raises:
            LimitExceeded: this and what was read before is more than the bound.
        """
        values: dict[str, list[Any]] = {name: [None] * len(places) for name in names}
        for positions, numbers, rows in self._parts(places) if names else ():
            for name, column in values.items():
                self._count(rows.scalars[name].bytes_at(numbers))
                found = rows.values_at(name, numbers, integers_as_text=self._integers_as_text)
                for position, value in zip(positions.tolist(), found, strict=True):
                    column[position] = value
        return values

    def vectors(self, fields: Sequence[VectorField], places: Places) -> dict[str, FloatMatrix]:
        """Return the vectors of fields as they were given, shape (places, dim); raises as `scalars`."""
        self._count(sum(4 * field.dim * len(places) for field in fields))
        values = {field.name: np.empty((len(places), field.dim), dtype=np.float32) for field in fields}
        for positions, numbers, rows in self._parts(places) if fields else ():
            for name, matrix in values.items():
                matrix[positions] = rows.vectors(name)[numbers]
        return values

    def groups(self, name: str, places: Places, numbers: dict[Any, int]) -> npt.NDArray[np.int64]:
        """Return for each place the number of its value of a scalar field: equal for equal values, null among them.

        Args:
            numbers: those given so far, by value; new values get new ones.
        """
        groups = np.empty(len(places), dtype=np.int64)
        for positions, row_numbers, rows in self._parts(places):
            values = rows.column(name).take(pa.array(row_numbers)).dictionary_encode(null_encoding="encode")
            known = [numbers.setdefault(value, len(numbers)) for value in values.dictionary.to_pylist()]
            groups[positions] = np.array(known)[values.indices.to_numpy()]
        return groups

    def _parts(self, places: Places) -> Iterator[tuple[RowNumbers, RowNumbers, Rows]]:
        """Open each segment that has some of the rows; yield their positions, their numbers in it, and its rows."""
        parts, numbers = split_places(places)
        for part in np.unique(parts).tolist():
            positions = np.flatnonzero(parts == part)
            with self._open_part(part) as rows:
                yield positions, numbers[positions], rows

    def _count(self, read: int) -> None:
        self._bytes += read
        if self._bytes > self._most_bytes:
            raise LimitExceeded(
                f"the output fields come to {self._bytes} bytes or more, allowed are at most {self._most_bytes}: "
                "ask for fewer fields or rows",
                field="output_fields",
            )


def read_fields(
    names: Sequence[str], counts: Sequence[int], places: Places, reader: RowReader
) -> list[dict[str, list[Any]]]:
    """Return for each query the values of each scalar field, in the order of its hits.

    Args:
        names: the scalar fields.
        counts: how many hits each query has.
        places: of the hits of all queries.
        reader: raises LimitExceeded when it is too much.
    """
    values = reader.scalars(names, places)
    bounds = pairwise(accumulate(counts, initial=0))
    return [{name: column[start:stop] for name, column in values.items()} for start, stop in bounds]
