# ruff: noqa: ARG002 - the protocol's parameters; not every kind needs them all
"""FLAT: exact search over all rows, with no bytes of its own.

Numpy's matrix product and the certified cut of `scan.py` rather than faiss's brute force: faiss has no COSINE over rows
that are not normalised (a copy as large as the rows), and says nothing of ties and rounding at the limit.
"""

from collections.abc import Mapping
from pathlib import Path

from nearmq_index_store.distances import FloatMatrix, RowNumbers
from nearmq_index_store.indexes.params import check_params
from nearmq_index_store.indexes.protocol import BuiltIndex, SearchParams
from nearmq_index_store.indexes.scan import KEYS_AT_ONCE, Scan, closest
from nearmq_index_store.schema import Metric, VectorField


class Flat:
    """The FLAT kind: no build parameters, no search parameters."""

    name = "FLAT"

    def check_build_params(self, params: Mapping[str, int], dim: int) -> dict[str, int]:
        """Refuse every parameter."""
        return check_params(params, {}, "FLAT")

    def resolve(self, params: Mapping[str, int | float], field: VectorField, limit: int) -> SearchParams:
        """Refuse every parameter."""
        check_params(params, {}, "FLAT search")
        return SearchParams()

    def build(
        self,
        vectors: FloatMatrix,
        field: VectorField,
        folder: Path,
        *,
        threads: int,
        seed: int,
    ) -> BuiltIndex:
        """Build nothing: the rows are the index."""
        return flat_instead(len(vectors))

    def open(
        self,
        path: Path | None,
        built: Mapping[str, int],
        vectors: FloatMatrix,
        metric: Metric,
    ) -> "FlatIndex":
        """Take the rows as they are; one pass over them measures their lengths."""
        return FlatIndex(vectors, metric)


class FlatIndex:
    """All rows of a segment."""

    def __init__(self, vectors: FloatMatrix, metric: Metric) -> None:
        self._rows = len(vectors)
        self._scan = Scan(vectors, metric)

    def candidates(self, queries: FloatMatrix, limit: int, params: SearchParams) -> list[RowNumbers]:
        """Return the rows that certainly hold the nearest `limit` ones, ties included."""
        return self.nearest(queries, limit)

    def nearest(self, queries: FloatMatrix, limit: int) -> list[RowNumbers]:
        """Return the rows that certainly hold the nearest `limit` ones, ties included."""
        prepared = self._scan.prepare(queries)
        found: list[RowNumbers] = []
        step = max(1, KEYS_AT_ONCE // self._rows)
        for start in range(0, len(queries), step):
            keys = self._scan.keys(prepared.queries[start : start + step], 0, self._rows)
            slack = prepared.slack[start : start + step]
            found += [closest(line, limit, float(slack[i])) for i, line in enumerate(keys)]
        return found


def flat_instead(rows: int) -> BuiltIndex:
    """Describe the FLAT index that stands in where the declared kind cannot be built over such rows."""
    return BuiltIndex(kind="FLAT", params={}, path=None, memory_bytes=4 * rows)
