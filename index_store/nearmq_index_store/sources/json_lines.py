"""JSON Lines: one object a row, with the keys `id` and the names of the fields; empty lines are no rows.

Each value is decoded to its field's type at once: a number is no text, `true` is no number, and 1.5 is no int64. A key
with null is the same as none.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from nearmq_index_store.errors import InvalidArgument
from nearmq_index_store.schema import ID_COLUMN, Schema
from nearmq_index_store.sources.cells import column_types, json_type, to_lists
from nearmq_index_store.sources.checks import bad_value, hint
from nearmq_index_store.sources.files import SourceFile

#: The longest line; a row of 8 fields of 32,768 dimensions has some 5 MB.
MAX_LINE_BYTES = 64 << 20

#: Lines decoded at a time, in bytes; their numbers as Python has them take twice that.
_BLOCK_BYTES = 8 << 20

_NULL = msgspec.Raw(b"null")


class JsonLinesReader:
    """A TableReader of a .jsonl or .ndjson file."""

    kind = "JSON Lines"

    def __init__(self, file: SourceFile, schema: Schema) -> None:
        self.file = file
        self._types = column_types(schema)
        self._json = {field.name for field in schema.scalar_fields if field.type == "json"}
        self._nullable = {field.name for field in schema.scalar_fields if field.nullable}
        self._expected = {ID_COLUMN: str(schema.primary_key)}
        self._expected |= {field.name: f"{field.dim} numbers" for field in schema.vector_fields}
        self._expected |= {field.name: field.type for field in schema.scalar_fields}

    def schema(self) -> pa.Schema:
        """All columns that the collection has, without `id` when the first row has none."""
        first = next((self._object(row, line) for row, line in self._lines()), {ID_COLUMN: None})
        return pa.schema([(name, kind) for name, kind in self._types.items() if name != ID_COLUMN or name in first])

    def read(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Read columns in batches; an unknown key is refused where all columns are read."""
        decoder = msgspec.json.Decoder(self._row_type(columns))
        for block in self._blocks(rows):
            decoded = [self._decode(decoder, columns, row, line) for row, line in block]
            yield pa.record_batch(
                {
                    name: self._column(block[0][0], name, [getattr(row, _attribute(place)) for row in decoded])
                    for place, name in enumerate(columns)
                }
            )

    def _row_type(self, columns: Sequence[str]) -> type[msgspec.Struct]:
        """A row as a Struct; the names of fields are not always names in Python."""
        names = {_attribute(place): name for place, name in enumerate(columns)}
        fields = [(attribute, self._value_type(name), *self._default(name)) for attribute, name in names.items()]
        is_whole = set(self._types) <= {ID_COLUMN, *columns}
        return msgspec.defstruct("Row", fields, rename=names, kw_only=True, forbid_unknown_fields=is_whole)

    def _value_type(self, name: str) -> Any:
        if name in self._json:
            return msgspec.Raw
        value = json_type(self._types[name])
        return value | None if name in self._nullable else value

    def _default(self, name: str) -> tuple[Any, ...]:
        if name in self._json:
            return (_NULL,)
        return (None,) if name in self._nullable else ()

    def _blocks(self, rows: int) -> Iterator[list[tuple[int, bytes]]]:
        """Gather numbered lines."""
        block: list[tuple[int, bytes]] = []
        held = 0
        for row, line in self._lines():
            block.append((row, line))
            held += len(line)
            if len(block) == rows or held >= _BLOCK_BYTES:
                yield block
                block, held = [], 0
        if block:
            yield block

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        row = 0
        with self.file.path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                if len(line) > MAX_LINE_BYTES:
                    raise InvalidArgument(
                        f"{self.file.shown}: row {row}: expected a line of at most {MAX_LINE_BYTES} bytes", field="file"
                    )
                if not line.isspace():
                    yield row, line
                    row += 1

    def _decode(self, decoder: msgspec.json.Decoder[Any], columns: Sequence[str], row: int, line: bytes) -> Any:
        try:
            return decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._refusal(columns, row, line, error) from None

    def _refusal(self, columns: Sequence[str], row: int, line: bytes, error: Exception) -> InvalidArgument:
        """Find what is wrong with a line."""
        found = self._object(row, line)
        unknown = next((name for name in found if name not in self._types), None)
        if unknown is not None:
            known = hint(unknown, self._types) or f", expected {', '.join(map(repr, self._types))}"
            return InvalidArgument(f"{self.file.shown}: row {row}: key {unknown!r} is unknown{known}", field=unknown)
        for name in set(columns) - self._json:
            try:
                msgspec.convert(found.get(name), self._value_type(name))
            except msgspec.ValidationError:
                got = f"{msgspec.json.encode(found[name]).decode():.80}" if name in found else "nothing"
                return bad_value(self.file.shown, row, name, self._expected[name], got)
        return InvalidArgument(f"{self.file.shown}: row {row}: {error}", field="file")

    def _object(self, row: int, line: bytes) -> dict[str, Any]:
        try:
            found = msgspec.json.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise self._no_object(row, line, f" ({error})") from None
        if not isinstance(found, dict):
            raise self._no_object(row, line, "")
        return found

    def _no_object(self, row: int, line: bytes, why: str) -> InvalidArgument:
        shown = line[:80].decode(errors="replace").rstrip()
        return InvalidArgument(
            f"{self.file.shown}: row {row}: expected a JSON object, got {shown!r}{why}", field="file"
        )

    def _column(self, first_row: int, name: str, values: list[Any]) -> pa.Array:
        wanted = self._types[name]
        if name in self._json:
            return pa.array([self._text(first_row + place, name, raw) for place, raw in enumerate(values)], wanted)
        return to_lists(values, wanted) if pa.types.is_list(wanted) else pa.array(values, wanted)

    def _text(self, row: int, name: str, raw: msgspec.Raw) -> str | None:
        try:
            text = bytes(raw).decode()
        except UnicodeDecodeError as error:
            raise bad_value(self.file.shown, row, name, "UTF-8", f"{error.object[:80]!r}") from None
        return None if text == "null" else text


def _attribute(place: int) -> str:
    return f"column_{place}"
