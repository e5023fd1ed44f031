"""The rows that the jobs of one commit add, of which the last of each key stays."""

from collections.abc import Iterable, Iterator
from itertools import groupby

import numpy as np
import pyarrow as pa

from nearmq_index_store.distances import RowNumbers
from nearmq_index_store.filters import Filter
from nearmq_index_store.schema import ID_COLUMN, Schema
from nearmq_index_store.sources.protocol import Batch

#: A row's place in one number: the batch, times 2^32, plus the row in it.
_ROW_BITS = 32
_ROW_MASK = (1 << _ROW_BITS) - 1


class NewRows:
    """Batches of rows, in the order of the jobs that gave them."""

    def __init__(self) -> None:
        self._batches: list[tuple[Batch, str]] = []  # each with its partition
        self._sources: list[object] = []
        self._places: dict[int | str, int] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: int | str) -> bool:
        return key in self._places

    def has_any(self, keys: Iterable[int | str]) -> set[int | str]:
        """Return those of some keys that rows have."""
        return self._places.keys() & set(keys)

    def put(self, batch: Batch, partition: str, source: object) -> None:
        """Add rows of distinct keys, each in the place of the one that had its key before.

        Args:
            source: what the batch was made of; the same object makes the same batch for the same schema.
        """
        first = len(self._batches) << _ROW_BITS
        self._batches.append((batch, partition))
        self._sources.append(source)
        self._places.update(zip(batch.ids.to_pylist(), range(first, first + len(batch.ids)), strict=True))

    def delete(self, keys: Iterable[int | str], partition: str | None = None) -> int:
        """Take back the rows of some keys, in a partition or in all; return how many there were."""
        gone = [key for key in self.has_any(keys) if partition in {None, self._partition_of(key)}]
        for key in gone:
            del self._places[key]
        return len(gone)

    def delete_where(self, condition: Filter, partition: str | None = None) -> int:
        """Take back the rows that a filter allows; return how many there were."""
        count = 0
        for number, (batch, own) in enumerate(self._batches):
            if partition in {None, own}:
                columns = {ID_COLUMN: batch.ids, **batch.scalars}
                mask = condition.mask(columns.__getitem__, len(batch.ids))
                keys = batch.ids.filter(pa.array(mask)).to_pylist()
                count += self.delete(key for key in keys if self._batch_of(key) == number)
        return count

    def drop_partition(self, partition: str) -> int:
        """Take back all rows of a partition; return how many there were."""
        return self.delete(list(self._places), partition)

    def selection(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """All that decides what `tables` gives for a schema, as long as the sources live."""
        return tuple(map(id, self._sources)), tuple(self._places.values())

    def tables(self, schema: Schema) -> Iterator[tuple[str, pa.Table]]:
        """Return by partition the rows as a table of all columns of the schema."""
        places = np.sort(np.fromiter(self._places.values(), np.int64, len(self._places)))
        batches, rows = places >> _ROW_BITS, places & _ROW_MASK
        used = sorted(set(batches.tolist()), key=lambda number: (self._batches[number][1], number))
        for partition, numbers in groupby(used, key=lambda number: self._batches[number][1]):
            yield (
                partition,
                pa.concat_tables(
                    _table(self._batches[number][0], rows[batches == number], schema) for number in numbers
                ).combine_chunks(),
            )

    def _partition_of(self, key: int | str) -> str:
        return self._batches[self._places[key] >> _ROW_BITS][1]

    def _batch_of(self, key: int | str) -> int:
        place = self._places.get(key)
        return -1 if place is None else place >> _ROW_BITS


def _table(batch: Batch, rows: RowNumbers, schema: Schema) -> pa.Table:
    is_all = len(rows) == len(batch.ids)
    columns = {ID_COLUMN: batch.ids, **batch.scalars}
    if not is_all:
        columns = {name: column.take(pa.array(rows)) for name, column in columns.items()}
    for field in schema.vector_fields:
        vectors = batch.vectors[field.name] if is_all else batch.vectors[field.name][rows]
        columns[field.name] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), field.dim)
    return pa.table(columns)
