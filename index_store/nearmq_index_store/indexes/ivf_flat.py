# ruff: noqa: ARG002 - the protocol's parameters; not every kind needs them all
"""IVF_FLAT: the rows of the nearest cells, searched exactly; ours, over the mapped rows.

A segment's rows are sorted by the cells of its first IVF_FLAT field (`segment.py`), so that a cell is a slice of them:
there is no copy and nothing to load but centroids, offsets, and what a scan knows of the rows' lengths: the longest one
as the file's codebook, a term a row (`scan.py`; none for IP) as its codes. A further IVF_FLAT field keeps a copy in the
order of its own cells, in memory. `cell_scan.py` ranks the rows of the cells that queries visit.

Defaults, measured on 29,000 x 384 real vectors (recall@10): nlist 128 and nprobe 48, three eighths of nlist, reach 0.98
with COSINE and 0.97 with L2; Milvus's nprobe 8 reaches 0.84. A segment with fewer rows than nlist is built as FLAT.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from nearmq_index_store.blobs.protocol import Buffer
from nearmq_index_store.distances import FloatMatrix, RowNumbers
from nearmq_index_store.errors import IndexCorrupt
from nearmq_index_store.indexes.allowed import AllowedRows, Mask
from nearmq_index_store.indexes.candidates import Candidates
from nearmq_index_store.indexes.cell_scan import Among, CellScan
from nearmq_index_store.indexes.cells import (
    DEFAULT_NLIST,
    NLIST,
    CellCounts,
    Cells,
    Visits,
    default_nprobe,
    rising_nprobes,
    train_cells,
)
from nearmq_index_store.indexes.cells_file import Codes, read_cells, write_cells
from nearmq_index_store.indexes.flat import flat_instead
from nearmq_index_store.indexes.params import check_params, power_of_two
from nearmq_index_store.indexes.protocol import BuiltIndex, Grid, SearchParams, no_report
from nearmq_index_store.indexes.recall_table import RecallPoint
from nearmq_index_store.indexes.scan import Measured
from nearmq_index_store.schema import Metric, VectorField

#: Rows that a search looks at, at least; more for larger limits. Up to here jobs of any limit share their batches.
_FEWEST_CANDIDATES = 128

#: One cell's visit takes, beside its rows, the time in which an exact scan ranks so many rows. Measured 600 for single
#: queries and 1,200 in batches of 64 on 29,000 x 384 real vectors.
_ROWS_SCANNED_A_CELL = 300


class IvfFlat:
    """The IVF_FLAT kind: nlist cells to build, nprobe of them to visit."""

    name = "IVF_FLAT"
    measures_itself = False

    def check_build_params(self, params: Mapping[str, int], dim: int) -> dict[str, int]:
        """Fill in nlist 128."""
        return {"nlist": DEFAULT_NLIST} | check_params(params, {"nlist": NLIST}, "IVF_FLAT")

    def resolve(self, params: Mapping[str, int | float], field: VectorField, limit: int) -> SearchParams:
        """Fill in nprobe, three eighths of nlist."""
        nlist = field.index.params["nlist"]
        given = check_params(params, {"nprobe": (1, nlist)}, "IVF_FLAT search")
        return SearchParams(
            nprobe=given.get("nprobe", default_nprobe(nlist)),
            candidates=power_of_two(max(_FEWEST_CANDIDATES, limit)),
        )

    def grid(self, built: Mapping[str, int], rows: int, limit: int) -> Grid:
        """Measure rising numbers of cells."""
        return Grid(rising_nprobes(built["nlist"]), rows_a_width=rows // built["nlist"])

    def at(self, point: RecallPoint, limit: int, built: Mapping[str, int]) -> SearchParams:
        """Return the nprobe."""
        nprobe = min(point.width, built["nlist"])
        return SearchParams(nprobe=nprobe, candidates=power_of_two(max(_FEWEST_CANDIDATES, limit)))

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
        """Cluster the rows, which stay in their order."""
        cells = train_cells(vectors, field.metric, field.index.params["nlist"], threads=threads, seed=seed)
        return flat_instead(len(vectors)) if cells is None else build_on_cells(cells, vectors, field, folder)

    def open(
        self, data: Buffer | None, built: Mapping[str, int], vectors: FloatMatrix, metric: Metric
    ) -> "IvfFlatIndex":
        """View the cells."""
        if data is None:
            raise IndexCorrupt("an IVF_FLAT index has a file, the manifest names none")
        rows, dim = vectors.shape
        code_bytes = 0 if metric == "IP" else 4
        cells, codes = read_cells(data, rows=rows, dim=dim, nlist=built["nlist"], code_bytes=code_bytes, codebook=(1,))
        measured = Measured(float(codes.codebook[0]), codes.codes.reshape(-1).view("<f4"))
        return IvfFlatIndex(cells, vectors, metric, measured)


def build_on_cells(cells: Cells, vectors: FloatMatrix, field: VectorField, folder: Path) -> BuiltIndex:
    """Write the index of rows that were clustered already."""
    path = folder / f"{field.name}.ivf"
    rows = len(cells.order)
    measured = Measured.of(vectors, field.metric)
    terms = measured.terms[cells.order] if len(measured.terms) else measured.terms
    write_cells(
        path, cells, Codes(np.array([measured.longest], dtype=np.float32), terms.view(np.uint8).reshape(rows, -1))
    )
    copy_bytes = 0 if cells.are_slices else rows * (4 * field.dim + 8)
    return BuiltIndex(
        kind=IvfFlat.name,
        params=dict(field.index.params),
        path=path,
        memory_bytes=2 * cells.centroids.nbytes + terms.nbytes + copy_bytes,
    )


class IvfFlatIndex:
    """Cells over the rows of a segment, or over a copy of them in the order of the cells."""

    def __init__(self, cells: Cells, vectors: FloatMatrix, metric: Metric, measured: Measured) -> None:
        self._order = None if cells.are_slices else cells.order.astype(np.int64)
        self._offsets = cells.offsets
        self._visits = Visits(cells, metric)
        by_position = vectors if self._order is None else vectors[self._order]
        if metric != "COSINE":  # by which all have one length; queries are prepared once, for rows and centroids
            measured = Measured(max(measured.longest, self._visits.longest), measured.terms)
        self._scan = CellScan(cells.offsets, by_position, metric, measured)

    def candidates(self, queries: FloatMatrix, limit: int, params: SearchParams) -> Candidates:
        """Return the rows that certainly hold the nearest `limit` ones of the cells visited, ties included."""
        return self.visit(queries, limit, params)

    def among(self, allowed: AllowedRows) -> "IvfFlatAmong":
        """Visit cells until they hold enough allowed rows."""
        mask = allowed.mask if self._order is None else allowed.mask[self._order]
        return IvfFlatAmong(self, ~mask, CellCounts.of(mask, self._offsets))

    def visit(
        self,
        queries: FloatMatrix,
        limit: int,
        params: SearchParams,
        refused: Mask | None = None,
        counts: CellCounts | None = None,
    ) -> Candidates:
        """Return what `candidates` does, without rows that are refused (by position); `counts` has all others."""
        prepared = self._scan.prepare(queries)
        among = None if refused is None or counts is None else Among(refused, counts.counts)
        found: list[RowNumbers] = []
        for chunk, cells in self._visits.choose(prepared, params.nprobe, params.candidates, counts):
            found += self._scan.nearest(prepared.some(chunk), cells, limit, among)
        candidates = Candidates.of(found)
        return candidates if self._order is None else candidates.taken(self._order)


class IvfFlatAmong:
    """The cells that hold allowed rows, whose other rows are passed over."""

    def __init__(self, index: IvfFlatIndex, refused: Mask, counts: CellCounts) -> None:
        """Take the mask of the others by position."""
        self._index = index
        self._refused = refused
        self._counts = counts

    @property
    def nbytes(self) -> int:
        """The counts and the mask."""
        return self._counts.counts.nbytes + self._refused.nbytes

    def widened(self, params: SearchParams) -> SearchParams:
        """Widen nprobe so that it visits as many allowed rows where they lie at random."""
        return replace(params, nprobe=self._counts.widened(params.nprobe))

    def cost(self, params: SearchParams) -> int:
        """Return how many rows an exact scan ranks in the time of one query's visits."""
        nprobe = self.widened(params).nprobe
        return nprobe * len(self._refused) // len(self._counts.counts) + nprobe * _ROWS_SCANNED_A_CELL

    def candidates(self, queries: FloatMatrix, limit: int, params: SearchParams) -> Candidates:
        """Return the allowed rows that certainly hold the nearest `limit` ones of the cells visited, ties included."""
        return self._index.visit(queries, limit, params, self._refused, self._counts)
