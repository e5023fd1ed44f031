"""A collection in the spelling of Milvus 2.x."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Self

from nearmq.arguments import Vectors
from nearmq.collection import Collection as NearmqCollection
from nearmq.collection import SearchOptions
from nearmq.errors import InvalidArgument
from nearmq.jobs import ExprValue
from nearmq.milvus.connections import DEFAULT_ALIAS, connections
from nearmq.milvus.results import MutationResult, QueryIterator, SearchFuture, SearchResult, as_dicts
from nearmq.milvus.rows import Columns, Data, as_columns
from nearmq.milvus.search_param import options_of
from nearmq.row_arguments import MAX_ROWS

#: Milvus's consistency levels; each is satisfied, since a search reads what was committed before it was taken up.
CONSISTENCY_LEVELS = ("Strong", "Session", "Bounded", "Eventually")

_COUNT = "count(*)"


class Collection:
    """A collection in Milvus 2.x's spelling."""

    def __init__(self, name: str, using: str = DEFAULT_ALIAS) -> None:
        self._collection = connections.client(using).collection(name)

    @classmethod
    def of(cls, collection: NearmqCollection) -> Self:
        """Spell a collection of a nearmq client as Milvus does."""
        spelled = cls.__new__(cls)
        spelled._collection = collection  # noqa: SLF001  its own
        return spelled

    @property
    def name(self) -> str:
        """The collection's name."""
        return self._collection.name

    @property
    def num_entities(self) -> int:
        """How many rows there are; deleted ones are none."""
        return self._collection.count()

    @property
    def is_empty(self) -> bool:
        """Whether there is no row."""
        return self.num_entities == 0

    def load(self, partition_names: Sequence[str] | None = None, timeout: float | None = None) -> None:
        """Load the collection, or these partitions, on every live worker."""
        self._collection.load(partition_names, timeout_s=timeout)

    def release(self, timeout: float | None = None) -> None:
        """Free the collection's memory on every live worker."""
        self._collection.release(timeout_s=timeout)

    def flush(self, timeout: float | None = None) -> None:
        """Do nothing: a write that was answered is committed."""

    def compact(self, timeout: float | None = None) -> None:
        """Merge small segments and drop deleted rows, as workers do by themselves."""
        self._collection.compact(timeout_s=timeout)

    def insert(self, data: Data, partition_name: str | None = None, timeout: float | None = None) -> MutationResult:
        """Add rows: dicts by field name, the primary key as `id`; or columns, in the order id, vectors, scalars.

        Unlike Milvus's, an insert of an id that is there fails with AlreadyExists, and adds nothing.
        """
        rows = self._columns(data)
        written = self._collection.insert(
            rows.ids, rows.vectors, rows.fields, partition_name=partition_name, timeout_s=timeout
        )
        return MutationResult(insert_count=written.inserted, primary_keys=rows.ids, timestamp=written.version)

    def upsert(self, data: Data, partition_name: str | None = None, timeout: float | None = None) -> MutationResult:
        """Write rows as `insert` takes them, replacing those whose id is there."""
        rows = self._columns(data)
        written = self._collection.upsert(
            rows.ids, rows.vectors, rows.fields, partition_name=partition_name, timeout_s=timeout
        )
        count = written.inserted + written.replaced
        return MutationResult(upsert_count=count, primary_keys=rows.ids, timestamp=written.version)

    def delete(
        self,
        expr: str,
        partition_name: str | None = None,
        timeout: float | None = None,
        *,
        expr_params: Mapping[str, ExprValue] | None = None,
    ) -> MutationResult:
        """Delete the rows for which an expression is true, such as `id in [7, 9]`."""
        written = self._collection.delete(
            expr=expr, expr_params=expr_params, partition_name=partition_name, timeout_s=timeout
        )
        return MutationResult(delete_count=written.deleted, timestamp=written.version)

    def query(
        self,
        expr: str | None = None,
        output_fields: Sequence[str] | None = None,
        partition_names: Sequence[str] | None = None,
        timeout: float | None = None,
        *,
        limit: int | None = None,
        offset: int = 0,
        expr_params: Mapping[str, ExprValue] | None = None,
        consistency_level: str | None = None,
    ) -> list[dict[str, Any]]:
        """Return rows as dicts, at most 16,384; `output_fields=["count(*)"]` counts them instead."""
        _check_consistency(consistency_level)
        if output_fields is not None and list(output_fields) == [_COUNT]:
            count = self._collection.count(
                expr or None, expr_params=expr_params, partition_names=partition_names or None, timeout_s=timeout
            )
            return [{_COUNT: count}]
        rows = self._collection.query(
            expr or None,
            limit=MAX_ROWS if limit is None else limit,
            offset=offset,
            expr_params=expr_params,
            output_fields=self.all_fields(output_fields),
            partition_names=partition_names or None,
            timeout_s=timeout,
        )
        return as_dicts(rows)

    def query_iterator(  # noqa: PLR0917  Milvus's own signature
        self,
        batch_size: int = 1_000,
        limit: int | None = -1,
        expr: str | None = None,
        output_fields: Sequence[str] | None = None,
        partition_names: Sequence[str] | None = None,
        timeout: float | None = None,
        *,
        expr_params: Mapping[str, ExprValue] | None = None,
        consistency_level: str | None = None,
    ) -> QueryIterator:
        """Return an iterator over rows as dicts, in batches and of one version throughout; limit -1 is none."""
        _check_consistency(consistency_level)
        batches = self._collection.iterate(
            expr or None,
            batch_size=batch_size,
            limit=None if limit is None or limit < 0 else limit,
            expr_params=expr_params,
            output_fields=self.all_fields(output_fields),
            partition_names=partition_names or None,
            timeout_s=timeout,
        )
        return QueryIterator(batches)

    def search(  # noqa: PLR0917  Milvus's own signature
        self,
        data: Vectors,
        anns_field: str | None = None,
        param: Mapping[str, Any] | None = None,
        limit: int = 10,
        expr: str | None = None,
        partition_names: Sequence[str] | None = None,
        output_fields: Sequence[str] | None = None,
        timeout: float | None = None,
        round_decimal: int = -1,
        *,
        offset: int = 0,
        group_by_field: str | None = None,
        group_size: int = 1,
        expr_params: Mapping[str, ExprValue] | None = None,
        consistency_level: str | None = None,
        _async: bool = False,
        _callback: Callable[[SearchResult], None] | None = None,
    ) -> SearchResult | SearchFuture:
        """Search as `nearmq.Collection.search` does; `_async=True` returns a SearchFuture at once.

        `param` may hold `offset` beside `params`, and `radius` and `range_filter` in them, as Milvus has it; what it
        holds goes before the arguments of the same name.
        """
        _check_consistency(consistency_level)
        options: SearchOptions = {
            "field": anns_field or None,
            "limit": limit,
            "offset": offset,
            "expr": expr or None,
            "expr_params": expr_params,
            "partition_names": partition_names or None,
            "output_fields": output_fields or None,
            "round_decimal": round_decimal,
            "group_by_field": group_by_field,
            "group_size": group_size,
            "timeout_s": timeout,
        }
        future = self._collection.submit(data, **(options | options_of(param)))
        if _async or _callback is not None:
            return SearchFuture(future, _callback)
        return SearchResult(future.result())

    def _columns(self, data: Data) -> Columns:
        return as_columns(data, self._vector_fields, self._scalar_fields)

    def all_fields(self, names: Sequence[str] | None) -> list[str] | None:
        """Return the names, with those of the vector fields where `*` stands, which is all fields in Milvus."""
        if not names:
            return None
        return [*names, *self._vector_fields] if "*" in names else list(names)

    @cached_property
    def _vector_fields(self) -> list[str]:
        """Their names, which never change."""
        return [field["name"] for field in self._collection.describe()["vector_fields"]]

    def _scalar_fields(self) -> list[str]:
        return [field["name"] for field in self._collection.describe()["scalar_fields"]]


def _check_consistency(level: str | None) -> None:
    if level is not None and level not in CONSISTENCY_LEVELS:
        raise InvalidArgument(
            f"consistency_level is {level!r}, allowed are {', '.join(CONSISTENCY_LEVELS)}", field="consistency_level"
        )
