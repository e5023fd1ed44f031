"""From the text of an expression to something that can be asked for a mask."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nearmq_index_store.errors import InvalidExpression
from nearmq_index_store.filters.checking import check
from nearmq_index_store.filters.columns import ColumnType
from nearmq_index_store.filters.evaluate import Evaluation
from nearmq_index_store.filters.grammar import parse
from nearmq_index_store.filters.problem import ProblemError
from nearmq_index_store.filters.tree import Node, names, render

#: Characters of an expression that an error message quotes, around the place.
_QUOTED = 80

#: Rows evaluated at a time: bounds what a filter holds besides the columns, decoded JSON above all (500 bytes a row).
_BLOCK = 1 << 17


@dataclass(frozen=True, slots=True)
class Filter:
    """A checked expression. Any thread may use it, for any rows of the collection's columns.

    Attributes:
        key: the expression in one canonical spelling, values filled in: the same key is the same mask on the same rows.
        fields: the columns that it reads.
    """

    key: str
    fields: frozenset[str]
    _tree: Node = field(repr=False, compare=False)

    def mask(self, read: Callable[[str], pa.Array], rows: int) -> npt.NDArray[np.bool_]:
        """Return for each row whether it is allowed; unknown is not.

        Args:
            read: returns a column by name as an Arrow array of `rows` values, of the types that ColumnType names;
                called once for each of `fields`.
            rows: how many rows there are.

        Returns:
            bool, shape (rows,).

        Raises:
            IndexCorrupt: a row of a JSON column is no JSON.
        """
        columns = {name: read(name) for name in self.fields}
        mask = np.empty(rows, dtype=np.bool_)
        for start in range(0, rows, _BLOCK):
            length = min(_BLOCK, rows - start)
            block = {name: column.slice(start, length) for name, column in columns.items()}
            found = Evaluation(block, length).condition(self._tree)
            mask[start : start + length] = found.fill_null(False).to_numpy(zero_copy_only=False)
        return mask


def compile_filter(expr: str, columns: Mapping[str, ColumnType], values: Mapping[str, object] | None = None) -> Filter:
    """Parse and check an expression; the language is described in docs/filters.md.

    Args:
        expr: the text; the caller bounds its length.
        columns: every column that an expression may name, the primary key `id` among them.
        values: what the placeholders `{name}` stand for: bool, int, float, str, and lists of these. A value that the
            expression does not name is ignored.

    Raises:
        InvalidExpression: the text is no expression, names an unknown field or placeholder, compares what cannot be
            compared, or is nested too deeply.
    """
    try:
        tree = check(parse(expr), columns, values or {})
    except ProblemError as error:
        raise InvalidExpression(_message(expr, error), expression=expr, column=error.column) from None
    return Filter(render(tree), frozenset(names(tree)), tree)


def _message(expr: str, error: ProblemError) -> str:
    start = max(0, min(error.column - _QUOTED // 2, len(expr) - _QUOTED))
    quoted = expr[start : start + _QUOTED]
    before, after = "..." if start else "", "..." if start + _QUOTED < len(expr) else ""
    advice = f", {error.advice}" if error.advice else ""
    return f"expr {before + quoted + after!r}: {error.problem} at column {error.column}{advice}"
