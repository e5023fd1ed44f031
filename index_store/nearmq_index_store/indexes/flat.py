# ruff: noqa: ARG002 - the protocol's parameters; not every kind needs them all
"""FLAT: exact search over all rows.

Its file holds what a scan knows of their lengths, float32: at least the longest one, then a term a row (`scan.py`; none
for IP). So a large segment is opened without a pass over its rows; a small one has no file, and is measured then.

Products (numpy's; for few queries, faiss's) and the certified cut of `scan.py` rather than faiss's brute force: faiss
has no COSINE over rows that are not normalised (a copy as large as the rows), and says nothing of ties and rounding at
the limit.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from nearmq_index_store.blobs.protocol import Buffer
from nearmq_index_store.distances import FloatMatrix
from nearmq_index_store.errors import IndexCorrupt
from nearmq_index_store.indexes.allowed import AllowedRows
from nearmq_index_store.indexes.candidates import Candidates
from nearmq_index_store.indexes.params import check_params
from nearmq_index_store.indexes.protocol import BuiltIndex, Grid, SearchParams, no_report
from nearmq_index_store.indexes.recall_table import RecallPoint
from nearmq_index_store.indexes.scan import (
    KEYS_AT_ONCE,
    Measured,
    Scan,
    closest_beyond,
    closest_of_each,
    may_overflow,
)
from nearmq_index_store.schema import Metric, VectorField

#: Vectors of up to so many bytes have no file: to measure them takes a third of a millisecond.
_MEASURED_WHEN_OPENED = 1 << 20


#: To choose among so few bytes of rows, times the queries, takes longer than the exact distances of all of them.
_RANKED_ANYWAY = 3 << 16


class Flat:
    """The FLAT kind: no build parameters, no search parameters."""

    name = "FLAT"
    measures_itself = True

    def check_build_params(self, params: Mapping[str, int], dim: int) -> dict[str, int]:
        """Refuse every parameter."""
        return check_params(params, {}, "FLAT")

    def resolve(self, params: Mapping[str, int | float], field: VectorField, limit: int) -> SearchParams:
        """Refuse every parameter."""
        check_params(params, {}, "FLAT search")
        return SearchParams()

    def grid(self, built: Mapping[str, int], rows: int, limit: int) -> Grid:
        """Measure nothing: all is found."""
        return Grid(())

    def at(self, point: RecallPoint, limit: int, built: Mapping[str, int]) -> SearchParams:
        """Return no params."""
        return SearchParams()

    def build(
        self,
        vectors: FloatMatrix,
        field: VectorField,
        folder: Path,
        *,
        threads: int,
        seed: int,
        on_rows: Callable[[int], None] = no_report,
    ) -> BuiltIndex:
        """Measure the rows, if they are many; they are the index."""
        path = None
        if vectors.nbytes > _MEASURED_WHEN_OPENED:
            path = folder / f"{field.name}.flat"
            measured = Measured.of(vectors, field.metric)
            path.write_bytes(np.array([measured.longest, *measured.terms], dtype="<f4").tobytes())
        return _built(len(vectors), path, unbuildable=False)

    def open(
        self,
        data: Buffer | None,
        built: Mapping[str, int],
        vectors: FloatMatrix,
        metric: Metric,
    ) -> "FlatIndex":
        """Take the rows as they are."""
        if data is None:
            return FlatIndex(vectors, metric)
        terms = 0 if metric == "IP" else len(vectors)
        if len(data) != 4 * (1 + terms):
            raise IndexCorrupt(f"a FLAT index of {len(vectors)} rows has {len(data)} bytes, not {4 * (1 + terms)}")
        values = np.frombuffer(data, dtype="<f4")
        return FlatIndex(vectors, metric, Measured(float(values[0]), values[1:]))


class FlatIndex:
    """All rows of a segment.

    Attributes:
        rows_nbytes: the bytes of the rows.
    """

    def __init__(self, vectors: FloatMatrix, metric: Metric, measured: Measured | None = None) -> None:
        self._rows = len(vectors)
        self.rows_nbytes = vectors.nbytes
        self._scan = Scan(vectors, metric, measured)

    def candidates(self, queries: FloatMatrix, limit: int, params: SearchParams) -> Candidates:
        """Return the rows that certainly hold the nearest `limit` ones, ties included."""
        return self.nearest(queries, limit)

    def among(self, allowed: AllowedRows) -> None:
        """Leave it to an exact scan."""
        return

    @property
    def nbytes(self) -> int:
        """What the scan keeps beside the rows."""
        return self._scan.nbytes

    @may_overflow
    def nearest(
        self, queries: FloatMatrix, limit: int, *, allowed: AllowedRows | None = None, near_end: float | None = None
    ) -> Candidates:
        """Return the rows that certainly hold the nearest `limit` ones, ties included.

        Args:
            allowed: the only rows to return; None is all.
            near_end: a distance; nearer rows do not count, though some of them may be returned.
        """
        if allowed is None and len(queries) * self.rows_nbytes <= _RANKED_ANYWAY:
            return Candidates.same(np.arange(self._rows), len(queries))
        prepared = self._scan.prepare(queries)
        refused = None if allowed is None else ~allowed.mask
        near_keys = None if near_end is None else self._scan.key_at(queries, near_end)
        found = []
        step = max(1, KEYS_AT_ONCE // self._rows)
        for start in range(0, len(queries), step):
            chunk = slice(start, start + step)
            keys, slacks = self._scan.keys(prepared.queries[chunk], 0, self._rows), prepared.slack[chunk]
            if refused is not None:
                np.copyto(keys, np.inf, where=refused)
            if near_keys is None:
                near = closest_of_each(keys, limit, slacks)
            else:
                lines = zip(keys, slacks.tolist(), near_keys[chunk].tolist(), strict=True)
                near = Candidates.of([closest_beyond(line, limit, slack, end) for line, slack, end in lines])
            # Refused rows are left where there are fewer allowed ones than the limit, or nothing is known of the keys.
            found.append(near if allowed is None else near.among(allowed.mask))
        return Candidates.joined(found)


def flat_instead(rows: int) -> BuiltIndex:
    """Describe the FLAT index that stands in where the declared kind cannot be built over such rows."""
    return _built(rows, None, unbuildable=True)


def _built(rows: int, path: Path | None, *, unbuildable: bool) -> BuiltIndex:
    return BuiltIndex(kind="FLAT", params={}, path=path, memory_bytes=4 * rows, unbuildable=unbuildable)
