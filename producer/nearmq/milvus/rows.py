"""Rows in Milvus's shapes, dicts or columns, to ids, vectors and scalar columns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nearmq.errors import InvalidArgument
from nearmq.row_results import ID

#: Rows as dicts by field name, one such dict, or columns: ids, vector fields, scalar fields, in the schema's order.
Data = Sequence[Mapping[str, Any]] | Mapping[str, Any] | Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Rows as the client's own calls take them."""

    ids: list[Any]
    vectors: dict[str, Any]
    fields: dict[str, Any]


def as_columns(data: Data, vector_fields: Sequence[str], scalar_fields: Callable[[], Sequence[str]]) -> Columns:
    """Return the columns of rows.

    Args:
        data: a row that lacks a scalar field has null there.
        vector_fields: names, in the schema's order.
        scalar_fields: returns likewise names; asked for columns only.

    Raises:
        InvalidArgument: there is another number of columns than of fields, or a row lacks its id or a vector.
    """
    if isinstance(data, Mapping):
        data = [data]
    if data and isinstance(data[0], Mapping):
        columns = _from_rows(data, [ID, *vector_fields])  # type: ignore[arg-type]  # where one is a dict, all are
    else:
        columns = _from_columns(data, [ID, *vector_fields, *scalar_fields()])  # type: ignore[arg-type]
    vectors = {name: columns.pop(name) for name in vector_fields}
    return Columns(ids=list(columns.pop(ID)), vectors=vectors, fields=columns)


def _from_rows(rows: Sequence[Mapping[str, Any]], needed: Sequence[str]) -> dict[str, Any]:
    names = dict.fromkeys([*needed, *(name for row in rows for name in row)])
    for number, row in enumerate(rows):
        missing = next((name for name in needed if name not in row), None)
        if missing is not None:
            raise InvalidArgument(f"row {number} has no field {missing!r}", field=missing)
    return {name: [row.get(name) for row in rows] for name in names}


def _from_columns(columns: Sequence[Sequence[Any]], names: Sequence[str]) -> dict[str, Any]:
    if len(columns) != len(names):
        raise InvalidArgument(
            f"data has {len(columns)} columns, the collection has the {len(names)} fields {', '.join(names)}",
            field="data",
        )
    return dict(zip(names, columns, strict=True))
