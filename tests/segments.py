"""Segments in memory and on disk for tests, without a store."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from nearmq_index_store.distances import exact_distances
from nearmq_index_store.indexes import index_kind
from nearmq_index_store.manifest import BlobRef, IndexEntry, KeysEntry, SegmentEntry
from nearmq_index_store.mapped import map_file
from nearmq_index_store.schema import ID_COLUMN, IndexSpec, Metric, Schema, VectorField
from nearmq_index_store.segment import BuiltSegment, Segment, build_segment, open_rows, open_segment


def distances_to(query: np.ndarray, vectors: np.ndarray, rows: np.ndarray, metric: Metric) -> np.ndarray:
    """The exact distances of one query to some rows."""
    return exact_distances(query[np.newaxis], np.zeros(len(rows), np.int64), vectors, rows, metric)


def vector_field(dim: int, metric: Metric, kind: str = "FLAT", name: str = "vector", **params: int) -> VectorField:
    declared = index_kind(kind).check_build_params(params, dim)
    return VectorField(name=name, dim=dim, metric=metric, index=IndexSpec(kind=kind, params=declared))


def schema_of(*fields: VectorField, ids: Sequence[int] | Sequence[str] = (0,)) -> Schema:
    return Schema(primary_key="string" if isinstance(ids[0], str) else "int64", vector_fields=fields)


def table_of(ids: Sequence[int] | Sequence[str], **vectors: np.ndarray) -> pa.Table:
    columns = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])
        for name, matrix in vectors.items()
    }
    return pa.table({ID_COLUMN: pa.array(ids), **columns})


def entry_of(built: BuiltSegment) -> SegmentEntry:
    """What `store_segment` would return, with blobs that are nowhere."""
    nowhere = BlobRef(key="nowhere", bytes=0, digest="")
    return SegmentEntry(
        id="01JZ0000000000000000000000",
        partition="_default",
        rows=built.rows,
        rows_blob=nowhere,
        keys=KeysEntry(blob=nowhere, min=built.key_min, max=built.key_max),
        indexes={
            name: IndexEntry(
                kind=index.kind,
                params=index.params,
                blob=None,
                memory_bytes=index.memory_bytes,
                recalls=dict(index.recalls),
            )
            for name, index in built.indexes.items()
        },
    )


def open_built(built: BuiltSegment, schema: Schema, field: VectorField) -> Segment:
    rows = open_rows(built.rows_path, built.rows, schema)
    path = built.indexes[field.name].path
    return open_segment(entry_of(built), field, rows, None if path is None else map_file(path))


def make_segment(
    folder: Path, field: VectorField, vectors: np.ndarray, ids: Sequence[int] | Sequence[str], *, threads: int = 1
) -> Segment:
    schema = schema_of(field, ids=ids)
    built = build_segment(table_of(ids, **{field.name: vectors}), schema, folder, threads=threads)
    return open_built(built, schema, field)
