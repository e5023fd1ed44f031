"""A search over opened segments as pure functions: what was asked for, which segments, each one's hits, all hits.

The worker calls them in this order: `resolve` and `check_queries` when a job is taken in, `plan` on a snapshot,
`search_part` for each segment (from several threads), `merge`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from nearmq_index_store.deletes import NONE_DELETED, DeletedRows
from nearmq_index_store.distances import Distances, FloatMatrix, RowNumbers, exact_distances, nearest_first
from nearmq_index_store.errors import (
    DimensionMismatch,
    InvalidArgument,
    MetricMismatch,
    PartitionNotFound,
)
from nearmq_index_store.filters import ColumnType, Filter, Kind, compile_filter
from nearmq_index_store.indexes import index_kind
from nearmq_index_store.indexes.candidates import Candidates
from nearmq_index_store.indexes.params import MAX_LIMIT, check_recall
from nearmq_index_store.indexes.protocol import SearchParams
from nearmq_index_store.indexes.recall_table import limit_asked
from nearmq_index_store.manifest import SegmentEntry, Snapshot
from nearmq_index_store.places import Places, to_places
from nearmq_index_store.ranges import within
from nearmq_index_store.rows import Ids
from nearmq_index_store.schema import ID_COLUMN, METRICS, Metric, PrimaryKey, ScalarField, Schema, VectorField
from nearmq_index_store.segment import Segment
from nearmq_index_store.ways import Explanation, find_candidates

#: Pairs of a query and a row that are ranked at a time, some 50 bytes each.
_PAIRS_AT_ONCE = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Hits:
    """The hits of n queries, nearest first, ties by smaller id.

    Attributes:
        ids: int64, or objects of str, shape (n, width); width is at most the limit.
        distances: float32, shape (n, width).
        counts: int64, shape (n,): how many hits each query has; what lies beyond is padding (0, None).
        metric: what the distances are, and hence their order.
        places: shape (n, width): where each hit's row is; None where nobody asked.
        explanation: how they were found; None of hits that were merged.
    """

    ids: Ids
    distances: Distances
    counts: npt.NDArray[np.int64]
    metric: Metric
    places: Places | None = None
    explanation: Explanation | None = None


def resolve(
    schema: Schema,
    *,
    field: str | None,
    metric_type: str | None,
    params: Mapping[str, int | float],
    limit: int,
) -> tuple[VectorField, SearchParams]:
    """Check what a job asks for against the schema alone, and fill in defaults.

    Args:
        limit: limit + offset.

    Raises:
        FieldNotFound: no such vector field, or none named where there are several.
        MetricMismatch: another metric than the field's.
        InvalidArgument: an unknown metric; limit or a parameter is unknown or out of range; a recall beside another.
    """
    vector_field = schema.field(field)
    if metric_type is not None and metric_type not in METRICS:
        raise InvalidArgument(
            f"metric_type must be one of {', '.join(METRICS)}, got {metric_type!r}", field="metric_type"
        )
    if metric_type is not None and metric_type != vector_field.metric:
        raise MetricMismatch(
            f"field {vector_field.name!r} has metric_type {vector_field.metric}, the search names {metric_type}",
            field="metric_type",
        )
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidArgument(f"limit must be from 1 to {MAX_LIMIT}, offset included, got {limit}", field="limit")
    if "recall" in params:
        return vector_field, SearchParams(recall=check_recall(params), candidates=limit_asked(limit))
    return vector_field, index_kind(vector_field.index.kind).resolve(params, vector_field, limit)


def check_queries(field: VectorField, queries: npt.NDArray[np.float32]) -> None:
    """Check that queries, float32 of shape (n, dim), fit a field.

    Raises:
        DimensionMismatch: they have another number of dimensions.
    """
    if queries.ndim != 2 or queries.shape[1] != field.dim:  # noqa: PLR2004 - a matrix
        found = queries.shape[1] if queries.ndim == 2 else queries.shape  # noqa: PLR2004
        raise DimensionMismatch(f"field {field.name!r} has dim {field.dim}, the queries have {found}", field="vectors")


def plan(snapshot: Snapshot, partition_names: Iterable[str] | None) -> tuple[SegmentEntry, ...]:
    """Choose the segments to search: those of the named partitions, all without names.

    Raises:
        PartitionNotFound: no partition has one of the names.
        InvalidArgument: the list of names is empty.
    """
    if partition_names is None:
        return snapshot.segments
    wanted = set(partition_names)
    if not wanted:
        raise InvalidArgument("partition_names is empty, leave it out to search all", field="partition_names")
    unknown = sorted(wanted.difference(snapshot.manifest.partitions))
    if unknown:
        raise PartitionNotFound(
            f"no partition {', '.join(map(repr, unknown))} in collection {snapshot.manifest.name!r}",
            field="partition_names",
        )
    return tuple(segment for segment in snapshot.segments if segment.partition in wanted)


def read_expr(schema: Schema, expr: str, values: Mapping[str, object]) -> Filter:
    """Compile a filter expression against a collection's scalar fields and its primary key `id`.

    Raises:
        InvalidExpression: it cannot be read, or does not fit the schema.
    """
    scalars = {field.name: _column_type(field) for field in schema.scalar_fields}
    return compile_filter(expr, {ID_COLUMN: ColumnType(schema.primary_key), **scalars}, values)


def search_part(
    segment: Segment,
    queries: FloatMatrix,
    limit: int,
    params: SearchParams,
    *,
    deleted: DeletedRows = NONE_DELETED,
    condition: Filter | None = None,
    radius: float | None = None,
    range_filter: float | None = None,
    part: int | None = None,
) -> Hits:
    """Search one segment.

    Where a filter, deleted rows or both leave some rows out, the way is chosen by how many are left (`ways.py`); an
    answer has min(limit, rows that are left and in range) hits, whatever the way.

    Args:
        queries: float32, shape (n, dim), C-contiguous, finite.
        limit: at least 1, and at most what `resolve` made the params for; more than the segment holds gives fewer hits.
        params: what `resolve` returned.
        deleted: the segment's deleted rows at the version that is searched.
        condition: what `read_expr` returned, or None to search all rows.
        radius, range_filter: the far and the near end of a range search (`ranges.py`), checked. With a near end the
            search is exact.
        part: the caller's number of the segment, when the hits are to say where their rows are.
    """
    vectors, metric = segment.rows.vectors(segment.field.name), segment.field.metric
    candidates, explanation = find_candidates(
        segment, queries, limit, params, deleted=deleted, condition=condition, near_end=range_filter
    )
    hits = _padded(
        len(queries),
        min(limit, explanation.allowed),
        metric,
        segment.rows.primary_key,
        with_places=part is not None,
        explanation=explanation,
    )
    for run, pairs in _runs(candidates):
        rows, found = candidates.rows[pairs], candidates.counts[run]
        owners = np.arange(run.start, run.stop).repeat(found)
        distances = exact_distances(queries, owners, vectors, rows, metric)
        if radius is not None or range_filter is not None:
            inside = within(distances, metric, radius, range_filter)
            rows, owners, distances = rows[inside], owners[inside], distances[inside]
            found = np.bincount(owners - run.start, minlength=len(found))
        places = None if part is None else to_places(part, rows)
        _put(hits, run, found, owners, ids=segment.rows.ids_at(rows), distances=distances, places=places)
    return hits


def _column_type(field: ScalarField) -> ColumnType:
    is_array = field.type.startswith("array<")
    kind = cast("Kind", field.type.removeprefix("array<").removesuffix(">"))
    return ColumnType(kind, is_array=is_array, nullable=field.nullable)


def no_hits(queries: int, field: VectorField, primary_key: PrimaryKey, *, with_places: bool = False) -> Hits:
    """Return the hits of so many queries over no segment at all."""
    return _padded(queries, 0, field.metric, primary_key, with_places=with_places)


def merge(parts: Sequence[Hits], limit: int) -> Hits:
    """Merge the hits of the same queries over several segments; the order of the parts changes nothing.

    Args:
        parts: at least one, each searched with this limit, and all or none with a number.
    """
    if len(parts) == 1:
        return parts[0]
    width = min(limit, sum(part.ids.shape[1] for part in parts))
    primary_key: PrimaryKey = "string" if parts[0].ids.dtype == object else "int64"
    places = [part.places for part in parts if part.places is not None]
    merged = _padded(len(parts[0].counts), width, parts[0].metric, primary_key, with_places=bool(places))
    are_hits = [np.arange(part.ids.shape[1]) < part.counts[:, np.newaxis] for part in parts]
    _put(
        merged,
        slice(0, len(merged.counts)),
        np.add.reduce([part.counts for part in parts]),
        np.concatenate([np.nonzero(is_hit)[0] for is_hit in are_hits]),
        ids=np.concatenate([part.ids[is_hit] for part, is_hit in zip(parts, are_hits, strict=True)]),
        distances=np.concatenate([part.distances[is_hit] for part, is_hit in zip(parts, are_hits, strict=True)]),
        places=np.concatenate([rows[is_hit] for rows, is_hit in zip(places, are_hits, strict=True)])
        if places
        else None,
    )
    return merged


def _put(
    hits: Hits,
    run: slice,
    found: RowNumbers,
    owners: RowNumbers,
    *,
    ids: Ids,
    distances: Distances,
    places: Places | None,
) -> None:
    """Put the nearest of some pairs of a query and a row in the place of their query's padding, while there is room.

    Args:
        run: the queries that the pairs are of, of which there are no hits yet.
        found: how many pairs each of them has.
        owners: of each pair the number of its query.
    """
    if not len(owners):
        return
    order = nearest_first(owners, ids, distances, hits.metric)
    width = hits.ids.shape[1]
    hits.counts[run] = np.minimum(found, width)
    ranks = np.arange(width)
    firsts = found.cumsum() - found
    # Beyond a query's last hit, there is another's; it is not copied.
    best = order.take(firsts[:, np.newaxis] + ranks, mode="clip")
    is_hit = True if found.min() >= width else ranks < found[:, np.newaxis]
    for all_hits, values in ((hits.ids, ids), (hits.distances, distances), (hits.places, places)):
        if all_hits is not None and values is not None:
            np.copyto(all_hits[run], values.take(best), where=is_hit)


def _runs(candidates: Candidates) -> Iterator[tuple[slice, slice]]:
    """Cut queries into runs of at most so many pairs that what is computed of a run stays small, or of one query.

    Yields:
        The queries of a run, and their pairs.
    """
    counts, pairs = candidates.counts, len(candidates.rows)
    if pairs <= _PAIRS_AT_ONCE:
        yield slice(0, len(counts)), slice(0, pairs)
        return
    ends = counts.cumsum()
    start = first = 0
    while start < len(counts):
        stop = max(start + 1, int(ends.searchsorted(first + _PAIRS_AT_ONCE, side="right")))
        end = int(ends[stop - 1])
        yield slice(start, stop), slice(first, end)
        start, first = stop, end


def _padded(
    queries: int,
    width: int,
    metric: Metric,
    primary_key: PrimaryKey,
    *,
    with_places: bool,
    explanation: Explanation | None = None,
) -> Hits:
    shape = (queries, width)
    return Hits(
        ids=np.zeros(shape, dtype=np.int64) if primary_key == "int64" else np.full(shape, None, dtype=object),
        distances=np.zeros(shape, dtype=np.float32),
        counts=np.zeros(queries, dtype=np.int64),
        metric=metric,
        places=np.zeros(shape, dtype=np.int64) if with_places else None,
        explanation=explanation,
    )
