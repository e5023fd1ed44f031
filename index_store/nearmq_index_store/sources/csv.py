"""Comma-separated values: a header that names the columns, and cells that the collection's schema gives a type.

Nothing is guessed from the values: an id of digits stays text where the keys are strings. An empty cell is null; a
quoted empty one is the empty text.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

import pyarrow as pa
import pyarrow.csv as pa_csv

from nearmq_index_store.schema import ID_COLUMN, Schema
from nearmq_index_store.sources.cells import column_types, parse_cells
from nearmq_index_store.sources.checks import is_only_field
from nearmq_index_store.sources.files import SourceFile

#: Read and parsed at a time, with some 32 read ahead; a row must fit.
_BLOCK_BYTES = 2 << 20

#: The text of one number of a vector, with what is between it and the next.
_NUMBER_BYTES = 24


class CsvReader:
    """A TableReader of a .csv file; vectors and arrays are cells of lists such as "[0.5, 1]"."""

    kind = "CSV"

    def __init__(self, file: SourceFile, schema: Schema) -> None:
        self.file = file
        self._collection_schema = schema

    def schema(self) -> pa.Schema:
        """The columns of the header, in the types of the collection's fields; an unknown one is text."""
        types = column_types(self._collection_schema)
        if is_only_field(self._header, self._collection_schema):
            types |= {
                name: types[self._collection_schema.field_names()[0]] for name in self._header if name != ID_COLUMN
            }
        return pa.schema([(name, types.get(name, pa.string())) for name in self._header])

    def read(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Read columns in batches."""
        wanted = [(name, self.schema().field(name).type) for name in columns]
        first_row = 0
        with pa_csv.open_csv(
            self.file.path,
            read_options=self._read_options(),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(self._header, pa.string()),
                include_columns=list(columns),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        ) as blocks:
            for block in blocks:
                for start in range(0, block.num_rows, rows):
                    texts = block.slice(start, rows)
                    yield pa.record_batch(
                        {
                            name: parse_cells(self.file.shown, first_row, texts.column(name), name, kind)
                            for name, kind in wanted
                        }
                    )
                    first_row += texts.num_rows

    def _read_options(self) -> pa_csv.ReadOptions:
        row_bytes = _NUMBER_BYTES * sum(field.dim for field in self._collection_schema.vector_fields)
        return pa_csv.ReadOptions(block_size=max(_BLOCK_BYTES, 2 * row_bytes), use_threads=False)

    @cached_property
    def _header(self) -> list[str]:
        with pa_csv.open_csv(self.file.path, read_options=self._read_options()) as blocks:
            return list(blocks.schema.names)
