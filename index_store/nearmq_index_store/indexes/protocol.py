"""The seam to the index kinds: how one is declared, built over the rows of a segment, opened, and asked for candidates.

An index only chooses candidates; `search.py` recomputes every distance from the rows with one fixed kernel
(`distances.py`), so that an answer does not depend on the index that found it. The protocol is ours and may change with
its five adapters; `tests/contract/test_vector_index.py` holds all of them to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from nearmq_index_store.schema import Metric, VectorField

FloatMatrix = npt.NDArray[np.float32]
RowNumbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchParams:
    """A search's parameters after defaults: hashable, and all that decides which candidates a query gets.

    Two queries with equal SearchParams may be searched in one batch: each gets just what it gets alone.

    Attributes:
        candidates: how many candidates to re-rank by exact distance; 0 where the index's choice is exact over what it
            visits, for then any limit gets a prefix of the same answer.
    """

    ef: int = 0
    nprobe: int = 0
    candidates: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltIndex:
    """What `build` made.

    Attributes:
        kind: the kind really built; FLAT where the segment has too few rows to train what was declared.
        params: as built, such as the nlist that the segment's rows allow.
        path: the file with the index's bytes; None when there are none (FLAT).
        memory_bytes: what the opened index takes beside the rows.
    """

    kind: str
    params: dict[str, int]
    path: Path | None
    memory_bytes: int


class VectorIndex(Protocol):
    """An opened index of one field of one segment; immutable, searched by any number of threads at once."""

    def candidates(
        self, queries: FloatMatrix, limit: int, params: SearchParams
    ) -> tuple[RowNumbers, npt.NDArray[np.bool_]]:
        """Choose the rows that may be nearest to each query.

        Args:
            queries: float32, shape (n, dim), C-contiguous, finite, as given by the caller (not normalised).
            limit: how many hits are wanted at the most, at least 1; more than the segment holds is allowed.
            params: of this index's kind.

        Returns:
            Row numbers int64 of shape (n, c), -1 where a query has fewer than c candidates, no row twice in a line, in
            no promised order; and a mask of the queries whose candidates surely hold all true hits among the rows
            visited, ties included. The caller searches the others exactly where the index promises exactness.
        """
        ...


class IndexKind(Protocol):
    """One kind of index: FLAT, HNSW, IVF_FLAT, IVF_SQ8 or IVF_PQ."""

    @property
    def name(self) -> str: ...

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
            vectors: float32, shape (rows, dim), as given (COSINE is normalised in here), at least one row.
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
