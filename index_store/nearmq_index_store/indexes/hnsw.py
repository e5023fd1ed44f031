# ruff: noqa: ARG002 - the protocol's parameters; not every kind needs them all
"""HNSW by hnswlib, the one module that imports it.

Defaults, measured on 29,000 x 384 real vectors (recall@10, COSINE): M 16, efConstruction 200 and ef = max(64, limit)
reach 0.98; Milvus's ef = max(limit, 16) reaches 0.89.

hnswlib checks little and crashes easily, so this module asks it only what cannot fail:
- ef is a property of its index, and two threads with different ef would race. But the walk's width is max(ef, k): ef
  stays 1 for ever, and k carries the width of each call.
- A walk that finds fewer than k rows, because near-duplicates can form an island of the graph that nothing leaves,
  raises for the whole batch and leaks its result arrays (12 bytes a row asked for). Such a batch is walked again one
  query at a time, and the stranded queries are answered exactly.
- A filter is a Python function to it, called for each row it meets: 13 queries a second where 0.1 % are allowed. So a
  walk among some rows is a wider walk of all, cut to those allowed (`HnswAmong`).
- Its file loader follows whatever the file says, so it is handed arrays that were checked (`hnsw_file.py`), by the
  constructor that copies an index; that copies them while it holds the interpreter.

Source: Malkov and Yashunin, arXiv:1603.09320.
"""

import math
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np
import numpy.typing as npt

from nearmq_index_store.blobs.protocol import Buffer
from nearmq_index_store.distances import FloatMatrix, FloatVector, RowNumbers, lengths, row_blocks, unit_vectors
from nearmq_index_store.errors import IndexCorrupt
from nearmq_index_store.indexes.allowed import AllowedRows
from nearmq_index_store.indexes.candidates import Candidates
from nearmq_index_store.indexes.exact import is_copied, scanned_rows
from nearmq_index_store.indexes.flat import FlatIndex, flat_instead
from nearmq_index_store.indexes.hnsw_file import Graph, read_graph, write_graph
from nearmq_index_store.indexes.measuring import Queries, held_out, measure
from nearmq_index_store.indexes.params import MAX_LIMIT, check_params
from nearmq_index_store.indexes.protocol import BuiltIndex, Grid, SearchParams, no_report
from nearmq_index_store.indexes.recall_table import RecallPoint, RecallTable
from nearmq_index_store.indexes.scan import UNIT_ROUNDOFF, in_range
from nearmq_index_store.schema import Metric, VectorField

#: Row numbers that one call of hnswlib may return: 32 MiB of labels.
_LABELS_AT_ONCE = 1 << 22

#: What hnswlib keeps in memory for a row beside its links, vector and label: mutex, pointer, level, visited mark.
_OVERHEAD_BYTES = 40 + 8 + 4 + 2

#: And for a node above level 0, beside its links.
_NODE_OVERHEAD_BYTES = 16

#: And for an index, however small: the mutexes of 65,536 labels.
_INDEX_OVERHEAD_BYTES = 65_536 * 40

#: Values that are copied into hnswlib's layout at a time: so few that they stay in the processor's cache.
_COPIED_AT_ONCE = 1 << 18

#: Threads that do so; most of the time goes into pages that are new to the process.
_COPYING_THREADS = 2

#: Squared lengths whose inverse root in float32 is as good as in float64.
_SQUARES = (1e-30, 1e30)

#: While an index is opened its graph is in memory twice, so they are opened one after the other.
_opening = threading.Lock()

#: A walk one row wider takes the time in which an exact scan ranks so many rows. Measured 190 in batches of 64 and 70
#: for single queries on 29,000 x 384 real vectors, 250 and 50 on 200,000 x 128 synthetic ones; workers batch.
_ROWS_SCANNED_A_STEP = 160

#: The same where most rows are allowed and the scan is one of all rows. Of single queries: when a few rows are deleted,
#: no search should take much longer than before.
_ALL_ROWS_SCANNED_A_STEP = 48

_NONE: RowNumbers = np.empty(0, dtype=np.int64)

_SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)

#: Standard deviations of the number of allowed rows that a walk finds, by which it is widened to find enough.
_SPREADS = 3

#: How much wider a query is walked again that found too few allowed rows. Twice or four times finds enough sooner, but
#: misses more of the nearest: of queries whose nearest tenth to third of the rows is not allowed (200,000 x 128
#: synthetic ones) recall is 0.984 to 0.995 and 0.990 to 0.996, with eight times 0.990 to 0.998.
_WIDER = 8

#: Recall is measured at values of ef that rise by this.
_EF_STEP = 1.6

#: What `ef` is without one: this, or the limit where it is larger.
DEFAULT_EF = 64


class Hnsw:
    """The HNSW kind: M links a node and efConstruction to build, ef to search."""

    name = "HNSW"
    measures_itself = True

    def check_build_params(self, params: Mapping[str, int], dim: int) -> dict[str, int]:
        """Fill in M 16 and efConstruction 200."""
        ranges = {"M": (2, 2_048), "efConstruction": (1, 65_536)}
        return {"M": 16, "efConstruction": 200} | check_params(params, ranges, "HNSW")

    def resolve(self, params: Mapping[str, int | float], field: VectorField, limit: int) -> SearchParams:
        """Fill in ef = max(64, limit)."""
        given = check_params(params, {"ef": (limit, MAX_LIMIT)}, "HNSW search")
        ef = given.get("ef", max(DEFAULT_EF, limit))
        return SearchParams(ef=ef, candidates=_enough(ef, limit))

    def grid(self, built: Mapping[str, int], rows: int, limit: int) -> Grid:
        """Measure rising ef, up to what a single query takes to scan all rows instead."""
        widths = [round(limit * _EF_STEP**step) for step in range(32)]
        return Grid([ef for ef in widths if ef <= rows // _ALL_ROWS_SCANNED_A_STEP])

    def at(self, point: RecallPoint, limit: int, built: Mapping[str, int]) -> SearchParams:
        """Return the ef."""
        ef = max(limit, point.width)
        return SearchParams(ef=ef, candidates=_enough(ef, limit))

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
        """Insert all rows, labelled by row number; those that recall is measured with last."""
        rows, dim = vectors.shape
        if not in_range(vectors, field.metric):
            return flat_instead(rows)
        path = folder / f"{field.name}.hnsw"
        graph = hnswlib.Index(space=_space(field.metric), dim=dim)
        graph.init_index(
            max_elements=rows,
            M=field.index.params["M"],
            ef_construction=field.index.params["efConstruction"],
            random_seed=seed,
        )
        is_first = np.ones(rows, dtype=np.bool_)
        is_first[held_out(rows, seed=seed)] = False
        inserted = 0
        for block in row_blocks(vectors):
            first = np.flatnonzero(is_first[block]) + block.start
            _insert(graph, vectors, first, field.metric, threads=threads)
            inserted += len(first)
            on_rows(inserted)
        recalls: RecallTable = {}
        if not is_first.all():
            last = np.flatnonzero(~is_first)
            queries = Queries(vectors=vectors[last], rows=last, present=AllowedRows(is_first))
            graph.set_ef(1)
            recalls = measure(
                self,
                HnswIndex(graph, vectors, field.metric),
                vectors,
                field,
                queries,
                threads=threads,
                on_read=partial(on_rows, inserted),
            )
            _insert(graph, vectors, last, field.metric, threads=threads)
            on_rows(rows)
        saved = folder / f"{field.name}.hnswlib"
        graph.save_index(str(saved))
        del graph  # which would be in memory beside what is read of its file
        m, ef_construction = field.index.params["M"], field.index.params["efConstruction"]
        nodes = write_graph(saved, path, rows=rows, dim=dim, m=m, ef_construction=ef_construction)
        saved.unlink()
        row_bytes = 4 * (1 + 2 * m) + 4 * dim + 8 + _OVERHEAD_BYTES
        node_bytes = 4 * (1 + m) + _NODE_OVERHEAD_BYTES
        return BuiltIndex(
            kind=self.name,
            params=dict(field.index.params),
            path=path,
            memory_bytes=rows * row_bytes + nodes * node_bytes + _INDEX_OVERHEAD_BYTES,
            recalls=recalls,
        )

    def open(self, data: Buffer | None, built: Mapping[str, int], vectors: FloatMatrix, metric: Metric) -> "HnswIndex":
        """Check the whole graph, then put it and the vectors into hnswlib's layout."""
        if data is None:
            raise IndexCorrupt("an HNSW index has a file, the manifest names none")
        rows, dim = vectors.shape
        m, ef_construction = built["M"], built["efConstruction"]
        links = read_graph(data, rows=rows, dim=dim, m=m, ef_construction=ef_construction)
        with _opening:
            state = _state(links, vectors, metric, m=m, ef_construction=ef_construction)
            return HnswIndex(hnswlib.Index(params=state), vectors, metric)


class HnswIndex:
    """A loaded graph."""

    def __init__(self, graph: Any, vectors: FloatMatrix, metric: Metric) -> None:
        self._graph = graph
        self._vectors = vectors
        self._metric = metric

    def save(self, path: Path) -> None:
        """Write the graph, with its vectors, as a file that hnswlib loads; labels are row numbers."""
        self._graph.save_index(str(path))

    def candidates(self, queries: FloatMatrix, limit: int, params: SearchParams) -> Candidates:
        """Return of what walks of width ef find all that may be nearest; of all rows where ef reaches their number."""
        if params.ef >= len(self._vectors):
            return self._exact.nearest(queries, limit)
        found, _ = self.walk(queries, params.ef, limit)
        stranded = found.without()
        return found.filled(stranded, self._exact.nearest(queries[stranded], params.ef)) if len(stranded) else found

    def among(self, allowed: AllowedRows) -> "HnswAmong":
        """Walk wider, and keep the rows allowed."""
        return HnswAmong(self, allowed)

    def walk(
        self, queries: FloatMatrix, ef: int, limit: int, *, allowed: AllowedRows | None = None, enough: int = 0
    ) -> tuple[Candidates, RowNumbers]:
        """Return of the rows that each query's walk finds those that may be among the nearest.

        Args:
            ef: how many are found, fewer than there are.
            limit: how many nearest are wanted.
            allowed: the only rows that count; None is all.
            enough: how many allowed rows have to be found.

        Returns:
            For each query row numbers, none where its walk was stranded or found too few; and the numbers of the
            queries whose walks found too few.
        """
        walked = unit_vectors(queries) if self._metric == "COSINE" else queries
        step = max(1, _LABELS_AT_ONCE // ef)
        found: list[Candidates] = []
        short: list[RowNumbers] = []
        for start in range(0, len(queries), step):
            candidates, of_block = self._nearest(walked[start : start + step], ef, limit, allowed, enough)
            found.append(candidates)
            if len(of_block):
                short.append(of_block + start)
        return Candidates.joined(found), np.concatenate(short) if short else _NONE

    def _nearest(
        self, walked: FloatMatrix, ef: int, limit: int, allowed: AllowedRows | None, enough: int
    ) -> tuple[Candidates, RowNumbers]:
        """Walk, and cut what is found to what counts, and may be among the nearest; return also who found too few."""
        rows, distances, stranded = self._walk(walked, ef)
        if allowed is None:
            # Written so that NaN, of which nothing is known, stays in.
            near = ~(distances > self._cut(walked, distances[:, min(limit, ef) - 1])[:, np.newaxis])
            short = _NONE
        else:
            kept = allowed.mask.take(rows)
            counts = kept.cumsum(axis=1)
            last = np.minimum((counts < limit).sum(axis=1), ef - 1)
            near = kept & ~(distances > self._cut(walked, distances[np.arange(len(rows)), last])[:, np.newaxis])
            short = np.flatnonzero(counts[:, -1] < enough)
            near[short] = False
        if len(stranded):
            near[stranded] = False
            short = np.setdiff1d(short, stranded)
        return Candidates(rows[near], near.sum(axis=1)), short

    def _walk(self, walked: FloatMatrix, ef: int) -> tuple[npt.NDArray[np.int64], FloatMatrix, RowNumbers]:
        """Return the rows and distances of each walk, nearest first, shape (n, ef), and whose walks were stranded."""
        try:
            # One native thread a call: callers run segments and batches in parallel, and a second thread costs 70 us.
            labels, distances = self._graph.knn_query(walked, k=ef, num_threads=1)
        except RuntimeError:
            if len(walked) == 1:
                return np.zeros((1, ef), np.int64), np.zeros((1, ef), np.float32), np.zeros(1, np.int64)
            rows, apart, stranded = zip(*(self._walk(walked[i : i + 1], ef) for i in range(len(walked))), strict=True)
            return np.concatenate(rows), np.concatenate(apart), np.flatnonzero(list(map(len, stranded)))
        return labels.view(np.int64), distances, _NONE

    def _cut(self, walked: FloatMatrix, nearness: FloatVector) -> npt.NDArray[np.float64]:
        """Return for each query the distance of hnswlib's beyond which no row is as near as one at this distance.

        Its float32 sums err as `scan.py` says; what errs is a sum of squares (L2), a product of unit vectors (COSINE),
        or of any (IP).
        """
        wide: npt.NDArray[np.float64] = nearness.astype(np.float64)
        relative = 2 * 1.01 * (walked.shape[1] + 8) * UNIT_ROUNDOFF
        if self._metric == "L2":
            wide += wide * relative + walked.shape[1] * _SMALLEST_NORMAL
        elif self._metric == "COSINE":
            wide += 2 * relative
        else:
            wide += relative * (1 + lengths(walked) * self._longest)
        return wide

    @cached_property
    def _longest(self) -> float:
        return float(lengths(self._vectors).max())

    @cached_property
    def _exact(self) -> FlatIndex:
        return FlatIndex(self._vectors, self._metric)


class HnswAmong:
    """Walks of the whole graph, wider by the square root of the inverse of the allowed share.

    So wide that ef allowed rows were found, by the inverse itself, recall would only rise: on 29,000 x 384 real vectors
    it is 0.980 unfiltered, 0.977, 0.981, 0.986 with 90, 50, 25 % allowed at random, and 0.982, 0.989, 0.996 if wider.

    Where the filter goes with the query, a walk may find few allowed rows; such a query is walked again, much wider, as
    long as that takes less than half the time of an exact scan, to which it is left at last. As many times as many have
    to be found then, for it is at their edge that walks miss rows. Of 18 filters that went with or against the queries,
    recall was 0.976 at the least.
    """

    nbytes = 0

    def __init__(self, index: HnswIndex, allowed: AllowedRows) -> None:
        self._index = index
        self._allowed = allowed

    def widened(self, params: SearchParams) -> SearchParams:
        """Widen ef; at least so far that rows allowed at random hardly ever turn out too few."""
        return SearchParams(ef=self._ef(params), candidates=params.candidates)

    def cost(self, params: SearchParams) -> int:
        """Return how many rows an exact scan ranks in the time of one walk."""
        return self._rows_a_step * self._ef(params)

    def candidates(self, queries: FloatMatrix, limit: int, params: SearchParams) -> Candidates:
        """Return the allowed rows that wider walks find; none where they are too few, or a walk was stranded."""
        ef = self._ef(params)
        enough = min(params.candidates, self._allowed.count)
        if ef >= self._allowed.rows:
            return Candidates.same(self._allowed.numbers(), len(queries))
        found, short = self._index.walk(queries, ef, limit, allowed=self._allowed, enough=enough)
        while len(short) and 2 * self._rows_a_step * _WIDER * ef <= scanned_rows(self._allowed):
            ef, enough = _WIDER * ef, min(_WIDER * enough, self._allowed.count)
            again, still_short = self._index.walk(queries[short], ef, limit, allowed=self._allowed, enough=enough)
            found, short = found.filled(short, again), short[still_short]
        return found

    def _ef(self, params: SearchParams) -> int:
        share = self._allowed.share
        spread = math.sqrt(params.candidates * (1 - share))
        ef = max(params.ef / math.sqrt(share), (params.candidates + _SPREADS * spread) / share)
        return min(self._allowed.rows, math.ceil(ef))

    @property
    def _rows_a_step(self) -> int:
        """How many rows an exact scan ranks in the time of a walk's step."""
        return _ROWS_SCANNED_A_STEP if is_copied(self._allowed) else _ALL_ROWS_SCANNED_A_STEP


def _insert(graph: Any, vectors: FloatMatrix, rows: RowNumbers, metric: Metric, *, threads: int) -> None:
    chunk = vectors[rows]
    graph.add_items(unit_vectors(chunk) if metric == "COSINE" else chunk, rows, num_threads=threads)


def _enough(ef: int, limit: int) -> int:
    """Return how many allowed rows a walk must find: half as many again as the limit, for it misses some at its edge.

    One of four numbers, so that jobs of similar limits share their batches.
    """
    return next((enough for enough in (ef // 4, ef // 2, 3 * ef // 4) if 2 * enough >= 3 * limit), ef)


def _space(metric: Metric) -> str:
    # COSINE is the inner product of vectors that are normalised here, so that a zero vector has similarity 0.
    return "l2" if metric == "L2" else "ip"


def _state(graph: Graph, vectors: FloatMatrix, metric: Metric, *, m: int, ef_construction: int) -> dict[str, Any]:
    """Return an index in the form in which hnswlib gives and takes copies of one."""
    rows, dim = vectors.shape
    ground = _ground(graph, vectors, metric)
    # hnswlib looks labels up by row where rows are added or removed, which never happens to an opened index. So its
    # table gets one entry, for all are the same, and takes no time and memory.
    none = np.zeros(rows, dtype=np.uint64)
    return {
        "ser_version": 1,
        "space": _space(metric),
        "dim": dim,
        "index_inited": True,
        "ep_added": True,
        "normalize": False,
        "num_threads": 1,
        "seed": 0,
        "offset_level0": 0,
        "max_elements": rows,
        "cur_element_count": rows,
        "size_data_per_element": ground.dtype.itemsize,
        "label_offset": ground.dtype.fields["label"][1],
        "offset_data": ground.dtype.fields["vector"][1],
        "max_level": graph.top,
        "enterpoint_node": graph.entry_point,
        "max_M": m,
        "max_M0": 2 * m,
        "M": m,
        "mult": 1 / math.log(m),
        "ef_construction": max(ef_construction, m),
        "ef": 1,
        "has_deletions": False,
        "size_links_per_element": 4 * (1 + m),
        "label_lookup_external": none,
        "label_lookup_internal": none.astype(np.uint32),
        "element_levels": graph.levels.astype(np.int32),
        "data_level0": ground.view(np.int8),
        "link_lists": graph.upper.reshape(-1).view(np.int8),
    }


def _ground(graph: Graph, vectors: FloatMatrix, metric: Metric) -> Any:
    """Return level 0 as hnswlib has it in memory: for each row its links, its vector as it is walked, its number."""
    rows, dim = vectors.shape
    layout = [("links", "<u4", (graph.ground.shape[1],)), ("vector", "<f4", (dim,)), ("label", "<u8")]
    ground = np.empty(rows, dtype=layout)
    step = max(1, _COPIED_AT_ONCE // dim)

    def put(start: int) -> None:
        block = slice(start, min(start + step, rows))
        ground["links"][block] = graph.ground[block]
        if metric == "COSINE":
            _put_units(vectors[block], ground["vector"][block])
        else:
            ground["vector"][block] = vectors[block]
        ground["label"][block] = np.arange(block.start, block.stop)

    with ThreadPoolExecutor(_COPYING_THREADS) as pool:
        for _ in pool.map(put, range(0, rows, step)):
            pass
    return ground


def _put_units(vectors: FloatMatrix, units: FloatMatrix) -> None:
    """Put vectors at length 1 into an array; in float32 where that loses nothing, in a third of the time."""
    with np.errstate(over="ignore", under="ignore"):
        squares = np.vecdot(vectors, vectors)
    least, most = _SQUARES
    if squares.min() > least and squares.max() < most:
        np.multiply(vectors, (1 / np.sqrt(squares))[:, np.newaxis], out=units)
    else:
        units[:] = unit_vectors(vectors)
