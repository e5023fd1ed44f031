"""What a collection is and holds, as plain values for JSON."""

from collections import Counter
from typing import Any

from nearmq_index_store.manifest import Snapshot
from nearmq_index_store.schema import Schema


def describe(snapshot: Snapshot) -> dict[str, Any]:
    """Return a collection's name, id, version, schema, partitions and totals.

    `rows` are those that are not deleted, `bytes` those of the blobs.
    """
    manifest = snapshot.manifest
    segments: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for entry in snapshot.segments:
        segments[entry.partition] += 1
        rows[entry.partition] += entry.live_rows
        size[entry.partition] += sum(blob.bytes for blob in entry.blobs())
    return {
        "name": manifest.name,
        "id": manifest.collection_id,
        "version": manifest.version,
        **describe_schema(manifest.schema),
        "partitions": [
            {"name": name, "rows": rows[name], "segments": segments[name], "bytes": size[name]}
            for name in manifest.partitions
        ],
        "rows": rows.total(),
        "segments": segments.total(),
        "bytes": size.total(),
    }


def describe_schema(schema: Schema) -> dict[str, Any]:
    """Return the primary key's type, the vector fields and the scalar fields."""
    return {
        "primary_key": schema.primary_key,
        "vector_fields": [
            {
                "name": field.name,
                "dim": field.dim,
                "metric_type": field.metric,
                "index": field.index.kind,
                "index_params": field.index.params,
            }
            for field in schema.vector_fields
        ],
        "scalar_fields": [
            {"name": field.name, "type": field.type, "nullable": field.nullable} for field in schema.scalar_fields
        ],
    }
