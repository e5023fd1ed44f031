# ruff: noqa: ARG002 - the protocol's parameters; not every kind needs them all
"""IVF_FLAT: the rows of the nearest cells, searched exactly; ours, in numpy over the mapped rows.

A segment's rows are sorted by the cells of its first IVF_FLAT field (`segment.py`), so that a cell is a slice of them:
there is no copy and nothing to load but centroids and offsets. A further IVF_FLAT field keeps a copy in the order of
its own cells, in memory. Queries that visit the same cell are ranked by one matrix product (`scan.py`).

Defaults, measured on 29,000 x 384 real vectors (recall@10): nlist 128 and nprobe 48, three eighths of nlist, reach 0.98
with COSINE and 0.97 with L2; Milvus's nprobe 8 reaches 0.84. A segment with fewer rows than nlist is built as FLAT.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nearmq_index_store.distances import FloatMatrix, RowNumbers
from nearmq_index_store.errors import IndexCorrupt
from nearmq_index_store.indexes.cells import (
    DEFAULT_NLIST,
    NLIST,
    Cells,
    Visits,
    as_indexed,
    default_nprobe,
    train_cells,
)
from nearmq_index_store.indexes.cells_file import Codes, read_cells, write_cells
from nearmq_index_store.indexes.flat import flat_instead
from nearmq_index_store.indexes.params import check_params, power_of_two
from nearmq_index_store.indexes.protocol import BuiltIndex, SearchParams
from nearmq_index_store.indexes.scan import KEYS_AT_ONCE, Scan, closest
from nearmq_index_store.schema import Metric, VectorField

#: Rows that a search looks at, at least; more for larger limits. Up to here jobs of any limit share their batches.
_FEWEST_CANDIDATES = 128

_Keys = npt.NDArray[np.float32]

_NO_CODES = Codes(np.empty(0, dtype=np.float32), np.empty((0, 0), dtype=np.uint8))


class IvfFlat:
    """The IVF_FLAT kind: nlist cells to build, nprobe of them to visit."""

    name = "IVF_FLAT"

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

    def build(self, vectors: FloatMatrix, field: VectorField, folder: Path, *, threads: int, seed: int) -> BuiltIndex:
        """Cluster the rows, which stay in their order."""
        cells = train_cells(vectors, field.metric, field.index.params["nlist"], threads=threads, seed=seed)
        return flat_instead(len(vectors)) if cells is None else build_on_cells(cells, field, folder)

    def open(self, path: Path | None, built: Mapping[str, int], vectors: FloatMatrix, metric: Metric) -> "IvfFlatIndex":
        """Map the cells."""
        if path is None:
            raise IndexCorrupt("an IVF_FLAT index has a file, the manifest names none")
        rows, dim = vectors.shape
        cells, _ = read_cells(path, rows=rows, dim=dim, nlist=built["nlist"], code_bytes=0, codebook=(0,))
        return IvfFlatIndex(cells, vectors, metric)


def build_on_cells(cells: Cells, field: VectorField, folder: Path) -> BuiltIndex:
    """Write the index of rows that were clustered already."""
    path = folder / f"{field.name}.ivf"
    write_cells(path, cells, _NO_CODES)
    rows = len(cells.order)
    copy_bytes = 0 if cells.are_slices else rows * 4 * field.dim
    return BuiltIndex(
        kind=IvfFlat.name,
        params=dict(field.index.params),
        path=path,
        memory_bytes=cells.centroids.nbytes + 12 * rows + copy_bytes,
    )


class IvfFlatIndex:
    """Cells over the rows of a segment, or over a copy of them in the order of the cells."""

    def __init__(self, cells: Cells, vectors: FloatMatrix, metric: Metric) -> None:
        self._order = None if cells.are_slices else cells.order
        self._offsets = cells.offsets
        self._metric = metric
        self._visits = Visits(cells, metric)
        self._scan = Scan(vectors if self._order is None else vectors[self._order], metric)

    def candidates(self, queries: FloatMatrix, limit: int, params: SearchParams) -> list[RowNumbers]:
        """Return the rows that certainly hold the nearest `limit` ones of the cells visited, ties included."""
        visits = self._visits.choose(as_indexed(queries, self._metric), params.nprobe, params.candidates)
        visited = [cells for cells, _ in visits]
        prepared = self._scan.prepare(queries)
        most = max((int((self._offsets[cells + 1] - self._offsets[cells]).sum()) for cells in visited), default=1)
        step = max(1, KEYS_AT_ONCE // most)
        found: list[RowNumbers] = []
        for start in range(0, len(queries), step):
            chunk = slice(start, start + step)
            keys = self._keys_by_query(prepared.queries[chunk], visited[chunk])
            for i, (starts, lines) in enumerate(keys):
                positions = _closest_of(starts, lines, limit, float(prepared.slack[start + i]))
                found.append(positions if self._order is None else self._order[positions])
        return found

    def _keys_by_query(self, queries: FloatMatrix, visited: list[RowNumbers]) -> list[tuple[list[int], list[_Keys]]]:
        """Return for each query where the cells it visits start, and the keys of their rows."""
        visitors = defaultdict(list)
        for query, cells in enumerate(visited):
            for cell in cells.tolist():
                visitors[cell].append(query)
        by_query: list[tuple[list[int], list[_Keys]]] = [([], []) for _ in visited]
        for cell, members in visitors.items():
            start, stop = int(self._offsets[cell]), int(self._offsets[cell + 1])
            for member, keys in zip(members, self._scan.keys(queries[members], start, stop), strict=True):
                by_query[member][0].append(start)
                by_query[member][1].append(keys)
        return by_query


def _closest_of(starts: list[int], lines: list[_Keys], limit: int, slack: float) -> RowNumbers:
    """Return the positions of the closest keys, where each line of keys starts at a position of its own."""
    ends = np.cumsum([len(line) for line in lines])
    closest_ones = closest(np.concatenate(lines), limit, slack)
    line = np.searchsorted(ends, closest_ones, side="right")
    shifts = np.array(starts) - ends + [len(keys) for keys in lines]
    found: RowNumbers = closest_ones + shifts[line]
    return found
