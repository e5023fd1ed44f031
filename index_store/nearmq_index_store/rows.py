"""The two Arrow files of a segment: its rows, and its primary keys in order.

`rows.arrow` is an Arrow IPC file, uncompressed, of one record batch: the primary key `id` (int64 or string), then each
vector field as FixedSizeList<float32>[dim], then each scalar field as `scalars.py` has it; only the nullable of those
have nulls. A segment that is older than a field of the schema has no column of it: its rows have null there. Opened it
is memory-mapped, and numpy sees the vectors in place. `keys.arrow` is another: the sorted primary
keys `id` and their row numbers `row` (uint32).
"""

import mmap
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nearmq_index_store.blobs.protocol import Buffer
from nearmq_index_store.distances import FloatMatrix, RowNumbers, row_blocks
from nearmq_index_store.errors import IndexCorrupt, InvalidArgument
from nearmq_index_store.scalars import BadValue, ScalarColumn, arrow_type, can_hold, no_scalars, to_scalars
from nearmq_index_store.schema import ID_COLUMN, PrimaryKey, ScalarField, Schema

#: Row numbers are stored as uint32.
MAX_ROWS = 2**32 - 1

#: int64 of shape (n,), or objects of str.
Ids = npt.NDArray[Any]

_ID_TYPES = {"int64": pa.int64(), "string": pa.string()}


@dataclass(frozen=True)
class Rows:
    """The rows of a segment: primary keys as an Arrow array, and by field name vectors and scalars.

    Attributes:
        by_field: float32 of shape (rows, dim).
    """

    keys: pa.Array
    by_field: Mapping[str, FloatMatrix]
    scalars: dict[str, ScalarColumn]

    def __len__(self) -> int:
        return len(self.keys)

    def widen(self, schema: Schema) -> None:
        """Give the rows null in the fields that the schema has got since they were opened."""
        if len(self.scalars) < len(schema.scalar_fields):
            for field in schema.scalar_fields:
                if field.name not in self.scalars:
                    self.scalars[field.name] = ScalarColumn(field, no_scalars(field, len(self)))

    @cached_property
    def primary_key(self) -> PrimaryKey:
        """The type of the primary key."""
        return "int64" if pa.types.is_int64(self.keys.type) else "string"

    @property
    def ids(self) -> Ids:
        """All primary keys by row number; a view for int64, made anew at every call for strings."""
        return self._integers if self.primary_key == "int64" else _strings(self.keys)

    def ids_at(self, rows: RowNumbers) -> Ids:
        """The primary keys of some rows, in the order of the row numbers."""
        if self.primary_key == "int64":  # an Arrow take costs as much as ranking a query's candidates
            return self._integers.take(rows)
        return _strings(self.keys.take(pa.array(rows)))

    @cached_property
    def _integers(self) -> Ids:
        return _numbers(self.keys)

    def vectors(self, field: str) -> FloatMatrix:
        """All vectors of a field as they were given, by row number."""
        return self.by_field[field]

    def column(self, name: str) -> pa.Array:
        """All values of a scalar field by row number; JSON as compact text."""
        return self.scalars[name].values

    def filtered_column(self, name: str) -> pa.Array:
        """All values of a scalar field, or of the primary key `id`, which filters may name too."""
        return self.keys if name == ID_COLUMN else self.column(name)

    def values_at(self, name: str, rows: RowNumbers, *, integers_as_text: bool = False) -> list[Any]:
        """The values of a scalar field in some rows, in the order of the row numbers, as `ScalarColumn.at` has them."""
        return self.scalars[name].at(rows, integers_as_text=integers_as_text)


def take_columns(table: pa.Table, schema: Schema) -> Rows:
    """View the columns of a table that is about to become a segment; a column in one chunk is not copied.

    Raises:
        InvalidArgument: no rows or too many, a column is missing or of another type, a value is null, NaN or infinite,
            or none that its scalar field can hold.
    """
    if not 1 <= len(table) <= MAX_ROWS:
        raise InvalidArgument(f"a segment has 1 to {MAX_ROWS} rows, got {len(table)}")
    plain = [_take_plain(table, name, kind) for name, kind in _plain_columns(schema).items()]
    rows = _view([*plain, *(_take_scalars(table, field) for field in schema.scalar_fields)], schema)
    for name, vectors in rows.by_field.items():
        _check_finite(vectors, name, rows)
    return rows


def write_rows(path: Path, rows: Rows, order: npt.NDArray[np.integer] | None) -> None:
    """Write `rows.arrow`, with the rows in another order when one is given (which takes a copy of them in memory)."""
    keys = rows.keys if order is None else rows.keys.take(pa.array(order))
    columns = {ID_COLUMN: keys}
    for name, vectors in rows.by_field.items():
        values = vectors if order is None else vectors[order]
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), vectors.shape[1])
    for name, column in rows.scalars.items():
        columns[name] = column.values if order is None else column.values.take(pa.array(order))
    nullable = {name for name, column in rows.scalars.items() if column.field.nullable}
    _write(path, columns, nullable)


def write_keys(path: Path, rows: Rows) -> tuple[int | str, int | str]:
    """Write `keys.arrow`, and return the smallest and the largest primary key.

    Raises:
        InvalidArgument: a primary key is there twice.
    """
    order = pc.sort_indices(rows.keys)
    ordered = rows.keys.take(order)
    repeated = pc.index(pc.equal(ordered[1:], ordered[:-1]), value=True).as_py()
    if repeated >= 0:
        raise InvalidArgument(f"primary key {ordered[repeated].as_py()!r} is there more than once", field=ID_COLUMN)
    _write(path, {ID_COLUMN: ordered, "row": order.cast(pa.uint32())})
    return ordered[0].as_py(), ordered[-1].as_py()


def open_rows(path: Path, rows: int, schema: Schema) -> Rows:
    """Map `rows.arrow`, whose digest was verified.

    Raises:
        IndexCorrupt: it is no such file, or has other columns or another number of rows than the manifest says.
    """
    return _read_rows(lambda: pa.memory_map(str(path)), rows, schema)


def view_rows(data: Buffer, rows: int, schema: Schema) -> Rows:
    """As `open_rows`, of a file that is mapped already."""
    return _read_rows(lambda: pa.BufferReader(pa.py_buffer(data)), rows, schema)


def map_rows(path: Path, rows: int, schema: Schema) -> tuple[Rows, mmap.mmap]:
    """As `open_rows`, with the map: told MADV_DONTNEED, what was read of it does not count as this process's memory."""
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return view_rows(memoryview(mapped), rows, schema), mapped


def _read_rows(open_file: Callable[[], pa.NativeFile], rows: int, schema: Schema) -> Rows:
    try:
        reader = pa.ipc.open_file(open_file())
        if reader.num_record_batches != 1:
            raise IndexCorrupt(f"rows have {reader.num_record_batches} record batches, not one")
        batch = reader.get_batch(0)
        batch.validate()
        found = dict(zip(batch.schema.names, batch.schema.types, strict=True))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last for the name of a column
        raise IndexCorrupt(f"rows cannot be read: {error}") from error
    if batch.num_rows != rows:
        raise IndexCorrupt(f"{batch.num_rows} rows in the file, {rows} in the manifest")
    nullable = {field.name for field in schema.scalar_fields if field.nullable}
    expected = _columns(schema)
    absent = nullable.difference(found)
    if list(found) != [name for name in expected if name not in absent] or not all(
        _same_type(kind, expected[name]) for name, kind in found.items()
    ):
        raise IndexCorrupt(f"rows have the columns {batch.schema.names} of types {batch.schema.types}")
    if any(batch.column(name).null_count for name in found if name not in nullable):
        raise IndexCorrupt("rows have nulls")
    columns = [pa.nulls(rows, kind) if name in absent else batch.column(name) for name, kind in expected.items()]
    return _view(columns, schema)


def _columns(schema: Schema) -> dict[str, pa.DataType]:
    return _plain_columns(schema) | {field.name: arrow_type(field) for field in schema.scalar_fields}


def _plain_columns(schema: Schema) -> dict[str, pa.DataType]:
    """Those without nulls: the primary key and the vectors."""
    columns = {ID_COLUMN: _ID_TYPES[schema.primary_key]}
    return columns | {field.name: pa.list_(pa.float32(), field.dim) for field in schema.vector_fields}


def _take_plain(table: pa.Table, name: str, kind: pa.DataType) -> pa.Array:
    column = _take(table, name)
    if not _same_type(column.type, kind):
        raise InvalidArgument(f"column {name!r} is {column.type}, the schema wants {kind}", field=name)
    if column.null_count:
        raise InvalidArgument(f"column {name!r} has {column.null_count} nulls", field=name)
    return column


def _take_scalars(table: pa.Table, field: ScalarField) -> pa.Array:
    column = _take(table, field.name)
    if not can_hold(field, column.type):
        raise InvalidArgument(
            f"column {field.name!r} is {column.type}, the schema wants {field.type}", field=field.name
        )
    try:
        return to_scalars(field, column)
    except BadValue as bad:
        raise InvalidArgument(
            f"row {bad.row}: field {field.name!r}: expected {bad.expected}, got {bad.got}", field=field.name
        ) from None


def _take(table: pa.Table, name: str) -> pa.Array:
    if name not in table.column_names:
        raise InvalidArgument(f"no column {name!r}, the table has {table.column_names}", field=name)
    column = table.column(name)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _same_type(found: pa.DataType, wanted: pa.DataType) -> bool:
    if not pa.types.is_fixed_size_list(wanted):
        return bool(found == wanted)
    # The name of the values' own field differs from writer to writer, and means nothing.
    return bool(
        pa.types.is_fixed_size_list(found)
        and found.list_size == wanted.list_size
        and found.value_type == wanted.value_type
    )


def _view(columns: list[pa.Array], schema: Schema) -> Rows:
    vectors, scalars = columns[1 : 1 + len(schema.vector_fields)], columns[1 + len(schema.vector_fields) :]
    return Rows(
        columns[0],
        {
            field.name: _numbers(column.flatten()).reshape(-1, field.dim)
            for field, column in zip(schema.vector_fields, vectors, strict=True)
        },
        {field.name: ScalarColumn(field, column) for field, column in zip(schema.scalar_fields, scalars, strict=True)},
    )


def _check_finite(vectors: FloatMatrix, field: str, rows: Rows) -> None:
    for block in row_blocks(vectors):
        finite = np.isfinite(vectors[block]).all(axis=1)
        if not finite.all():
            row = block.start + int(np.argmin(finite))
            raise InvalidArgument(
                f"row {row} (id {rows.keys[row].as_py()!r}) has NaN or infinity in field {field!r}", field=field
            )


def _write(path: Path, columns: Mapping[str, pa.Array], nullable: AbstractSet[str] = frozenset()) -> None:
    schema = pa.schema([pa.field(name, column.type, nullable=name in nullable) for name, column in columns.items()])
    batch = pa.RecordBatch.from_arrays(list(columns.values()), schema=schema)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(batch)


def _numbers(values: pa.Array) -> npt.NDArray[Any]:
    """See numbers, none of them null, in place; `to_numpy` imports pandas first, which takes up to a second."""
    return np.from_dlpack(values)


def _strings(keys: pa.Array) -> Ids:
    ids: Ids = keys.to_numpy(zero_copy_only=False)
    return ids
