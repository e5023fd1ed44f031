"""A checked expression on the rows of a segment, one Arrow array a part; null is the third truth value (Kleene)."""

from collections.abc import Iterable, Mapping
from functools import reduce
from itertools import repeat
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from nearmq_index_store.filters import arrays, json_rows, numbers
from nearmq_index_store.filters.tree import (
    Arithmetic,
    ArrayLength,
    Compare,
    Contains,
    Element,
    Field,
    In,
    IsNull,
    JsonPath,
    Like,
    Literal,
    Logical,
    Node,
    Not,
    Values,
)


class Evaluation:
    """One pass over some rows; a JSON column is decoded once, when it is first needed.

    Args:
        columns: Arrow arrays of `rows` values each.
    """

    def __init__(self, columns: Mapping[str, pa.Array], rows: int) -> None:
        self._columns = columns
        self._rows = rows
        self._decoded: dict[str, list[Any]] = {}

    def condition(self, node: Node) -> pa.Array:  # noqa: PLR0911 - one a kind of node
        """Return a bool for each row, null where it is unknown."""
        match node:
            case Compare(left=Literal(), right=Literal()) | In(operand=Literal()) | Like(operand=Literal()) if (
                self._rows > 1
            ):
                return pa.repeat(Evaluation({}, 1).condition(node)[0], self._rows)
            case Logical(op=op, operands=operands):
                combine = pc.and_kleene if op == "&&" else pc.or_kleene
                return reduce(combine, (self.condition(operand) for operand in operands))
            case Not(operand=operand):
                return pc.invert(self.condition(operand))
            case Compare():
                return self._compare(node)
            case In(operand=operand, items=Values(values=values)):
                return self._is_in(operand, values)
            case Like(operand=operand, pattern=Literal(value=pattern)):
                return pc.match_like(self._strings(operand), pattern)
            case IsNull(operand=JsonPath() as path):
                return pa.array([value is None for value in self._json(path)], pa.bool_())
            case IsNull(operand=operand):
                return pc.is_null(self._value(operand))
            case Contains(array=JsonPath() as path, wanted=Values(values=values), need_all=need_all):
                return json_rows.contains(self._json(path), values, need_all=need_all)
            case Contains(array=array, wanted=Values(values=values), need_all=need_all):
                return arrays.contains(self._value(array), values, need_all=need_all)
            case _:
                return self._value(node)

    def _value(self, node: Node) -> pa.Array:  # noqa: PLR0911 - one a kind of node
        match node:
            case Literal(value=value):
                return pa.repeat(pa.scalar(value), self._rows)
            case Field(name=name):
                return self._columns[name]
            case Element(name=name, index=index):
                return arrays.element(self._columns[name], index)
            case Arithmetic(op=op, left=left, right=right):
                return numbers.arithmetic(op, self._numbers(left), self._numbers(right))
            case ArrayLength(array=JsonPath() as path):
                return json_rows.lengths(self._json(path))
            case ArrayLength(array=array):
                return pc.list_value_length(self._value(array)).cast(pa.int64())
            case _:
                return self.condition(node)

    def _compare(self, node: Compare) -> pa.Array:
        left, right = node.left, node.right
        if isinstance(left, JsonPath) or isinstance(right, JsonPath):
            return json_rows.compare(node.op, self._python(left), self._python(right))
        # A literal beside rows stays one value: Arrow is faster with it, and a long string is not repeated.
        if isinstance(right, Literal):
            return numbers.compare(node.op, self._value(left), pa.scalar(right.value))
        one = pa.scalar(left.value) if isinstance(left, Literal) else self._value(left)
        return numbers.compare(node.op, one, self._value(right))

    def _is_in(self, operand: Node, values: tuple[Any, ...]) -> pa.Array:
        if isinstance(operand, JsonPath):
            return json_rows.is_in(self._json(operand), values)
        array = self._value(operand)
        wanted = pa.array(numbers.as_type(values, array.type), array.type)
        return pc.if_else(pc.is_valid(array), pc.is_in(numbers.one_zero(array), wanted), None)

    def _numbers(self, node: Node) -> pa.Array:
        return json_rows.numbers(self._json(node)) if isinstance(node, JsonPath) else self._value(node)

    def _strings(self, node: Node) -> pa.Array:
        return json_rows.strings(self._json(node)) if isinstance(node, JsonPath) else self._value(node)

    def _python(self, node: Node) -> Iterable[Any]:
        if isinstance(node, Literal):
            return repeat(node.value, self._rows)
        return self._json(node) if isinstance(node, JsonPath) else self._value(node).to_pylist()

    def _json(self, node: JsonPath) -> list[Any]:
        if node.name not in self._decoded:
            self._decoded[node.name] = json_rows.decode(node.name, self._columns[node.name])
        return json_rows.follow(self._decoded[node.name], node.path)
