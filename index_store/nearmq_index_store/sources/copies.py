"""What can be read only once, a pipe or an object of the Arrow PyCapsule interface, as a file to be read again."""

import shutil
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from nearmq_index_store.errors import InvalidArgument
from nearmq_index_store.sources.files import SourceFile

#: Copied from a pipe at a time, and looked at for what it is.
_BLOCK_BYTES = 1 << 20

_BEGINNINGS = {b"\x93NUMPY": ".npy", b"PAR1": ".parquet", b"ARROW1": ".arrow", b"\xff\xff\xff\xff": ".arrow"}


def copy_pipe(pipe: BinaryIO, folder: Path) -> SourceFile:
    """Copy a pipe to its end into a folder; its first bytes say of what kind it is.

    Text that begins with `{` is JSON Lines, other text is CSV.

    Raises:
        InvalidArgument: the pipe is empty.
    """
    first = pipe.read(_BLOCK_BYTES)
    if not first:
        raise InvalidArgument("standard input is empty, expected rows", field="file")
    path = folder / f"stdin{_ending(first)}"
    with path.open("xb") as file:
        file.write(first)
        shutil.copyfileobj(pipe, file, _BLOCK_BYTES)
    return SourceFile.copied(path, "-")


def copy_table(table: Any, folder: Path) -> SourceFile:
    """Copy a table into a folder as an Arrow file, one record batch at a time.

    Args:
        table: has `__arrow_c_stream__` or `__arrow_c_array__`: a Table, RecordBatch or RecordBatchReader of pyarrow, or
            a frame of polars, pandas, DuckDB and others. A stream is read to its end.

    Raises:
        InvalidArgument: it is no such object, or its stream fails.
    """
    shown = f"<{type(table).__name__}>"
    path = folder / "table.arrow"
    try:
        reader = _open(table)
        plain = pa.schema([(field.name, _plain(field.type)) for field in reader.schema])
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, plain) as writer:
            for batch in reader:
                writer.write_batch(batch.cast(plain))
    except pa.ArrowException as error:
        raise InvalidArgument(f"{shown}: cannot be read as an Arrow table: {error}", field="table") from error
    return SourceFile.copied(path, shown)


def _open(table: Any) -> pa.RecordBatchReader:
    if hasattr(table, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(table)
    if hasattr(table, "__arrow_c_array__"):
        batch = pa.record_batch(table)
        return pa.RecordBatchReader.from_batches(batch.schema, [batch])
    raise InvalidArgument(
        f"expected an object of the Arrow PyCapsule interface, got {type(table).__name__}", field="table"
    )


def _plain(found: pa.DataType) -> pa.DataType:
    """A type that rows are imported from, for one that only says how the same values lie in memory."""
    if pa.types.is_dictionary(found):
        return _plain(found.value_type)
    if pa.types.is_string_view(found):
        return pa.large_string()
    if pa.types.is_list(found) or pa.types.is_large_list(found):
        kind = pa.list_ if pa.types.is_list(found) else pa.large_list
        return kind(_plain(found.value_type))
    return found


def _ending(first: bytes) -> str:
    for beginning, ending in _BEGINNINGS.items():
        if first.startswith(beginning):
            return ending
    return ".jsonl" if first.lstrip().startswith(b"{") else ".csv"
