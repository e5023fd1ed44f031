"""What writes and reads of rows give back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, overload

from nearmq.errors import Internal
from nearmq.jobs import FloatMatrix, Reply
from nearmq.stored_rows import Ids, read_rows

#: The key of the primary key in a row as a dict.
ID = "id"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteResult:
    """The answer to one write.

    Attributes:
        version: the first version that has the write; a search with `min_version` of it sees it.
        job_id: the id under which the job was published.
        inserted: rows whose id was not there.
        replaced: rows whose id was there; of an upsert.
        deleted: rows that were deleted.
        slowdown_ms: how long the worker waits before it takes the collection's next writes, because compaction lags; 0
            where it does not.
    """

    version: int
    job_id: str
    inserted: int = 0
    replaced: int = 0
    deleted: int = 0
    slowdown_ms: float = 0.0

    @classmethod
    def of(cls, reply: Reply) -> Self:
        """Read the reply to an upsert, insert or delete."""
        result = reply.result or {}
        counts = {name: result.get(name, 0) for name in ("inserted", "replaced", "deleted", "slowdown_ms")}
        return cls(version=reply.version or result.get("version", 0), job_id=reply.job_id, **counts)


class Rows(Sequence[Row]):
    """Rows of a collection, as columns, or one by one as dicts such as `{"id": 7, "year": 1999}`.

    Attributes:
        ids: shape (rows,); int64, or str objects where the collection's primary key is string.
        fields: of each scalar output field the list of its values.
        vectors: of each vector output field its vectors, float32 of shape (rows, dim).
        version: the collection's version that was read.
    """

    __slots__ = ("fields", "ids", "vectors", "version")

    def __init__(
        self, ids: Ids, fields: dict[str, list[Any]], vectors: dict[str, FloatMatrix], *, version: int
    ) -> None:
        self.ids = ids
        self.fields = fields
        self.vectors = vectors
        self.version = version

    @classmethod
    def of(cls, reply: Reply) -> Self:
        """Read the reply to a get or query.

        Raises:
            Internal: it is none that this release knows.
        """
        try:
            return cls(*read_rows(reply.result or {}), version=reply.version or 0)
        except (KeyError, TypeError, ValueError) as error:
            raise Internal(f"the rows of the reply cannot be read: {error}") from error

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self._row(number) for number in range(*index.indices(len(self)))]
        return self._row(range(len(self))[index])

    def __iter__(self) -> Iterator[Row]:
        return map(self._row, range(len(self)))

    def __repr__(self) -> str:
        return f"Rows({len(self)} rows, fields={[*self.fields, *self.vectors]}, version={self.version})"

    def _row(self, number: int) -> Row:
        columns: dict[str, Any] = {**self.fields, **self.vectors}
        return {ID: self.ids[number : number + 1].tolist()[0]} | {
            name: column[number] for name, column in columns.items()
        }
