"""A parsed expression against the columns of a collection and the values of its placeholders."""

import math
from collections.abc import Mapping
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from nearmq_index_store.filters.columns import ColumnType
from nearmq_index_store.filters.problem import ProblemError, nearest, shortened
from nearmq_index_store.filters.tree import (
    Arithmetic,
    ArrayLength,
    Compare,
    Constant,
    Contains,
    Element,
    Field,
    In,
    IsNull,
    Items,
    JsonPath,
    Like,
    Literal,
    Logical,
    NestedConstant,
    Node,
    Not,
    Placeholder,
    Reference,
    Values,
    children,
)

#: Levels of a tree. Checking and evaluating go down by recursion, some three Python frames a level, and must stay far
#: from the interpreter's bound of 1,000; a chain of `and` or `or` is one level, one of `+` is a level a term.
MAX_DEPTH: Final = 100

#: Elements of one list, written or given as a value.
MAX_LIST: Final = 65_536

_INT64: Final = range(-(2**63), 2**63)

_BOOL = ColumnType("bool")
_INT = ColumnType("int64")
_FLOAT = ColumnType("float64")
_STRING = ColumnType("string")
_TYPES = {bool: _BOOL, int: _INT, float: _FLOAT, str: _STRING}
_NUMBERS = ("int64", "float64")


def check(tree: Node, columns: Mapping[str, ColumnType], values: Mapping[str, object]) -> Node:
    """Return the tree with its types checked, its fields found and its placeholders filled in.

    Raises:
        ProblemError: at the first place that does not fit.
    """
    _check_depth(tree)
    return _Checker(columns, values).condition(tree)


def _check_depth(tree: Node) -> None:
    level = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in children(node)]
        if not level:
            return
    raise ProblemError(f"more than {MAX_DEPTH} levels of nesting", level[0].column)


class _Checker:
    def __init__(self, columns: Mapping[str, ColumnType], values: Mapping[str, object]) -> None:
        self._columns = columns
        self._values = values

    def condition(self, node: Node) -> Node:
        checked, kind = self._typed(node)
        if kind != _BOOL:
            advice = "compare it with a value"
            raise ProblemError(f"{_article(kind)} is no condition", node.column, advice)
        return checked

    def _typed(self, node: Node) -> tuple[Node, ColumnType]:
        """Return the checked node and the type of its value."""
        match node:
            case Literal(value=value):
                return self._literal(node, value)
            case Placeholder():
                return self._literal(node, self._value(node))
            case Reference():
                return self._reference(node)
            case Arithmetic():
                return self._arithmetic(node)
            case ArrayLength(array=array):
                return ArrayLength(node.column, self._array(array)[0]), _INT
            case _:
                return self._predicate(node), _BOOL

    def _predicate(self, node: Node) -> Node:  # noqa: PLR0911 - one a kind of node
        match node:
            case Logical(op=op, operands=operands):
                return Logical(node.column, op, tuple(self.condition(operand) for operand in operands))
            case Not(operand=operand):
                return Not(node.column, self.condition(operand))
            case Compare():
                return self._compare(node)
            case In(operand=operand, items=items):
                checked, kind = self._scalar(operand)
                return In(node.column, checked, self._list(items, kind))
            case Like():
                return self._like(node)
            case IsNull(operand=Reference(path=path) as reference):
                is_whole = not path and self._type(reference).kind != "json"
                field = Field(reference.column, reference.name) if is_whole else self._reference(reference)[0]
                return IsNull(node.column, field)
            case Contains(array=array, wanted=wanted, need_all=need_all):
                checked, element = self._array(array)
                return Contains(node.column, checked, self._list(wanted, element), need_all)
            case _:
                raise TypeError(f"a {type(node).__name__} is no part of a condition")

    def _literal(self, node: Node, value: object) -> tuple[Node, ColumnType]:
        constant = _constant(value, node.column)
        return Literal(node.column, constant), _TYPES[type(constant)]

    def _value(self, node: Placeholder) -> object:
        if node.name not in self._values:
            raise ProblemError(
                f"no value for placeholder {shortened(node.name)}", node.column, nearest(node.name, self._values)
            )
        return self._values[node.name]

    def _type(self, node: Reference) -> ColumnType:
        if node.name not in self._columns:
            raise ProblemError(f"unknown field {shortened(node.name)}", node.column, nearest(node.name, self._columns))
        return self._columns[node.name]

    def _reference(self, node: Reference) -> tuple[Node, ColumnType]:
        column = self._type(node)
        if column.kind == "json":
            return JsonPath(node.column, node.name, node.path), ColumnType("json")
        if not node.path:
            return Field(node.column, node.name), ColumnType(column.kind, column.is_array)
        if not column.is_array:
            raise ProblemError(f"field {node.name!r} is {_article(column)}, it has no elements", node.column)
        if len(node.path) > 1 or not isinstance(node.path[0], int):
            raise ProblemError(f"field {node.name!r} is {_article(column)}, it takes one index", node.column)
        if node.path[0] not in _INT64:
            raise ProblemError("an integer beyond 64 bits", node.column)
        return Element(node.column, node.name, node.path[0]), ColumnType(column.kind)

    def _array(self, node: Node) -> tuple[Node, ColumnType]:
        """Return the checked array and the type of its elements."""
        checked, kind = self._typed(node)
        if not kind.is_array and kind.kind != "json":
            raise ProblemError(f"{_article(kind)} is no array", node.column)
        return checked, ColumnType(kind.kind)

    def _scalar(self, node: Node) -> tuple[Node, ColumnType]:
        checked, kind = self._typed(node)
        if kind.is_array:
            advice = "take an element [0], array_contains or array_length"
            raise ProblemError(f"{_article(kind)} has no single value", node.column, advice)
        return checked, kind

    def _arithmetic(self, node: Arithmetic) -> tuple[Node, ColumnType]:
        left, left_kind = self._scalar(node.left)
        right, right_kind = self._scalar(node.right)
        for kind in (left_kind, right_kind):
            if kind.kind not in (*_NUMBERS, "json"):
                raise ProblemError(f"{_article(kind)} cannot be used with {node.op}", node.column)
        is_int = left_kind == right_kind == _INT and node.op != "**"
        return Arithmetic(node.column, node.op, left, right), _INT if is_int else _FLOAT

    def _compare(self, node: Compare) -> Node:
        left, left_kind = self._scalar(node.left)
        right, right_kind = self._scalar(node.right)
        if not _comparable(left_kind, right_kind):
            raise ProblemError(f"cannot compare {_article(left_kind)} with {_article(right_kind)}", node.column)
        if _BOOL in (left_kind, right_kind) and node.op not in ("==", "!="):
            raise ProblemError(f"bools have no order for {node.op}", node.column)
        if isinstance(left, Literal):
            return Compare(node.column, node.op, _fitted(left, right_kind), right)
        return Compare(node.column, node.op, left, _fitted(right, left_kind))

    def _like(self, node: Like) -> Node:
        operand, kind = self._scalar(node.operand)
        if kind.kind not in ("string", "json"):
            raise ProblemError(f"{_article(kind)} is not like a pattern, strings are", node.column)
        pattern, pattern_kind = self._typed(node.pattern)
        if not isinstance(pattern, Literal) or pattern_kind != _STRING:
            raise ProblemError(f"{_article(pattern_kind)} is no pattern", node.pattern.column)
        text = str(pattern.value)
        if (len(text) - len(text.rstrip("\\"))) % 2:
            raise ProblemError("the pattern ends with a lone backslash", pattern.column)
        try:
            pc.match_like(pa.array([""]), text)
        except pa.ArrowInvalid:
            raise ProblemError("the pattern is too large", pattern.column) from None
        return Like(node.column, operand, pattern)

    def _list(self, node: Node, kind: ColumnType) -> Node:
        """Return the elements of a list that is compared with values of a type."""
        values = self._elements(node)
        for value, column in values:
            if isinstance(value, tuple):
                if kind.kind != "json":
                    raise ProblemError(f"a list is not comparable with {_article(kind)}", column)
            elif not _comparable(_TYPES[type(value)], kind):
                raise ProblemError(f"cannot compare {_article(kind)} with {_article(_TYPES[type(value)])}", column)
        return Values(node.column, tuple(value for value, _ in values))

    def _elements(self, node: Node) -> list[tuple[NestedConstant, int]]:
        """Return the elements of a list, each with the column where it stands."""
        if isinstance(node, Placeholder):
            given = self._value(node)
            if not isinstance(given, list | tuple):
                raise ProblemError(f"the value of placeholder {shortened(node.name)} is no list", node.column)
            found = [(_nested(value, node.column), node.column) for value in given]
        else:
            assert isinstance(node, Items)
            found = [(self._element(item), item.column) for item in node.items]
        if len(found) > MAX_LIST:
            raise ProblemError(f"a list of {len(found)} elements, at most {MAX_LIST} are allowed", node.column)
        return found

    def _element(self, node: Node) -> NestedConstant:
        if isinstance(node, Items):
            return tuple(value for value, _ in self._elements(node))
        if isinstance(node, Placeholder):
            return _nested(self._value(node), node.column)
        assert isinstance(node, Literal)
        return _constant(node.value, node.column)


def _fitted(node: Node, kind: ColumnType) -> Node:
    """Return a node; a number literal becomes the type that it is compared with, where that holds it exactly."""
    if not isinstance(node, Literal) or isinstance(node.value, bool | str):
        return node
    value = node.value
    if kind == _FLOAT and float(value) == value:
        return Literal(node.column, float(value))
    if kind == _INT and int(value) == value and int(value) in _INT64:
        return Literal(node.column, int(value))
    return node


def _nested(value: object, column: int) -> NestedConstant:
    if isinstance(value, list | tuple):
        return tuple(_constant(item, column) for item in value)
    return _constant(value, column)


def _constant(value: object, column: int) -> Constant:
    if type(value) not in _TYPES:
        raise ProblemError(f"a value of type {type(value).__name__}, allowed are bool, int, float and str", column)
    assert isinstance(value, bool | int | float | str)
    if isinstance(value, int) and value not in _INT64:
        raise ProblemError("an integer beyond 64 bits", column)
    if isinstance(value, float) and not math.isfinite(value):
        raise ProblemError(f"the number {value} is not finite", column)
    if isinstance(value, str) and not _is_unicode(value):
        raise ProblemError("half a surrogate pair", column)
    return value


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _comparable(left: ColumnType, right: ColumnType) -> bool:
    if "json" in (left.kind, right.kind):
        return True  # each row decides
    return left.kind == right.kind or (left.kind in _NUMBERS and right.kind in _NUMBERS)


def _article(kind: ColumnType) -> str:
    return f"an {kind}" if str(kind)[0] in "ai" else f"a {kind}"
