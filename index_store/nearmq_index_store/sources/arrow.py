"""Files of Arrow columns: .parquet, one or a folder of them, and .arrow in the IPC file or stream format."""

import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nearmq_index_store.sources.files import SourceFile

_IPC_FILE_MAGIC = b"ARROW1"

#: Read from a Parquet file at a time and column.
_PARQUET_BUFFER_BYTES = 1 << 20


class ParquetReader:
    """A TableReader of one Parquet file."""

    kind = "Parquet"

    def __init__(self, file: SourceFile) -> None:
        self.file = file

    def schema(self) -> pa.Schema:
        """The columns, as the file's footer has them."""
        return pq.read_schema(self.file.path)

    def read(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Read columns in batches."""
        # Buffered and not read ahead, so that a large row group is streamed too.
        with pq.ParquetFile(self.file.path, pre_buffer=False, buffer_size=_PARQUET_BUFFER_BYTES) as file:
            yield from file.iter_batches(batch_size=rows, columns=list(columns), use_threads=False)


class ParquetFolderReader:
    """A TableReader of the Parquet files of a folder, such as an export's, by the order of their names."""

    kind = "Parquet"

    def __init__(self, folder: Path) -> None:
        """Look for the files.

        Raises:
            pa.ArrowInvalid: there is none.
        """
        self._parts = [ParquetReader(SourceFile.at(path)) for path in sorted(folder.glob("*.parquet"))]
        identity = "; ".join(f"{part.file.path.name} of {part.file.identity}" for part in self._parts)
        self.file = SourceFile(path=folder, shown=folder, identity=identity)

    def schema(self) -> pa.Schema:
        """The columns, which all files must have alike."""
        if not self._parts:
            raise pa.ArrowInvalid("the folder has no file that ends in .parquet")
        first, *others = self._parts
        found = first.schema()
        for part in others:
            if not part.schema().equals(found):
                raise pa.ArrowInvalid(f"{part.file.path.name} has other columns than {first.file.path.name}")
        return found

    def read(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Read columns of one file after the other."""
        for part in self._parts:
            yield from part.read(columns, rows)


class IpcReader:
    """A TableReader of an Arrow file, memory-mapped."""

    kind = "Arrow IPC"

    def __init__(self, file: SourceFile) -> None:
        self.file = file

    def schema(self) -> pa.Schema:
        """The columns, as the file's beginning or end has them."""
        return _open(_map(self.file.path)).schema

    def read(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Read columns in batches, which are views of the file."""
        mapped = _map(self.file.path)
        for batch in _batches(_open(mapped)):
            wanted = batch.select(list(columns))
            for start in range(0, batch.num_rows, rows):
                yield wanted.slice(start, rows)
                # What was read is in the page cache; mapped on, it would count as this process's memory.
                mapped.madvise(mmap.MADV_DONTNEED)


def _batches(reader: pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.ipc.RecordBatchStreamReader):
        yield from reader
        return
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number)


def _open(mapped: mmap.mmap) -> pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader:
    buffer = pa.BufferReader(pa.py_buffer(mapped))
    is_file = mapped[: len(_IPC_FILE_MAGIC)] == _IPC_FILE_MAGIC
    return pa.ipc.open_file(buffer) if is_file else pa.ipc.open_stream(buffer)


def _map(path: Path) -> mmap.mmap:
    """Map a file; unmapped when the last array over it is gone."""
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise pa.ArrowInvalid("the file is empty")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
