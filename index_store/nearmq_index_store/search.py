"""A search over opened segments as pure functions: what was asked for, which segments, each one's hits, all hits.

The worker calls them in this order: `resolve` and `check_queries` when a job is taken in, `plan` on a snapshot,
`search_part` for each segment (from several threads), `merge`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import msgspec
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
from nearmq_index_store.indexes.allowed import Mask
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

_Array = TypeVar("_Array", bound=npt.NDArray[Any])


class Hits(msgspec.Struct, frozen=True, kw_only=True):
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
    width = min(limit, explanation.allowed)
    parts = []
    for run, pairs in _runs(candidates):
        rows, found = candidates.rows[pairs], candidates.counts[run]
        owners = np.arange(run.start, run.stop).repeat(found)
        distances = exact_distances(queries, owners, vectors, rows, metric)
        if radius is not None or range_filter is not None:
            inside = within(distances, metric, radius, range_filter)
            rows, owners, distances = rows[inside], owners[inside], distances[inside]
            found = np.bincount(owners - run.start, minlength=len(found))
        places = None if part is None else to_places(part, rows)
        nearest = _Pairs(owners, segment.rows.ids_at(rows), distances, places)
        parts.append(_hits(nearest, found, width, metric, explanation))
    return _one_after_another(parts)


def _column_type(field: ScalarField) -> ColumnType:
    is_array = field.type.startswith("array<")
    kind = cast("Kind", field.type.removeprefix("array<").removesuffix(">"))
    return ColumnType(kind, is_array=is_array, nullable=field.nullable)


def no_hits(queries: int, field: VectorField, primary_key: PrimaryKey, *, with_places: bool = False) -> Hits:
    """Return the hits of so many queries over no segment at all."""
    none = np.empty(0, dtype=np.int64)
    ids = none if primary_key == "int64" else none.astype(object)
    pairs = _Pairs(none, ids, none.astype(np.float32), none if with_places else None)
    return _hits(pairs, np.zeros(queries, dtype=np.int64), 0, field.metric)


def merge(parts: Sequence[Hits], limit: int) -> Hits:
    """Merge the hits of the same queries over several segments; the order of the parts changes nothing.

    Args:
        parts: at least one, each searched with this limit, and all or none with a number.
    """
    if len(parts) == 1:
        return parts[0]
    are_hits = [np.arange(part.ids.shape[1]) < part.counts[:, np.newaxis] for part in parts]
    places = [part.places[is_hit] for part, is_hit in zip(parts, are_hits, strict=True) if part.places is not None]
    pairs = _Pairs(
        np.concatenate([np.nonzero(is_hit)[0] for is_hit in are_hits]),
        np.concatenate([part.ids[is_hit] for part, is_hit in zip(parts, are_hits, strict=True)]),
        np.concatenate([part.distances[is_hit] for part, is_hit in zip(parts, are_hits, strict=True)]),
        np.concatenate(places) if places else None,
    )
    found = np.add.reduce([part.counts for part in parts])
    return _hits(pairs, found, min(limit, sum(part.ids.shape[1] for part in parts)), parts[0].metric)


class _Pairs(NamedTuple):
    """Pairs of a query and a row: of each the number of the query, and what `Hits` tells of the row."""

    owners: RowNumbers
    ids: Ids
    distances: Distances
    places: Places | None


def _hits(pairs: _Pairs, found: RowNumbers, width: int, metric: Metric, explanation: Explanation | None = None) -> Hits:
    """Return the `width` nearest rows of each query, or as many as it has.

    Args:
        pairs: of queries that follow each other.
        found: how many pairs each of them has.
    """
    counts = np.minimum(found, width)
    ranks = np.arange(width)
    best = (found.cumsum() - found)[:, np.newaxis] + ranks
    if len(pairs.owners):
        # Beyond a query's last hit there is another's, which makes way for padding.
        best = nearest_first(pairs.owners, pairs.ids, pairs.distances, metric).take(best, mode="clip")
    is_padding = None if counts.min(initial=width) == width else ranks >= counts[:, np.newaxis]
    return Hits(
        ids=_taken(pairs.ids, best, is_padding),
        distances=_taken(pairs.distances, best, is_padding),
        counts=counts,
        metric=metric,
        places=None if pairs.places is None else _taken(pairs.places, best, is_padding),
        explanation=explanation,
    )


def _taken(values: _Array, best: RowNumbers, is_padding: Mask | None) -> _Array:
    """Return the values of the best pairs; 0, or None of strings, for padding."""
    taken = values.take(best) if len(values) else np.empty(best.shape, dtype=values.dtype)
    if is_padding is not None:
        taken[is_padding] = None if values.dtype == object else 0
    return cast("_Array", taken)


def _one_after_another(runs: Sequence[Hits]) -> Hits:
    """Return the hits of the queries of one run after those of the other."""
    if len(runs) == 1:
        return runs[0]
    places = [run.places for run in runs if run.places is not None]
    return msgspec.structs.replace(
        runs[0],
        ids=np.concatenate([run.ids for run in runs]),
        distances=np.concatenate([run.distances for run in runs]),
        counts=np.concatenate([run.counts for run in runs]),
        places=np.concatenate(places) if places else None,
    )


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
