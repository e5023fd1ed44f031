"""From a file's name to its source."""

from pathlib import Path

from nearmq_index_store.errors import InvalidArgument
from nearmq_index_store.schema import Schema
from nearmq_index_store.sources.arrow import ArrowSource
from nearmq_index_store.sources.npy import NpySource
from nearmq_index_store.sources.protocol import Source


def open_source(path: Path, schema: Schema, *, ids_path: Path | None = None, first_id: int | None = None) -> Source:
    """Open a file of rows for a collection of this schema, by the ending of its name.

    Args:
        ids_path: the primary keys of a .npy file, in another.
        first_id: the primary key of the first row of a .npy file without ids; 0 when None.

    Raises:
        InvalidArgument: an unknown ending, an option that the kind of file does not have, or what the source finds.
        DimensionMismatch: the file's vectors have another dim than their field.
    """
    if ids_path is not None and first_id is not None:
        raise InvalidArgument("ids come from a file or are numbered from the first, expected one of them", field="ids")
    match path.suffix:
        case ".npy":
            return NpySource(path, schema, ids_path=ids_path, first_id=first_id or 0)
        case ".parquet" | ".arrow":
            if ids_path is not None or first_id is not None:
                raise InvalidArgument(f"{path}: its ids are its column 'id', expected no other", field="ids")
            return ArrowSource(path, schema)
    raise InvalidArgument(f"{path}: expected a name that ends in .npy, .parquet or .arrow", field="file")
