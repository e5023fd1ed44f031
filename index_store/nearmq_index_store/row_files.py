"""The rows of segments out of the store, each fetched into a file, verified on the way, mapped, and unlinked."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nearmq_index_store.blobs.protocol import BlobStore
from nearmq_index_store.digest import copy_blob
from nearmq_index_store.manifest import Manifest, SegmentEntry
from nearmq_index_store.rows import Rows, open_rows


class RowFiles:
    """Fetches the rows of a segment anew at each use; a worker gives the segments that it has in memory instead.

    Args:
        folder: for the file, which needs no space once it is closed; made when it is missing.
    """

    def __init__(self, store: BlobStore, folder: Path) -> None:
        self._store = store
        self._folder = folder

    @contextmanager
    def use(self, manifest: Manifest, entry: SegmentEntry) -> Iterator[Rows]:
        """Give the rows of a segment, of a collection at a version.

        Raises:
            IndexCorrupt: the blob is missing, fails its digest, or is not what the entry says.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix="nearmq-rows-") as file:
            copy_blob(self._store, entry.rows_blob, file)  # type: ignore[arg-type]  # typeshed's wrapper is no BinaryIO
            file.flush()
            rows = open_rows(Path(file.name), entry.rows, manifest.schema)
        yield rows
