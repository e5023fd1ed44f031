"""The way of a segment's blobs into memory: copied to files that are verified on the way, mapped, and opened.

No native library sees a byte that was not verified against the manifest (`spool_files.py`).
"""

import logging
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nearmq_index_store.blobs import BlobStore
from nearmq_index_store.indexes.flat import Flat
from nearmq_index_store.manifest import SegmentEntry
from nearmq_index_store.mapped import touch
from nearmq_index_store.rows import Rows, view_rows
from nearmq_index_store.schema import Schema
from nearmq_index_store.segment import Segment, open_segment
from nearmq_index_store.staging import staging_folder
from nearmq_worker.heap import trim_heap
from nearmq_worker.spool_files import SpoolFiles
from nearmq_worker.telemetry import SEGMENT_LOADED

logger = logging.getLogger(__name__)

#: Threads for what goes on beside the opening of rows: indexes are fetched, pages of rows touched.
_BESIDE = 4


class Spool:
    """Opens segments over files of a shared folder, or of one that is this process's own.

    Attributes:
        folder: for other files of this process; removed in the end.
    """

    def __init__(self, store: BlobStore, shared: Path | None, limit_bytes: int) -> None:
        """Take the store that is read.

        Args:
            shared: where files are kept for the next process; None: under the system's temporary folder, not kept.
            limit_bytes: of the files that are kept.

        Raises:
            InvalidArgument: others may write to the shared folder.
        """
        with ExitStack() as stack:
            if shared is None:
                self.folder = stack.enter_context(staging_folder(Path(tempfile.gettempdir())))
                self._files = SpoolFiles(store, self.folder / "blobs", limit_bytes)
            else:
                self._files = SpoolFiles(store, shared, limit_bytes)
                self.folder = stack.enter_context(staging_folder(shared))
            stack.callback(self._files.close)
            self._beside = ThreadPoolExecutor(_BESIDE, thread_name_prefix="nearmq-spool")
            stack.callback(self._beside.shutdown, wait=False, cancel_futures=True)
            self._stack = stack.pop_all()

    def open(self, entry: SegmentEntry, schema: Schema, field: str) -> Segment:
        """Fetch, verify and open one field of a segment.

        Raises:
            IndexCorrupt: a blob is missing, or fails its digest or its header's checks.
            StoreUnavailable: the store did not answer.
            ResourceExhausted: the disk of the spool is full.
        """
        with _opening(entry, field):
            blob = entry.indexes[field].blob
            index_file = None if blob is None else self._files.find(blob)
            fetched = None
            if blob is not None and index_file is None:
                fetched = self._beside.submit(self._files.map, blob)
            rows_file = self._files.map(entry.rows_blob)
            if entry.indexes[field].kind == Flat.name:  # the first search reads all rows
                self._beside.submit(touch, rows_file)
            rows = view_rows(rows_file, entry.rows, schema)
            if fetched is not None:
                index_file = fetched.result()
            return open_segment(entry, schema.field(field), rows, index_file)

    def open_rows(self, entry: SegmentEntry, schema: Schema) -> Rows:
        """Fetch, verify and open the rows of a segment without any index; errors are those of `open`."""
        with _opening(entry, None):
            return view_rows(self._files.map(entry.rows_blob), entry.rows, schema)

    def close(self) -> None:
        """End the threads, and remove the folder. May come twice."""
        self._stack.close()


@contextmanager
def _opening(entry: SegmentEntry, field: str | None) -> Iterator[None]:
    """Log how long the opening of a segment took, and give back the memory that it took besides."""
    began = time.monotonic()
    yield
    trim_heap()
    load_ms = round((time.monotonic() - began) * 1_000, 3)
    logger.info(SEGMENT_LOADED, extra={"segment": entry.id, "field": field, "rows": entry.rows, "load_ms": load_ms})
