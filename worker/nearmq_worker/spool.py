"""The way of a segment's blobs into memory: each is copied to a local file, verified on the way, opened, and unlinked.

No native loader sees a byte that was not verified against the manifest. The files are unlinked once they are open (the
maps stay), so a spool holds only what is being loaded.
"""

import logging
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from nearmq_index_store.blobs import BlobStore
from nearmq_index_store.digest import copy_blob
from nearmq_index_store.manifest import BlobRef, SegmentEntry
from nearmq_index_store.schema import Schema
from nearmq_index_store.segment import Segment, open_rows, open_segment
from nearmq_index_store.staging import staging_folder
from nearmq_worker.telemetry import SEGMENT_LOADED

logger = logging.getLogger(__name__)


class Spool:
    """A folder of this process's own, under the configured one."""

    def __init__(self, store: BlobStore, parent: Path) -> None:
        self._store = store
        self._stack = ExitStack()
        self._folder = self._stack.enter_context(staging_folder(parent))

    def open(self, entry: SegmentEntry, schema: Schema, field: str) -> Segment:
        """Fetch, verify and open one field of a segment.

        Raises:
            IndexCorrupt: a blob is missing, or fails its digest or its header's checks.
            StoreUnavailable: the store did not answer.
        """
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"{entry.id}-", dir=self._folder) as folder:
            rows_path = self._fetch(entry.rows_blob, Path(folder, "rows.arrow"))
            index_blob = entry.indexes[field].blob
            index_path = None if index_blob is None else self._fetch(index_blob, Path(folder, "index"))
            rows = open_rows(rows_path, entry.rows, schema)
            segment = open_segment(entry, schema.field(field), rows, index_path)
        load_ms = round((time.monotonic() - began) * 1_000, 3)
        logger.info(SEGMENT_LOADED, extra={"segment": entry.id, "field": field, "rows": entry.rows, "load_ms": load_ms})
        return segment

    def close(self) -> None:
        """Remove the folder. May come twice."""
        self._stack.close()

    def _fetch(self, ref: BlobRef, path: Path) -> Path:
        with path.open("wb") as file:
            copy_blob(self._store, ref, file)
        return path
