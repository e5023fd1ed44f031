"""Filters: Milvus's boolean expressions, compiled against a schema and evaluated on Arrow columns.

`grammar` makes a `tree`, `checking` fits it to the columns, `evaluate` computes it with `numbers`, `arrays` and, row by
row, `json_rows`.

What the language leaves open is settled so:

- Logic has three values. A comparison with null is null; a row is allowed only where the whole is true.
- int64 stays int64 under + - * / %: division truncates towards zero, % has the sign of the dividend. An overflow is
  null, not wrapped around: an allowed row never rests on a wrong number. ** is always float64 and groups from the left.
- A division or remainder by zero is null, for float64 too.
- int64 and float64 are compared by exact value, and so are JSON numbers; JSON numbers in arithmetic are float64.
- A JSON value that is missing, or of another type than it is compared with, is null.
"""

from nearmq_index_store.filters.columns import ColumnType, Kind
from nearmq_index_store.filters.compiling import Filter, compile_filter

__all__ = ["ColumnType", "Filter", "Kind", "compile_filter"]
