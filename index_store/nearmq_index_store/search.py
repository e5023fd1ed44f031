"""A search over opened segments as pure functions: what was asked for, which segments, each one's hits, all hits.

The worker calls them in this order: `resolve` and `check_queries` when a job is taken in, `plan` on a snapshot,
`search_part` for each segment (from several threads), `merge`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from nearmq_index_store.distances import Distances, FloatMatrix, RowNumbers, exact_distances, nearest_first
from nearmq_index_store.errors import (
    DimensionMismatch,
    InvalidArgument,
    MetricMismatch,
    PartitionNotFound,
)
from nearmq_index_store.filters import ColumnType, Filter, Kind, compile_filter
from nearmq_index_store.indexes import index_kind
from nearmq_index_store.indexes.flat import FlatIndex
from nearmq_index_store.indexes.params import MAX_LIMIT
from nearmq_index_store.indexes.protocol import SearchParams
from nearmq_index_store.manifest import SegmentEntry, Snapshot
from nearmq_index_store.rows import Ids
from nearmq_index_store.schema import ID_COLUMN, METRICS, Metric, PrimaryKey, ScalarField, Schema, VectorField
from nearmq_index_store.segment import Segment

#: int64: the number of a part, times 2^32, plus the number of a row in it.
Places = npt.NDArray[np.int64]

_ROW_BITS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Hits:
    """The hits of n queries, nearest first, ties by smaller id.

    Attributes:
        ids: int64, or objects of str, shape (n, width); width is at most the limit.
        distances: float32, shape (n, width).
        counts: int64, shape (n,): how many hits each query has; what lies beyond is padding (0, None).
        metric: what the distances are, and hence their order.
        places: shape (n, width): where each hit's row is; None where nobody asked.
    """

    ids: Ids
    distances: Distances
    counts: npt.NDArray[np.int64]
    metric: Metric
    places: Places | None = None


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
        InvalidArgument: an unknown metric; limit or a parameter is unknown or out of range.
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
    condition: Filter | None = None,
    part: int | None = None,
) -> Hits:
    """Search one segment.

    With a filter the search is exact over the rows that it allows, whatever the index: no recall is lost, and it takes
    the time of a FLAT search of so many rows.

    Args:
        queries: float32, shape (n, dim), C-contiguous, finite.
        limit: at least 1, and at most what `resolve` made the params for; more than the segment holds gives fewer hits.
        params: what `resolve` returned.
        condition: what `read_expr` returned, or None to search all rows.
        part: the caller's number of the segment, when the hits are to say where their rows are.
    """
    vectors, metric = segment.rows.vectors(segment.field.name), segment.field.metric
    hits = _padded(
        len(queries), min(limit, len(vectors)), metric, segment.rows.primary_key, with_places=part is not None
    )
    candidates = (
        segment.index.candidates(queries, limit, params)
        if condition is None
        else _candidates_among(segment.allowed(condition), vectors, metric, queries, limit)
    )
    for i, rows in enumerate(candidates):
        distances = exact_distances(queries[i], vectors, rows, metric)
        ids = segment.rows.ids_at(rows)
        nearest = nearest_first(ids, distances, metric)[:limit]
        hits.counts[i] = len(nearest)
        hits.ids[i, : len(nearest)] = ids[nearest]
        hits.distances[i, : len(nearest)] = distances[nearest]
        if hits.places is not None and part is not None:
            hits.places[i, : len(nearest)] = (part << _ROW_BITS) + rows[nearest]
    return hits


def _column_type(field: ScalarField) -> ColumnType:
    is_array = field.type.startswith("array<")
    kind = cast("Kind", field.type.removeprefix("array<").removesuffix(">"))
    return ColumnType(kind, is_array=is_array, nullable=field.nullable)


def _candidates_among(
    allowed: RowNumbers, vectors: FloatMatrix, metric: Metric, queries: FloatMatrix, limit: int
) -> Iterable[RowNumbers]:
    """Choose the candidates of each query among some rows, by an exact scan of a copy of those rows."""
    if len(allowed) == 0:
        return [allowed] * len(queries)
    among = vectors if len(allowed) == len(vectors) else vectors[allowed]
    return (allowed[found] for found in FlatIndex(among, metric).nearest(queries, limit))


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
    for i in range(len(merged.counts)):
        ids = np.concatenate([part.ids[i, : part.counts[i]] for part in parts])
        distances = np.concatenate([part.distances[i, : part.counts[i]] for part in parts])
        nearest = nearest_first(ids, distances, merged.metric)[:limit]
        merged.counts[i] = len(nearest)
        merged.ids[i, : len(nearest)] = ids[nearest]
        merged.distances[i, : len(nearest)] = distances[nearest]
        if merged.places is not None:
            found = [rows[i, : part.counts[i]] for rows, part in zip(places, parts, strict=True)]
            merged.places[i, : len(nearest)] = np.concatenate(found)[nearest]
    return merged


def split_places(places: Places) -> tuple[npt.NDArray[np.int64], RowNumbers]:
    """Return the numbers of the parts and of the rows that places are made of."""
    return places >> _ROW_BITS, places & ((1 << _ROW_BITS) - 1)


def _padded(queries: int, width: int, metric: Metric, primary_key: PrimaryKey, *, with_places: bool) -> Hits:
    shape = (queries, width)
    return Hits(
        ids=np.zeros(shape, dtype=np.int64) if primary_key == "int64" else np.full(shape, None, dtype=object),
        distances=np.zeros(shape, dtype=np.float32),
        counts=np.zeros(queries, dtype=np.int64),
        metric=metric,
        places=np.zeros(shape, dtype=np.int64) if with_places else None,
    )
