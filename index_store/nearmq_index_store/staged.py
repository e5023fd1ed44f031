"""What one commit has put into the store and no version names yet: kept over its tries, put again where it must be."""

import tempfile
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from nearmq_index_store.digest import put_blob, read_blob
from nearmq_index_store.draft import Draft, Readers
from nearmq_index_store.errors import BlobNotFound, IndexCorrupt
from nearmq_index_store.keys import SegmentKeys
from nearmq_index_store.manifest import BlobRef, Manifest, SegmentEntry
from nearmq_index_store.schema import ID_COLUMN, Schema
from nearmq_index_store.segment import build_segment, store_segment


class StagedGone(IndexCorrupt):
    """Blobs of a segment that was to be added were collected before its commit: it has to be stored again."""


class Staged:
    """The segments of one commit.

    Args:
        folder: where segments are built; made when it is missing.
    """

    def __init__(self, readers: Readers, folder: Path) -> None:
        self._readers = readers
        self._store = readers.heads.store
        self._folder = folder
        self._put_again: dict[str, BlobRef] = {}
        self._built: tuple[object, list[SegmentEntry]] = (None, [])

    def new_segments(self, draft: Draft) -> list[SegmentEntry]:
        """Return stored segments of the rows that the jobs have added, one a partition, not indexed yet.

        Another try of the commit gets the same ones, unless another selection of the rows stays, or garbage collection
        may have taken them.
        """
        schema = draft.manifest.schema
        wanted = draft.rows.selection(), schema
        if self._built[0] != wanted or not all(_is_fresh(entry, draft.base) for entry in self._built[1]):
            tables = draft.rows.tables(schema)
            self._built = wanted, [self._store_rows(draft.base, *table, schema) for table in tables]
        return self._built[1]

    def fresh(self, segment: SegmentEntry, base: Manifest) -> SegmentEntry:
        """Return a segment whose blobs garbage collection cannot take: those before the horizon are put again.

        Raises:
            StagedGone: it has taken one already.
        """
        if _is_fresh(segment, base):
            return segment

        def again(blob: BlobRef) -> BlobRef:
            return self._fresh(blob, base)

        return msgspec.structs.replace(
            segment,
            rows_blob=again(segment.rows_blob),
            keys=msgspec.structs.replace(segment.keys, blob=again(segment.keys.blob)),
            indexes={
                name: msgspec.structs.replace(index, blob=index.blob and again(index.blob))
                for name, index in segment.indexes.items()
            },
            deletes=segment.deletes and msgspec.structs.replace(segment.deletes, blob=again(segment.deletes.blob)),
            summary=segment.summary and again(segment.summary),
        )

    def _store_rows(self, base: Manifest, partition: str, table: pa.Table, schema: Schema) -> SegmentEntry:
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            built = build_segment(table, schema, Path(folder), threads=1, indexed=False)
            entry = store_segment(self._store, base.collection_id, partition, built)
        keys = SegmentKeys(table.column(ID_COLUMN).combine_chunks(), np.arange(len(table)))
        self._readers.keys.remember(entry, keys)
        return entry

    def _fresh(self, blob: BlobRef, base: Manifest) -> BlobRef:
        latest = self._put_again.get(blob.key, blob)
        if latest.staged < base.horizon:
            try:
                data = read_blob(self._store, latest)
            except IndexCorrupt as error:
                if not isinstance(error.__cause__, BlobNotFound):
                    raise
                raise StagedGone(f"staged {error.message}, removed by garbage collection") from error
            latest = put_blob(self._store, base.collection_id, data, not_before=base.horizon)
            self._put_again[blob.key] = latest
        return latest


def _is_fresh(segment: SegmentEntry, base: Manifest) -> bool:
    return all(blob.staged >= base.horizon for blob in segment.blobs())
