"""The hits of a search as an Arrow table or a Parquet file; needs pyarrow, the extra `parquet`.

One row a hit, nearest first within a query: `query_id` (int64, the query's number), `rank` (int32, from 1), `id` (int64
or string), `distance` (float32), then the output fields, JSON as text. The metadata key `nearmq` holds JSON with the
metric, the version that was searched, and the number of queries: one without hits has no row.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import orjson

from nearmq.errors import InvalidArgument

if TYPE_CHECKING:
    import pyarrow as pa

    from nearmq.results import QueryHits

METADATA_KEY = "nearmq"

#: Rows of a row group.
_GROUP_ROWS = 1 << 16


class ResultsFile:
    """Writes the hits of any number of searches to a Parquet file, which is there in the end, whole, or not at all."""

    def __init__(self, path: Path, facts: Mapping[str, Any], types: Mapping[str, str]) -> None:
        """Nothing is written yet.

        Args:
            facts: what the metadata says beside version and number of queries.
            types: of the output fields, by name, as the collection declares them.

        Raises:
            InvalidArgument: pyarrow is not installed.
        """
        _import_arrow()
        self._path = path
        self._partial = path.with_name(f".{path.name}.partial")
        self._facts = dict(facts)
        self._types = types
        self._writer: Any = None
        self._waiting: list[tuple[int, QueryHits]] = []
        self._rows = self._queries = 0
        self._versions: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, failed: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if failed is None:
                self._write()
            self._close()
            if failed is None:
                self._partial.replace(self._path)
        finally:
            self._partial.unlink(missing_ok=True)

    def add(self, query: int, hits: "QueryHits", version: int) -> None:
        """Add the hits of one query, which was answered by this version."""
        self._waiting.append((query, hits))
        self._rows += len(hits)
        self._queries += 1
        self._versions.add(version)
        if self._rows >= _GROUP_ROWS:
            self._write()

    def _write(self) -> None:
        from pyarrow import parquet  # noqa: PLC0415  needs the extra

        table = _table(self._waiting, self._types)
        if self._writer is None:
            # Without Arrow's own schema beside it, the metadata that is known only in the end is the table's.
            self._writer = parquet.ParquetWriter(self._partial, table.schema, compression="zstd", store_schema=False)
        self._writer.write_table(table)
        self._waiting, self._rows = [], 0

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.add_key_value_metadata({METADATA_KEY: _metadata(self._facts, self._versions, self._queries)})
            self._writer.close()


def to_arrow(results: "Sequence[QueryHits]", version: int, facts: Mapping[str, Any]) -> "pa.Table":
    """Return the hits as a table; the types of the output fields are those of their values.

    Args:
        facts: what the metadata says beside version and number of queries.

    Raises:
        InvalidArgument: pyarrow is not installed.
    """
    values: dict[str, list[Any]] = {}
    for hits in results:
        for name, column in hits.fields.items():
            values.setdefault(name, []).extend(column)
    types = {name: _type_of(column) for name, column in values.items()}
    metadata = {METADATA_KEY: _metadata(facts, {version}, len(results))}
    return _table(list(enumerate(results)), types).replace_schema_metadata(metadata)


def write_parquet(table: "pa.Table", path: Path) -> None:
    """Write a table to a Parquet file, which is there whole or not at all."""
    from pyarrow import parquet  # noqa: PLC0415  needs the extra

    partial = path.with_name(f".{path.name}.partial")
    try:
        parquet.write_table(table, partial, compression="zstd")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _table(numbered: "Sequence[tuple[int, QueryHits]]", types: Mapping[str, str]) -> "pa.Table":
    pa = _import_arrow()
    numbered = [(query, hits) for query, hits in numbered if len(hits)]
    lengths = [len(hits) for _, hits in numbered]
    ranks = [np.arange(1, length + 1, dtype=np.int32) for length in lengths]
    ids = np.concatenate([hits.ids for _, hits in numbered]) if numbered else np.empty(0, dtype=np.int64)
    distances = [hits.distances for _, hits in numbered]
    columns = {
        "query_id": pa.array(np.repeat(np.array([query for query, _ in numbered], dtype=np.int64), lengths)),
        "rank": pa.array(np.concatenate([np.empty(0, np.int32), *ranks])),
        "id": pa.array(ids.tolist(), pa.string()) if ids.dtype.kind == "O" else pa.array(ids),
        "distance": pa.array(np.concatenate([np.empty(0, np.float32), *distances]), pa.float32()),
    }
    for name, kind in types.items():
        columns[name] = _field([value for _, hits in numbered for value in hits.fields.get(name, [])], kind)
    return pa.table(columns)


def _field(values: list[Any], kind: str) -> "pa.Array":
    pa = _import_arrow()
    if kind == "json":
        return pa.array([None if value is None else orjson.dumps(value).decode() for value in values], pa.string())
    types = {"bool": pa.bool_(), "int64": pa.int64(), "float64": pa.float64(), "string": pa.string(), "null": pa.null()}
    item = kind.removeprefix("array<").removesuffix(">")
    return pa.array(values, types[kind] if kind == item else pa.list_(types[item]))


def _type_of(values: Iterable[Any]) -> str:
    """The declared type that values look like; `json` where no other holds all of them."""
    found = {type(value) for value in values if value is not None}
    if found == {list}:
        item = _type_of(one for value in values if value is not None for one in value)
        return "json" if item == "json" or item.startswith("array") else f"array<{item}>"
    names = {bool: "bool", int: "int64", float: "float64", str: "string"}
    return names.get(found.pop(), "json") if len(found) == 1 else "json" if found else "null"


def _metadata(facts: Mapping[str, Any], versions: set[int], queries: int) -> str:
    several = {"versions": sorted(versions)} if len(versions) > 1 else {}
    version = {"version": max(versions)} if versions else {}
    return orjson.dumps({**facts, **version, **several, "queries": queries}).decode()


def _import_arrow() -> Any:
    try:
        import pyarrow as pa  # noqa: PLC0415  needs the extra
    except ModuleNotFoundError:
        raise InvalidArgument(
            "tables and Parquet need pyarrow: pip install 'nearmq[parquet]'", field="output"
        ) from None
    return pa
