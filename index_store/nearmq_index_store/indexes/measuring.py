"""Measures what recall an index reaches with which params.

Recall is the share of the true nearest rows that are found. The queries are rows of the segment, since those that will
be asked are most like them; but no query may find itself, nor have been part of what is searched: HNSW is measured
before its queries are inserted (a walk to a row that is in the graph ends among its own links: on 29,000 x 384 real
vectors recall at ef 16 was 0.97 so, 0.884 with rows held out, 0.886 with queries of their own). For cells and codes it
is enough that a query is left out of its own hits.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from nearmq_index_store.distances import FloatMatrix, FloatVector, RowNumbers, exact_distances
from nearmq_index_store.indexes.allowed import AllowedRows, Mask
from nearmq_index_store.indexes.flat import FlatIndex
from nearmq_index_store.indexes.protocol import IndexKind, VectorIndex
from nearmq_index_store.indexes.recall_table import MEASURED_LIMITS, RecallPoint, RecallTable
from nearmq_index_store.schema import VectorField

#: A limit is measured from so many times as many rows on; fewer are searched exactly about as fast.
_ROWS_A_LIMIT = 40

#: Fewer rows are not measured at all.
FEWEST_ROWS = 2_000

#: One row in so many is a query, within bounds.
_ROWS_A_QUERY, _FEWEST_QUERIES, _MOST_QUERIES = 200, 200, 400

#: One query in so many is measured at each limit: at the larger ones each says more and takes longer.
_THINNED = dict(zip(MEASURED_LIMITS, (1, 4, 8), strict=True))

#: From this recall on no further effort is measured.
_ENOUGH = 0.995

#: A point is worth its place when it finds so much of what those of less effort miss.
_WORTH = 1 / 16

#: What re-ranking a row takes, in rows whose codes are scanned.
_CODES_A_ROW = 10

#: Rows that are searched for the truth at a time, so that not all of them are in memory beside the index.
_ROWS_AT_ONCE = 1 << 15

#: Rows this near to the last true one count as true ones: the data may hold ties.
_TIE = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Queries:
    """What recall is measured with.

    Attributes:
        vectors: float32, shape (n, dim), at least one.
        rows: the row that each of them is, which is none of its hits; None where they are no rows.
        present: the rows that are in the index; None is all.
    """

    vectors: FloatMatrix
    rows: RowNumbers | None = None
    present: AllowedRows | None = None

    def some(self, chosen: slice | npt.NDArray[np.intp]) -> "Queries":
        """Return those that an index of numpy's chooses."""
        rows = None if self.rows is None else self.rows[chosen]
        return Queries(vectors=np.ascontiguousarray(self.vectors[chosen]), rows=rows, present=self.present)


def held_out(rows: int, *, seed: int) -> RowNumbers:
    """Choose the rows of a segment to measure with, ascending; none where it is too small."""
    if rows < FEWEST_ROWS:
        return np.empty(0, dtype=np.int64)
    count = min(max(rows // _ROWS_A_QUERY, _FEWEST_QUERIES), _MOST_QUERIES)
    return np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))


def measure(
    kind: IndexKind,
    index: VectorIndex,
    vectors: FloatMatrix,
    field: VectorField,
    queries: Queries,
    *,
    threads: int,
    on_read: Callable[[], None] = lambda: None,
) -> RecallTable:
    """Measure an opened index, of a kind other than FLAT, over all rows of a segment.

    Args:
        on_read: called whenever some part of the rows was read, which may leave memory then.
    """
    subject = _Subject(kind, index, vectors, field, on_read)
    steps = {limit: step for limit, step in _THINNED.items() if len(vectors) >= _ROWS_A_LIMIT * limit}
    table = {}
    # The threads of a BLAS spin for a while after each product; walks beside them take 1.5 times as long.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        near = _near(subject, queries, steps, threads, pool)
        for limit, step in steps.items():
            asked, near_asked = queries.some(slice(None, None, step)), near[::step]
            truths = [_truth(asked, query, limit, parts) for query, parts in enumerate(near_asked)]
            shared = [slice(part, None, threads) for part in range(min(threads, len(truths)))]
            parts = [(asked.some(part), truths[part]) for part in shared]
            table[limit] = tuple(_points(subject, parts, limit, pool))
    return table


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is measured."""

    kind: IndexKind
    index: VectorIndex
    vectors: FloatMatrix
    field: VectorField
    on_read: Callable[[], None]


class _Near(NamedTuple):
    """Rows that may be the nearest of a query, and how far each is: the distance, or the similarity negated."""

    rows: RowNumbers
    farness: FloatVector


#: Of each query, the share of the true rows that was found.
_Shares = npt.NDArray[np.float64]


#: Some of the queries, and of each the true nearest rows, all that are as near as the last of them.
_Part = tuple[Queries, Sequence[RowNumbers]]


def _points(subject: _Subject, parts: Sequence[_Part], limit: int, pool: ThreadPoolExecutor) -> Iterator[RecallPoint]:
    """Yield points of rising effort, each of which finds more than all before it."""
    grid = subject.kind.grid(subject.field.index.params, len(subject.vectors), limit)
    efforts: dict[RecallPoint, float] = {}
    for width in grid.widths:
        # More than the cells hold would be found by visiting further ones, and say nothing of this width.
        refines = [refine for refine in grid.refines if refine <= 1 or 4 * refine * limit <= width * grid.rows_a_width]
        points = [RecallPoint(width, refine, 0) for refine in refines]

        def shares(part: _Part, points: Sequence[RecallPoint] = points) -> list[_Shares]:
            return _shares(subject, *part, limit, points)

        recall = 0.0
        for refine, of_parts in zip(refines, zip(*pool.map(shares, parts), strict=True), strict=True):
            found = np.concatenate(of_parts)
            recall = float(found.mean())
            certain = max(0.0, recall - float(found.std()) / len(found) ** 0.5)
            effort = width * grid.rows_a_width + refine * limit * _CODES_A_ROW
            efforts[RecallPoint(width, refine, round(certain, 4))] = effort
        subject.on_read()
        if recall >= _ENOUGH:
            break
    best = 0.0
    for point in sorted(efforts, key=efforts.__getitem__):
        if point.recall - best > _WORTH * (1 - best):
            best = point.recall
            yield point


def _near(
    subject: _Subject, queries: Queries, steps: Mapping[int, int], threads: int, pool: ThreadPoolExecutor
) -> list[list[_Near]]:
    """Return for each query, by parts of the rows, those that may be its nearest.

    Each is ranked once, for the largest limit that it is measured at.
    """
    most = np.zeros(len(queries.vectors), dtype=np.int64)
    for limit, step in steps.items():
        most[::step] = limit
    of_limits = [(limit, np.flatnonzero(most == limit)) for limit in steps]
    parts = [(limit, some[part::threads]) for limit, some in of_limits for part in range(min(threads, len(some)))]
    near: list[list[_Near]] = [[] for _ in most]
    for start in range(0, len(subject.vectors), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        exact = FlatIndex(subject.vectors[rows], subject.field.metric)
        found = [pool.submit(_nearest, subject, queries.some(some), limit, rows, exact) for limit, some in parts]
        for (_, some), of_part in zip(parts, found, strict=True):
            for query, nearest in zip(some.tolist(), of_part.result(), strict=True):
                near[query].append(nearest)
        subject.on_read()
    return near


def _nearest(subject: _Subject, queries: Queries, limit: int, rows: slice, exact: FlatIndex) -> list[_Near]:
    """Return of each query the nearest of some rows, ranked while these are in memory."""
    wanted = limit + (queries.rows is not None)
    allowed = None if queries.present is None else AllowedRows(queries.present.mask[rows])
    found = exact.nearest(queries.vectors, wanted, allowed=allowed)
    owners = np.repeat(np.arange(len(found)), found.counts)
    distances = exact_distances(queries.vectors, owners, subject.vectors[rows], found.rows, subject.field.metric)
    farness = distances if subject.field.metric == "L2" else -distances
    ends = np.cumsum(found.counts)[:-1]
    return list(map(_Near, np.split(found.rows + rows.start, ends), np.split(farness, ends)))


def _truth(queries: Queries, query: int, limit: int, near: Sequence[_Near]) -> RowNumbers:
    """Choose the true nearest rows of a query from the nearest of each part of the rows."""
    rows = np.concatenate([part.rows for part in near])
    farness = np.concatenate([part.farness for part in near])
    is_other = _is_other(queries, query, rows)
    rows, farness = rows[is_other], farness[is_other]
    nearest: RowNumbers = rows[farness <= np.partition(farness, limit - 1)[limit - 1] + _TIE]
    return nearest


def _shares(
    subject: _Subject, queries: Queries, truths: Sequence[RowNumbers], limit: int, points: Iterable[RecallPoint]
) -> list[_Shares]:
    """Return the shares that are found at points of the same width, the last of which refines most."""
    params = [subject.kind.at(point, limit, subject.field.index.params) for point in points]
    wanted = limit + (queries.rows is not None)
    found = subject.index.candidates(queries.vectors, wanted, params[-1])
    is_true = np.zeros(len(subject.vectors), dtype=np.bool_)
    shares = np.empty((len(params), len(found)))
    for query, (rows, truth) in enumerate(zip(found, truths, strict=True)):
        is_true[truth] = True
        hits = is_true[rows[_is_other(queries, query, rows)]]
        # Those that are re-ranked come nearest first, so that with less refine it is the first of them.
        counts = [np.count_nonzero(hits[: one.candidates] if len(params) > 1 else hits) for one in params]
        shares[:, query] = np.minimum(counts, limit) / limit
        is_true[truth] = False
    return list(shares)


def _is_other(queries: Queries, query: int, rows: RowNumbers) -> Mask:
    """Say of each row whether it is another than the query itself."""
    return np.ones(len(rows), dtype=np.bool_) if queries.rows is None else rows != queries.rows[query]
