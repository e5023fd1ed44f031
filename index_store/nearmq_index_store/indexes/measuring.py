"""Measures what recall an index reaches with which params.

Recall is the share of the true nearest rows that are found. The queries are rows of the segment, since those that will
be asked are most like them; but no query may find itself, nor have been part of what is searched: HNSW is measured
before its queries are inserted (a walk to a row that is in the graph ends among its own links: on 29,000 x 384 real
vectors recall at ef 16 was 0.97 so, 0.884 with rows held out, 0.886 with queries of their own). For cells and codes it
is enough that a query is left out of its own hits.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from nearmq_index_store.distances import FloatMatrix, FloatVector, RowNumbers, exact_distances
from nearmq_index_store.indexes.allowed import AllowedRows, Mask
from nearmq_index_store.indexes.candidates import Candidates
from nearmq_index_store.indexes.protocol import IndexKind, VectorIndex
from nearmq_index_store.indexes.recall_table import MEASURED_LIMITS, RecallPoint, RecallTable
from nearmq_index_store.indexes.scan import Scan, closest_of_each, may_overflow
from nearmq_index_store.schema import VectorField

#: A limit is measured from so many times as many rows on; fewer are searched exactly about as fast.
_ROWS_A_LIMIT = 40

#: Fewer rows are not measured at all.
FEWEST_ROWS = 2_000

#: One row in so many is a query, within bounds.
_ROWS_A_QUERY, _FEWEST_QUERIES, _MOST_QUERIES = 400, 200, 400

#: One query in so many is measured at each limit: at the larger ones each says more and takes longer. At equal recall
#: the standard error is then the same at 100 as at 10 (0.007 both where 0.97 are found, on 29,000 x 384 real vectors),
#: and at 1,000 half of that (0.0023 and 0.0053 where 0.96 are found, on 50,000 x 128 synthetic ones).
_THINNED = dict(zip(MEASURED_LIMITS, (1, 8, 16), strict=True))

#: From this recall on no further effort is measured.
_ENOUGH = 0.995

#: A point is worth its place when it finds so much of what those of less effort miss.
_WORTH = 1 / 16

#: What re-ranking a row takes, in rows whose codes are scanned.
_CODES_A_ROW = 10

#: Rows that are searched for the truth at a time, so that not all of them are in memory beside the index.
_ROWS_AT_ONCE = 1 << 15

#: Queries that a thread ranks them for at a time: 32 MiB of keys.
_QUERIES_AT_ONCE = 1 << 8

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
        shares = _ranked(subject, queries, steps, threads, pool)
        for limit in steps:
            asked = [share.asked(limit, len(vectors)) for share in shares]
            table[limit] = tuple(_points(subject, [part for part in asked if len(part)], limit, pool))
    return table


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is measured."""

    kind: IndexKind
    index: VectorIndex
    vectors: FloatMatrix
    field: VectorField
    on_read: Callable[[], None]


#: Of each query, the share of the true rows that was found.
_Shares = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Asked:
    """Some queries at a limit.

    Attributes:
        truths: of each true hit, any that is as near as the last of them, the number of its query times the rows of the
            segment, plus its row.
    """

    queries: Queries
    truths: RowNumbers

    def __len__(self) -> int:
        return len(self.queries.vectors)


def _points(subject: _Subject, parts: Sequence[_Asked], limit: int, pool: ThreadPoolExecutor) -> Iterator[RecallPoint]:
    """Yield points of rising effort, each of which finds more than all before it."""
    grid = subject.kind.grid(subject.field.index.params, len(subject.vectors), limit)
    efforts: dict[RecallPoint, float] = {}
    for width in grid.widths:
        # More than the cells hold would be found by visiting further ones, and say nothing of this width.
        refines = [refine for refine in grid.refines if refine <= 1 or 4 * refine * limit <= width * grid.rows_a_width]
        points = [RecallPoint(width, refine, 0) for refine in refines]

        def shares(part: _Asked, points: Sequence[RecallPoint] = points) -> list[_Shares]:
            return _shares(subject, part, limit, points)

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


def _ranked(
    subject: _Subject, queries: Queries, steps: Mapping[int, int], threads: int, pool: ThreadPoolExecutor
) -> list["_Share"]:
    """Share the queries out, each share as many at each limit, and find the rows that may be the nearest of each."""
    most = np.zeros(len(queries.vectors), dtype=np.int64)
    for limit, step in steps.items():
        most[::step] = limit
    order = np.argsort(-most, kind="stable")
    count = min(max(threads, math.ceil(len(order) / _QUERIES_AT_ONCE)), len(order))
    chosen = [order[part::count] for part in range(count)]
    shares = [_Share(queries.some(some), most[some]) for some in chosen]
    for start in range(0, len(subject.vectors), _ROWS_AT_ONCE):
        rows = slice(start, min(start + _ROWS_AT_ONCE, len(subject.vectors)))
        scan = Scan(subject.vectors[rows], subject.field.metric)
        for ranking in [pool.submit(share.rank, subject, scan, rows) for share in shares]:
            ranking.result()
        subject.on_read()
    return shares


class _Share:
    """Some of the queries, and the rows that may be the nearest of each.

    Every query is ranked once, for the largest limit that it is measured at.
    """

    def __init__(self, queries: Queries, most: npt.NDArray[np.int64]) -> None:
        """Take queries in the order of the largest limits that they are measured at, the largest first."""
        self._queries = queries
        self._most = most
        self._near: list[_Near] = []

    @may_overflow
    def rank(self, subject: _Subject, scan: Scan, rows: slice) -> None:
        """Rank some rows, while these are in memory."""
        prepared = scan.prepare(self._queries.vectors)
        keys = scan.keys(prepared.queries, 0, rows.stop - rows.start)
        self._refuse(keys, rows)
        found = Candidates.joined(
            [closest_of_each(keys[some], limit, prepared.slack[some]) for limit, some in self._limits()]
        )
        owners, near = np.arange(len(found)).repeat(found.counts), found.rows
        # Too few may count, or nothing is known of the keys.
        counts = self._counts(owners, near + rows.start)
        owners, near = owners[counts], near[counts]
        metric = subject.field.metric
        distances = exact_distances(self._queries.vectors, owners, subject.vectors[rows], near, metric)
        self._near.append(_Near(owners, near + rows.start, distances if metric == "L2" else -distances))

    def _limits(self) -> list[tuple[int, slice]]:
        """Return the largest limits, each with the queries that have it."""
        limits, firsts = np.unique(-self._most, return_index=True)
        ends = [*firsts[1:].tolist(), len(self._most)]
        return list(zip((-limits).tolist(), map(slice, firsts.tolist(), ends), strict=True))

    def _refuse(self, keys: FloatMatrix, rows: slice) -> None:
        """Make the keys of those rows infinite that are not present, or the query itself."""
        if self._queries.present is not None:
            keys[:, np.flatnonzero(~self._queries.present.mask[rows])] = np.inf
        if self._queries.rows is not None:
            own = self._queries.rows - rows.start
            owners = np.flatnonzero((own >= 0) & (own < keys.shape[1]))
            keys[owners, own[owners]] = np.inf

    def _counts(self, owners: RowNumbers, rows: RowNumbers) -> Mask:
        """Say of pairs of a query and a row whether the row is present, and another than the query."""
        counts = np.ones(len(rows), dtype=np.bool_)
        if self._queries.present is not None:
            counts &= self._queries.present.mask[rows]
        if self._queries.rows is not None:
            counts &= self._queries.rows[owners] != rows
        return counts

    def asked(self, limit: int, rows: int) -> _Asked:
        """Return the queries that are measured at a limit, with the true hits among all rows, which are so many."""
        count = int(np.count_nonzero(self._most >= limit))
        owners, found, farness = self._nearest_first
        firsts = np.searchsorted(owners, np.arange(count + 1))
        owners, found, farness = owners[: firsts[-1]], found[: firsts[-1]], farness[: firsts[-1]]
        is_true = farness <= (farness[firsts[:-1] + limit - 1] + _TIE)[owners]
        return _Asked(self._queries.some(slice(count)), np.sort(owners[is_true] * rows + found[is_true]))

    @cached_property
    def _nearest_first(self) -> "_Near":
        near = _Near(*map(np.concatenate, zip(*self._near, strict=True)))
        order = np.lexsort((near.farness, near.owners))
        return _Near(near.owners[order], near.rows[order], near.farness[order])


class _Near(NamedTuple):
    """Rows that may be the nearest of queries, and how far each is: the distance, or the similarity negated."""

    owners: RowNumbers
    rows: RowNumbers
    farness: FloatVector


def _shares(subject: _Subject, asked: _Asked, limit: int, points: Iterable[RecallPoint]) -> list[_Shares]:
    """Return the shares that are found at points of the same width, the last of which refines most."""
    params = [subject.kind.at(point, limit, subject.field.index.params) for point in points]
    queries = asked.queries
    wanted = limit + (queries.rows is not None)
    found = subject.index.candidates(queries.vectors, wanted, params[-1])
    owners, rows = np.arange(len(found)).repeat(found.counts), found.rows
    if queries.rows is not None:
        is_other = rows != queries.rows[owners]
        owners, rows = owners[is_other], rows[is_other]
    is_hit = np.isin(owners * len(subject.vectors) + rows, asked.truths, assume_unique=True)
    places = np.arange(len(owners)) - np.searchsorted(owners, owners)
    shares = []
    for one in params:
        # Those that are re-ranked come nearest first, so that with less refine it is the first of them.
        counted = owners[is_hit & (places < one.candidates)] if len(params) > 1 else owners[is_hit]
        shares.append(np.minimum(np.bincount(counted, minlength=len(found)), limit) / limit)
    return shares
