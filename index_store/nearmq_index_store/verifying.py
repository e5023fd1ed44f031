"""Every byte of a collection's newest version against its digest, and every segment against what the manifest says."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from nearmq_index_store.blobs.protocol import BlobStore
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.digest import copy_blob
from nearmq_index_store.distances import RowNumbers
from nearmq_index_store.errors import IndexCorrupt
from nearmq_index_store.keys import Fingerprints, fingerprints, read_keys
from nearmq_index_store.manifest import BlobRef, Manifest, SegmentEntry
from nearmq_index_store.mapped import map_file
from nearmq_index_store.rows import Rows, open_rows
from nearmq_index_store.schema import VectorField
from nearmq_index_store.segment import open_segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong; `segment` is None when it concerns the whole collection."""

    collection: str
    segment: str | None
    message: str


def verify(
    catalog: Catalog, collection: str, *, on_segment: Callable[[SegmentEntry], None] = lambda _: None
) -> Iterator[Problem]:
    """Yield every problem of a collection's newest version; takes the disk of one segment and 8 bytes a row.

    Args:
        on_segment: called after each segment.

    Raises:
        CollectionNotFound: there is none of this name.
        StoreUnavailable: the store did not answer.
    """
    try:
        snapshot = catalog.snapshot(collection)
    except IndexCorrupt as error:
        yield Problem(collection=collection, segment=None, message=error.message)
        return
    keys: list[Fingerprints] = []
    for entry in snapshot.segments:
        for message in _segment_problems(catalog, snapshot.manifest, entry, keys):
            yield Problem(collection=collection, segment=entry.id, message=message)
        on_segment(entry)
    repeated = _count_repeated(keys)
    if repeated:
        message = f"{repeated} primary keys are in more than one row"
        yield Problem(collection=collection, segment=None, message=message)


def _segment_problems(
    catalog: Catalog, manifest: Manifest, entry: SegmentEntry, all_keys: list[Fingerprints]
) -> Iterator[str]:
    schema, store = manifest.schema, catalog.store
    if entry.partition not in manifest.partitions:
        yield f"it is in partition {entry.partition!r}, which the collection does not have"
    if set(entry.indexes) != {field.name for field in schema.vector_fields}:
        yield f"it has indexes of {sorted(entry.indexes)}, which are not the fields of the schema"
    with tempfile.TemporaryDirectory(prefix="nearmq-verify-") as name:
        folder = Path(name)
        rows: Rows | None = None
        try:
            rows = open_rows(_fetch(store, entry.rows_blob, folder / "rows"), entry.rows, schema)
        except IndexCorrupt as error:
            yield error.message
        try:
            keys, numbers = _check_keys(store, manifest, entry, rows)
            deleted = catalog.readers.deletes.deleted(entry)
            all_keys.append(fingerprints(keys.filter(pa.array(~deleted.mask(entry.rows)[numbers]))))
        except IndexCorrupt as error:
            yield error.message
        for field in schema.vector_fields:
            try:
                _check_index(store, entry, field, rows, folder / field.name)
            except IndexCorrupt as error:
                yield f"index of field {field.name!r}: {error.message}"


def _check_keys(
    store: BlobStore, manifest: Manifest, entry: SegmentEntry, rows: Rows | None
) -> tuple[pa.Array, RowNumbers]:
    keys, numbers = read_keys(store, entry, manifest.schema.primary_key)
    if (keys[0].as_py(), keys[-1].as_py()) != (entry.keys.min, entry.keys.max):
        raise IndexCorrupt(
            f"keys are from {keys[0]} to {keys[-1]}, the manifest says {entry.keys.min!r} to {entry.keys.max!r}"
        )
    values = np.asarray(keys.to_numpy(zero_copy_only=False))
    if not (values[1:] > values[:-1]).all():
        raise IndexCorrupt("keys are not in order, or not each there once")
    if not np.array_equal(np.sort(numbers), np.arange(entry.rows)):
        raise IndexCorrupt("keys do not name each row once")
    if rows is not None and not keys.equals(rows.keys.take(pa.array(numbers))):
        raise IndexCorrupt("keys are not those of the rows")
    return keys, numbers


def _check_index(store: BlobStore, entry: SegmentEntry, field: VectorField, rows: Rows | None, path: Path) -> None:
    index = entry.indexes.get(field.name)
    if index is None:
        return
    file = None if index.blob is None else map_file(_fetch(store, index.blob, path))
    if rows is not None:
        open_segment(entry, field, rows, file)


def _fetch(store: BlobStore, blob: BlobRef, path: Path) -> Path:
    with path.open("wb") as file:
        copy_blob(store, blob, file)
    return path


def _count_repeated(keys: list[Fingerprints]) -> int:
    if not keys:
        return 0
    values = np.concatenate(keys)
    values.sort()
    return int((values[1:] == values[:-1]).sum())
