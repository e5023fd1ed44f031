"""The seam to the index kinds: how one is declared, built over the rows of a segment, opened, and asked for candidates.

An index only chooses candidates; `search.py` recomputes every distance from the rows with one fixed kernel
(`distances.py`), so that an answer does not depend on the index that found it. The protocol is ours and may change with
its five adapters; `tests/contract/test_vector_index.py` holds all of them to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nearmq_index_store.distances import FloatMatrix, RowNumbers
from nearmq_index_store.schema import Metric, VectorField


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchParams:
    """A search's parameters after defaults: hashable, and all that decides which candidates a query gets.

    Two queries with equal SearchParams may be searched in one batch, whatever their limits: each gets just what it gets
    alone, for a larger limit only makes the same answer longer.

    Attributes:
        ef: width of the walk through an HNSW graph; all that it finds is re-ranked by exact distance.
        nprobe: cells of an IVF index that are visited at least.
        candidates: rows that an IVF index looks at (IVF_FLAT) or re-ranks by exact distance (IVF_SQ8, IVF_PQ) at least:
            further cells are visited as long as those visited hold fewer, so that no row is missing from an answer
            because its cells were small. A power of two, so that jobs of similar limits are equal here.
    """

    ef: int = 0
    nprobe: int = 0
    candidates: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltIndex:
    """What `build` made.

    Attributes:
        kind: the kind really built: FLAT where the rows are too few, or too large in value, to train what was declared.
        params: as built.
        path: the file with the index's bytes; None when there are none (FLAT).
        memory_bytes: what the opened index takes beside the rows, about.
    """

    kind: str
    params: dict[str, int]
    path: Path | None
    memory_bytes: int


class VectorIndex(Protocol):
    """An opened index of one field of one segment; immutable, searched by any number of threads at once."""

    def candidates(self, queries: FloatMatrix, limit: int, params: SearchParams) -> list[RowNumbers]:
        """Choose for each query the rows among which its hits are.

        What a query gets depends on itself, the params and the limit, not on the rest of the batch; and the best
        `limit` of its candidates by exact distance (ties by id) are the same for any larger limit. There are at least
        min(limit, rows) of them, whatever the params.

        Args:
            queries: float32, shape (n, dim), C-contiguous, finite, as given by the caller (not normalised).
            limit: how many hits are wanted at the most, at least 1; not above what `resolve` made the params for.
            params: what this kind's `resolve` returned.

        Returns:
            For each query its row numbers, int64, in no promised order, none twice.
        """
        ...


class IndexKind(Protocol):
    """One kind of index: FLAT, HNSW, IVF_FLAT, IVF_SQ8 or IVF_PQ."""

    @property
    def name(self) -> str:
        """The kind's name in a schema, upper case."""
        ...

    def check_build_params(self, params: Mapping[str, int], dim: int) -> dict[str, int]:
        """Return all build parameters, defaults filled in.

        Raises:
            InvalidArgument: unknown key (names the nearest known one) or value out of range (names the range); never
                depends on the data.
        """
        ...

    def resolve(self, params: Mapping[str, int | float], field: VectorField, limit: int) -> SearchParams:
        """Return a search's parameters, defaults filled in; `limit` is limit + offset.

        Raises:
            InvalidArgument: as for build parameters; a given ef below limit, an nprobe above the declared nlist.
        """
        ...

    def build(self, vectors: FloatMatrix, field: VectorField, folder: Path, *, threads: int, seed: int) -> BuiltIndex:
        """Build over the rows of one segment, in their order; deterministic for a seed and one thread.

        Args:
            vectors: float32, shape (rows, dim), finite, C-contiguous, as given (COSINE is normalised in here), at least
                one row.
            folder: where the index's file is written, under the field's name.
        """
        ...

    def open(self, path: Path | None, built: Mapping[str, int], vectors: FloatMatrix, metric: Metric) -> VectorIndex:
        """Open a file that was verified against its digest; its header is checked against the rows before any loader.

        Args:
            path: the verified file; None for FLAT.
            built: BuiltIndex.params.
            vectors: the segment's rows, as for `build`; kept, not copied.

        Raises:
            IndexCorrupt: the header contradicts the rows or the built parameters.
        """
        ...
