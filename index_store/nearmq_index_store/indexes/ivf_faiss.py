# ruff: noqa: ARG002 - the protocol's parameters; not every kind needs them all
"""IVF_SQ8 and IVF_PQ: compressed rows of the nearest cells choose candidates, which are re-ranked by exact distance.

Codes are of the differences between rows and their centroids: a byte a dimension (IVF_SQ8), or nbits for each of m
sub-vectors (IVF_PQ, Jegou, Douze and Schmid, Product Quantization for Nearest Neighbor Search, 2011). faiss learns and
scans them (`_faiss.py`).

Defaults, measured on 29,000 x 384 real vectors (recall@10, COSINE / L2) at nlist 128 and nprobe 48: IVF_SQ8 with
refine 2 and IVF_PQ with m = dim / 4, nbits 8 and refine 8 both reach 0.98 / 0.97, what the cells visited hold;
Milvus's nprobe 8 without refine reaches 0.84 and 0.75. A segment with fewer rows than nlist or than 2 ** nbits is
built as FLAT.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from nearmq_index_store.blobs.protocol import Buffer
from nearmq_index_store.distances import FloatMatrix, RowNumbers, row_blocks
from nearmq_index_store.errors import IndexCorrupt, InvalidArgument
from nearmq_index_store.indexes._faiss import Bits, Coder, table_bytes
from nearmq_index_store.indexes.allowed import AllowedRows
from nearmq_index_store.indexes.candidates import Candidates
from nearmq_index_store.indexes.cells import (
    DEFAULT_NLIST,
    NLIST,
    SAMPLE_ROWS,
    CellCounts,
    Cells,
    Visits,
    as_indexed,
    default_nprobe,
    rising_nprobes,
    sample_rows,
    train_cells,
)
from nearmq_index_store.indexes.cells_file import Codes, read_cells, write_cells
from nearmq_index_store.indexes.flat import FlatIndex, flat_instead
from nearmq_index_store.indexes.params import MAX_LIMIT, check_params, power_of_two
from nearmq_index_store.indexes.protocol import BuiltIndex, Grid, SearchParams, no_report
from nearmq_index_store.indexes.recall_table import RecallPoint
from nearmq_index_store.schema import MAX_DIM, Metric, VectorField

#: One cell's scan takes, beside its rows, the time in which an exact scan ranks so many rows. Measured 200 for single
#: queries on 29,000 x 384 real vectors.
_ROWS_SCANNED_A_CELL = 256

REFINE = (1, 1_024)

#: Row numbers and distances that one scan may return: 48 MiB.
_FOUND_AT_ONCE = 1 << 22


class IvfSq8:
    """The IVF_SQ8 kind: nlist cells to build; nprobe of them to visit, refine times the limit to re-rank."""

    name = "IVF_SQ8"
    measures_itself = False

    def check_build_params(self, params: Mapping[str, int], dim: int) -> dict[str, int]:
        """Fill in nlist 128."""
        return {"nlist": DEFAULT_NLIST} | check_params(params, {"nlist": NLIST}, self.name)

    def resolve(self, params: Mapping[str, int | float], field: VectorField, limit: int) -> SearchParams:
        """Fill in nprobe, three eighths of nlist, and refine 2."""
        return _resolve(params, field, limit, refine=2)

    def grid(self, built: Mapping[str, int], rows: int, limit: int) -> Grid:
        """Measure rising numbers of cells, with little refine: a byte a dimension hardly errs."""
        return Grid(rising_nprobes(built["nlist"]), (1, 2, 4), rows // built["nlist"])

    def at(self, point: RecallPoint, limit: int, built: Mapping[str, int]) -> SearchParams:
        """Return nprobe and refine."""
        return _at(point, limit, built)

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
        """Cluster the rows, and code them by a byte a dimension."""
        return _build(vectors, field, folder, threads=threads, seed=seed)

    def open(self, data: Buffer | None, built: Mapping[str, int], vectors: FloatMatrix, metric: Metric) -> "CodedIndex":
        """Check the file, and copy its codes into faiss."""
        dim = vectors.shape[1]
        return _open(data, built, vectors, metric, code_bytes=dim, codebook=(2, dim))


class IvfPq:
    """The IVF_PQ kind: nlist cells and m sub-vectors of nbits to build; the search is IVF_SQ8's."""

    name = "IVF_PQ"
    measures_itself = False

    def check_build_params(self, params: Mapping[str, int], dim: int) -> dict[str, int]:
        """Fill in nlist 128, nbits 8, and the smallest m from dim / 4 up that divides dim.

        Raises:
            InvalidArgument: also where m does not divide dim.
        """
        default_m = next(m for m in range(-(-dim // 4), dim + 1) if dim % m == 0)
        ranges = {"nlist": NLIST, "m": (1, MAX_DIM), "nbits": (1, 16)}
        checked = {"nlist": DEFAULT_NLIST, "m": default_m, "nbits": 8} | check_params(params, ranges, self.name)
        if dim % checked["m"]:
            raise InvalidArgument(f"m must divide dim, {dim}, got {checked['m']}", field="params.m")
        return checked

    def resolve(self, params: Mapping[str, int | float], field: VectorField, limit: int) -> SearchParams:
        """Fill in nprobe, three eighths of nlist, and refine 8."""
        return _resolve(params, field, limit, refine=8)

    def grid(self, built: Mapping[str, int], rows: int, limit: int) -> Grid:
        """Measure rising numbers of cells, with up to 32 times as many rows re-ranked as there are hits."""
        return Grid(rising_nprobes(built["nlist"]), (1, 2, 4, 8, 16, 32), rows // built["nlist"])

    def at(self, point: RecallPoint, limit: int, built: Mapping[str, int]) -> SearchParams:
        """Return nprobe and refine."""
        return _at(point, limit, built)

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
        """Cluster the rows, learn m codebooks from a sample, and code the rows by them."""
        if len(vectors) < 1 << field.index.params["nbits"]:
            return flat_instead(len(vectors))
        return _build(vectors, field, folder, threads=threads, seed=seed)

    def open(self, data: Buffer | None, built: Mapping[str, int], vectors: FloatMatrix, metric: Metric) -> "CodedIndex":
        """Check the file, and copy its codes into faiss."""
        dim, m, nbits = vectors.shape[1], built["m"], built["nbits"]
        return _open(data, built, vectors, metric, code_bytes=-(-m * nbits // 8), codebook=(m, 1 << nbits, dim // m))


class CodedIndex:
    """Cells of codes over the rows of a segment."""

    def __init__(self, cells: Cells, order: RowNumbers, coder: Coder, vectors: FloatMatrix, metric: Metric) -> None:
        """Take the order of the cells in the dtype of row numbers, of which the coder has a copy of its own."""
        self._order = order
        self._offsets = cells.offsets
        self._visits = Visits(cells, metric)
        self._coder = coder
        self._vectors = vectors
        self._metric = metric

    def candidates(self, queries: FloatMatrix, limit: int, params: SearchParams) -> Candidates:
        """Return the rows whose codes are nearest in the cells visited, nearest first, as many as the params say."""
        found = self.scan(queries, params, min(params.candidates, len(self._vectors)))
        without = found.without()
        return (
            found.filled(without, self._exact.nearest(queries[without], params.candidates)) if len(without) else found
        )

    def among(self, allowed: AllowedRows) -> "CodedAmong":
        """Scan the codes of allowed rows, in as many cells as hold enough of them."""
        mask_by_position = allowed.mask[self._order]
        return CodedAmong(self, allowed, CellCounts.of(mask_by_position, self._offsets))

    def scan(
        self,
        queries: FloatMatrix,
        params: SearchParams,
        wanted: int,
        bits: Bits | None = None,
        counts: CellCounts | None = None,
    ) -> Candidates:
        """Return the `wanted` rows that seem nearest to each query, only allowed ones where their bits are given.

        A query has none when its values, or the rows', are so large that float32 distances are no numbers.
        """
        indexed = as_indexed(queries, self._metric)
        found = []
        step = max(1, _FOUND_AT_ONCE // wanted)
        for some, visited in self._visits.choose(self._visits.prepare(indexed), params.nprobe, wanted, counts):
            cells, distances = self._visits.nearest_first(indexed[some], visited)
            for start in range(0, len(cells), step):
                chunk = slice(start, start + step)
                rows_of_chunk = self._coder.scan(indexed[some][chunk], cells[chunk], distances[chunk], wanted, bits)
                is_whole = rows_of_chunk.min(axis=1) >= 0
                found.append(Candidates(rows_of_chunk[is_whole].reshape(-1), wanted * is_whole))
        return Candidates.joined(found)

    @cached_property
    def _exact(self) -> FlatIndex:
        return FlatIndex(self._vectors, self._metric)


class CodedAmong:
    """The cells that hold allowed rows, whose other codes are passed over."""

    def __init__(self, index: CodedIndex, allowed: AllowedRows, counts: CellCounts) -> None:
        self._index = index
        self._allowed = allowed
        self._counts = counts
        self._bits: Bits = np.packbits(allowed.mask, bitorder="little")

    @property
    def nbytes(self) -> int:
        """The bits and the counts."""
        return self._bits.nbytes + self._counts.counts.nbytes

    def widened(self, params: SearchParams) -> SearchParams:
        """Widen nprobe so that it visits as many allowed rows where they lie at random."""
        return replace(params, nprobe=self._counts.widened(params.nprobe))

    def cost(self, params: SearchParams) -> int:
        """Return how many rows an exact scan ranks in the time of one query's scan."""
        nprobe, nlist = self.widened(params).nprobe, len(self._counts.counts)
        return nprobe * self._allowed.count // nlist + nprobe * _ROWS_SCANNED_A_CELL

    def candidates(self, queries: FloatMatrix, limit: int, params: SearchParams) -> Candidates:
        """Return the allowed rows whose codes are nearest in the cells visited, as many as the params say."""
        wanted = min(params.candidates, self._allowed.count)
        return self._index.scan(queries, params, wanted, self._bits, self._counts)


def _resolve(params: Mapping[str, int | float], field: VectorField, limit: int, *, refine: int) -> SearchParams:
    nlist = field.index.params["nlist"]
    ranges = {"nprobe": (1, nlist), "refine": REFINE}
    given = {"nprobe": default_nprobe(nlist), "refine": refine} | check_params(
        params, ranges, f"{field.index.kind} search"
    )
    return SearchParams(nprobe=given["nprobe"], candidates=_candidates(given["refine"], limit))


def _at(point: RecallPoint, limit: int, built: Mapping[str, int]) -> SearchParams:
    nprobe = min(point.width, built["nlist"])
    return SearchParams(nprobe=nprobe, candidates=_candidates(point.refine, limit))


def _candidates(refine: int, limit: int) -> int:
    return min(MAX_LIMIT, power_of_two(refine * limit))


def _build(vectors: FloatMatrix, field: VectorField, folder: Path, *, threads: int, seed: int) -> BuiltIndex:
    params, metric, rows = field.index.params, field.metric, len(vectors)
    cells = train_cells(vectors, metric, params["nlist"], threads=threads, seed=seed)
    if cells is None:
        return flat_instead(rows)
    coder = _coder(cells, metric, params)
    sample = sample_rows(vectors, metric, max(SAMPLE_ROWS, 1 << params.get("nbits", 0)), seed=seed)
    codebook = coder.train(sample, threads=threads, seed=seed)
    cell_of = np.repeat(np.arange(params["nlist"]), np.diff(cells.offsets))
    codes = np.concatenate(
        [
            coder.encode(as_indexed(vectors[cells.order[block]], metric), cell_of[block], threads=threads)
            for block in row_blocks(vectors)
        ]
    )
    path = folder / f"{field.name}.ivf"
    write_cells(path, cells, Codes(codebook, codes))
    tables = table_bytes(params["nlist"], metric, m=params["m"], nbits=params["nbits"]) if "m" in params else 0
    return BuiltIndex(
        kind=field.index.kind,
        params=dict(params),
        path=path,
        memory_bytes=codes.nbytes + codebook.nbytes + 3 * cells.centroids.nbytes + 16 * rows + tables,
    )


def _open(
    data: Buffer | None,
    built: Mapping[str, int],
    vectors: FloatMatrix,
    metric: Metric,
    *,
    code_bytes: int,
    codebook: tuple[int, ...],
) -> CodedIndex:
    if data is None:
        raise IndexCorrupt("an IVF index has a file, the manifest names none")
    rows, dim = vectors.shape
    cells, codes = read_cells(data, rows=rows, dim=dim, nlist=built["nlist"], code_bytes=code_bytes, codebook=codebook)
    coder = _coder(cells, metric, built)
    order = cells.order.astype(np.int64)
    coder.load(codes.codebook, codes.codes, order, cells.offsets)
    return CodedIndex(cells, order, coder, vectors, metric)


def _coder(cells: Cells, metric: Metric, params: Mapping[str, int]) -> Coder:
    return Coder(cells.centroids, metric, m=params.get("m"), nbits=params.get("nbits", 8))
