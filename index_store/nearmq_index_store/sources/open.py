"""From a file's name to its source."""

from pathlib import Path

import msgspec

from nearmq_index_store.errors import InvalidArgument
from nearmq_index_store.schema import Schema
from nearmq_index_store.sources.arrow import IpcReader, ParquetFolderReader, ParquetReader
from nearmq_index_store.sources.csv import CsvReader
from nearmq_index_store.sources.files import SourceFile
from nearmq_index_store.sources.json_lines import JsonLinesReader
from nearmq_index_store.sources.npy import Matrix, MatrixAndTableSource, MatrixSource
from nearmq_index_store.sources.protocol import Source
from nearmq_index_store.sources.table import TableReader, TableSource

#: Endings of the names of tables.
TABLE_ENDINGS = (".parquet", ".arrow", ".csv", ".jsonl", ".ndjson")


def open_source(
    file: Path | SourceFile,
    schema: Schema,
    *,
    ids_path: Path | None = None,
    first_id: int | None = None,
    fields_path: Path | None = None,
) -> Source:
    """Open a file of rows for a collection of this schema, by the ending of its name, or a folder of Parquet files.

    Args:
        ids_path: the primary keys of a .npy file, in another.
        first_id: the primary key of the first row of a .npy file without ids; 0 when None.
        fields_path: a table of the scalars of a .npy file's rows, in the same order, and perhaps of their ids.

    Raises:
        InvalidArgument: an unknown ending, an option that the kind of file does not have, or what the source finds.
        DimensionMismatch: the file's vectors have another dim than their field.
    """
    found = SourceFile.at(file) if isinstance(file, Path) else file
    if ids_path is not None and first_id is not None:
        raise InvalidArgument("ids come from a file or are numbered from the first, expected one of them", field="ids")
    if found.path.suffix != ".npy" or found.path.is_dir():
        if ids_path is not None or first_id is not None:
            raise InvalidArgument(f"{found.shown}: its ids are its column 'id', expected no other", field="ids")
        if fields_path is not None:
            raise InvalidArgument(f"{found.shown}: its scalars are its columns, expected no other", field="fields")
        return TableSource(_open_table(found, schema), schema)
    ids_file = None if ids_path is None else SourceFile.at(ids_path)
    matrix = Matrix(found, schema, ids_file=ids_file, first_id=first_id)
    if fields_path is None:
        return MatrixSource(matrix, schema)
    scalars = msgspec.structs.replace(schema, vector_fields=())
    return MatrixAndTableSource(matrix, _open_table(SourceFile.at(fields_path), scalars), schema)


def _open_table(file: SourceFile, schema: Schema) -> TableReader:
    if file.path.is_dir():
        return ParquetFolderReader(file.path)
    match file.path.suffix:
        case ".parquet":
            return ParquetReader(file)
        case ".arrow":
            return IpcReader(file)
        case ".csv":
            return CsvReader(file, schema)
        case ".jsonl" | ".ndjson":
            return JsonLinesReader(file, schema)
    endings = ", ".join((".npy", *TABLE_ENDINGS[:-1]))
    raise InvalidArgument(
        f"{file.shown}: expected a folder of Parquet files, or a name that ends in {endings} or {TABLE_ENDINGS[-1]}",
        field="file",
    )
