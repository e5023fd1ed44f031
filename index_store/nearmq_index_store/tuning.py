"""Measures again what recall the indexes of a collection reach: with queries of one's own, or as their builds did."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from nearmq_index_store.catalog import Catalog
from nearmq_index_store.digest import copy_blob
from nearmq_index_store.distances import FloatMatrix
from nearmq_index_store.draft import Draft
from nearmq_index_store.indexes.flat import Flat
from nearmq_index_store.indexes.measuring import FEWEST_ROWS
from nearmq_index_store.indexes.protocol import BuiltIndex
from nearmq_index_store.indexes.recall_table import RecallTable
from nearmq_index_store.intents import Counts, Intent
from nearmq_index_store.manifest import IndexEntry, SegmentEntry, Snapshot
from nearmq_index_store.schema import VectorField
from nearmq_index_store.segment import measure_index
from nearmq_index_store.staging import staging_folder


@dataclass(frozen=True, slots=True)
class Tuned:
    """A segment, and what was measured of its index."""

    segment: SegmentEntry
    recalls: RecallTable


def tunable(snapshot: Snapshot, field: VectorField) -> list[SegmentEntry]:
    """Return the segments that have an index of a field and rows enough to measure it."""
    return [
        entry
        for entry in snapshot.segments
        if entry.rows >= FEWEST_ROWS and entry.indexes[field.name].kind != Flat.name
    ]


def tune(
    catalog: Catalog,
    snapshot: Snapshot,
    field: VectorField,
    *,
    queries: FloatMatrix | None,
    folder: Path,
    threads: int,
) -> Iterator[Tuned]:
    """Measure the segments of a collection one after the other.

    Args:
        queries: float32, shape (n, dim), at least one; None takes rows of each segment, and builds an HNSW graph again
            to hold them out of it, which takes as long as it took.
        folder: on a disk with room for a segment twice.

    Raises:
        IndexCorrupt, StoreUnavailable: as fetching a segment raised.
    """
    for entry in tunable(snapshot, field):
        with (
            catalog.readers.use_rows(snapshot.manifest, entry) as rows,
            staging_folder(folder) as staged,
        ):
            built = _fetch(catalog, entry.indexes[field.name], staged)
            vectors = rows.vectors(field.name)
            recalls = measure_index(built, vectors, field, staged, queries=queries, threads=threads)
        yield Tuned(entry, recalls)


def take_over(field: VectorField, tables: Mapping[str, RecallTable]) -> Intent:
    """Give segments, by id, the measurements that searches go by; those that are gone are passed over."""

    def intent(draft: Draft) -> Counts:
        present = [draft.segments()[segment_id] for segment_id in tables if segment_id in draft.segments()]
        draft.add([_with_recalls(entry, field, tables[entry.id]) for entry in present])
        return {"segments": len(present)}

    return intent


def _with_recalls(entry: SegmentEntry, field: VectorField, recalls: RecallTable) -> SegmentEntry:
    index = msgspec.structs.replace(entry.indexes[field.name], recalls=dict(recalls))
    return msgspec.structs.replace(entry, indexes=entry.indexes | {field.name: index})


def _fetch(catalog: Catalog, index: IndexEntry, folder: Path) -> BuiltIndex:
    path = None
    if index.blob is not None:
        path = folder / "index"
        with path.open("wb") as file:
            copy_blob(catalog.store, index.blob, file)
    return BuiltIndex(kind=index.kind, params=index.params, path=path, memory_bytes=index.memory_bytes)
