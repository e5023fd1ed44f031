"""The seam to the index kinds: how one is declared, built over the rows of a segment, opened, and asked for candidates.

An index only chooses candidates; `search.py` recomputes every distance from the rows with one fixed kernel
(`distances.py`), so that an answer does not depend on the index that found it. The protocol is ours and may change with
its five adapters; `tests/contract/test_vector_index.py` holds all of them to it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from nearmq_index_store.blobs.protocol import Buffer
from nearmq_index_store.distances import FloatMatrix
from nearmq_index_store.indexes.allowed import AllowedRows
from nearmq_index_store.indexes.candidates import Candidates
from nearmq_index_store.indexes.recall_table import RecallPoint, RecallTable
from nearmq_index_store.schema import Metric, VectorField


def no_report(rows: int) -> None:
    """Tell nobody how many rows are done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchParams:
    """A search's parameters after defaults: hashable, and all that decides which candidates a query gets.

    Two queries with equal SearchParams may be searched in one batch, whatever their limits: each gets just what it gets
    alone, for a larger limit only makes the same answer longer.

    Attributes:
        ef: width of the walk through an HNSW graph; what it finds is re-ranked by exact distance.
        nprobe: cells of an IVF index that are visited at least.
        candidates: rows that an IVF index looks at (IVF_FLAT) or re-ranks by exact distance (IVF_SQ8, IVF_PQ) at least:
            further cells are visited as long as those visited hold fewer, so that no row is missing from an answer
            because its cells were small. A power of two, so that jobs of similar limits are equal here. Of HNSW: the
            allowed rows that a walk among some rows must find, or else the query is walked again wider, and at last
            answered exactly.
        recall: what each segment is to reach by its own measurements, 0 where the params are given; then `candidates`
            is what `limit_asked` made of the limit, and the params of each segment's index are chosen by `at`.
    """

    ef: int = 0
    nprobe: int = 0
    candidates: int = 0
    recall: float = 0


class Grid(NamedTuple):
    """The params at which the recall of an index is measured.

    Attributes:
        widths: rising values of ef or nprobe.
        refines: rising values of refine, each tried with every width.
        rows_a_width: how many rows are looked at for each step of the width.
    """

    widths: Sequence[int]
    refines: Sequence[int] = (0,)
    rows_a_width: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltIndex:
    """What `build` made.

    Attributes:
        kind: the kind really built: FLAT where the rows are too few, or too large in value, to train what was declared.
        params: as built.
        path: the file with the index's bytes; None when there are none (FLAT of few rows).
        memory_bytes: what the opened index takes beside the rows, about.
        unbuildable: `kind` is FLAT though another was declared.
        recalls: what was measured of it, by a build that must do so halfway (HNSW); empty where that is left to do.
    """

    kind: str
    params: dict[str, int]
    path: Path | None
    memory_bytes: int
    unbuildable: bool = False
    recalls: RecallTable = field(default_factory=dict)


class VectorIndex(Protocol):
    """An opened index of one field of one segment; immutable, searched by any number of threads at once."""

    def candidates(self, queries: FloatMatrix, limit: int, params: SearchParams) -> Candidates:
        """Choose for each query the rows among which its hits are.

        What a query gets depends on itself, the params and the limit, not on the rest of the batch; and the best
        `limit` of its candidates by exact distance (ties by id) are the same for any larger limit. There are at least
        min(limit, rows) of them, whatever the params.

        Args:
            queries: float32, shape (n, dim), C-contiguous, finite, as given by the caller (not normalised).
            limit: how many hits are wanted at the most, at least 1; not above what `resolve` made the params for.
            params: what this kind's `resolve` returned.

        Returns:
            For each query its row numbers, in no promised order.
        """
        ...

    def among(self, allowed: AllowedRows) -> "NarrowedIndex | None":
        """Narrow the index to some of its rows, at least one; None where only an exact scan can do that (FLAT)."""
        ...


class NarrowedIndex(Protocol):
    """An index that proposes only allowed rows; as immutable as the index, and searched as it is.

    What it does depends on the rows, the allowed ones, the params and the query alone.
    """

    @property
    def nbytes(self) -> int:
        """What it keeps in memory beside the index and the mask."""
        ...

    def widened(self, params: SearchParams) -> SearchParams:
        """Return the params with which the whole index would about do the work of a search among the allowed rows."""
        ...

    def cost(self, params: SearchParams) -> int:
        """Return how many rows an exact scan ranks in the time that one query takes here, by measured rule."""
        ...

    def candidates(self, queries: FloatMatrix, limit: int, params: SearchParams) -> Candidates:
        """Choose candidates among the allowed rows, as VectorIndex does among all; `params` are not widened.

        Returns:
            For each query its allowed row numbers, at least min(limit, allowed rows) of them; or none where so few
            allowed rows lie where the index looks that only an exact scan finds the nearest.
        """
        ...


class IndexKind(Protocol):
    """One kind of index: FLAT, HNSW, IVF_FLAT, IVF_SQ8 or IVF_PQ."""

    @property
    def name(self) -> str:
        """The kind's name in a schema, upper case."""
        ...

    @property
    def measures_itself(self) -> bool:
        """Whether `build` measures recall, or there is none to measure; the opened index need not be, then."""
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

    def grid(self, built: Mapping[str, int], rows: int, limit: int) -> Grid:
        """Return the params at which to measure an index of so many rows; no widths where nothing is to be measured."""
        ...

    def at(self, point: RecallPoint, limit: int, built: Mapping[str, int]) -> SearchParams:
        """Return the params of a measured point for a limit, given the index's build parameters."""
        ...

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
        """Build over the rows of one segment, in their order; deterministic for a seed and one thread.

        Args:
            vectors: float32, shape (rows, dim), finite, C-contiguous, as given (COSINE is normalised in here), at least
                one row.
            folder: where the index's file is written, under the field's name.
            on_rows: told now and then how many rows are done, by a build that takes long; they may leave memory then.
        """
        ...

    def open(self, data: Buffer | None, built: Mapping[str, int], vectors: FloatMatrix, metric: Metric) -> VectorIndex:
        """Open a file that was verified against its digest; all that a native library would follow is checked here.

        Args:
            data: the verified file, mapped; None where `build` made none.
            built: BuiltIndex.params.
            vectors: the segment's rows, as for `build`; kept, not copied.

        Raises:
            IndexCorrupt: the header contradicts the rows or the built parameters.
        """
        ...
