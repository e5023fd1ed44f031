"""The parts of an expression, as the parser makes them and as the evaluation reads them.

`Reference`, `Placeholder` and `Items` come from the parser only; checking puts `Field`, `Element`, `JsonPath`,
`Literal` and `Values` in their places. Rendering a checked tree gives the text that caches use as a key.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal as OneOf

Constant = bool | int | float | str
#: Elements of JSON arrays may be arrays themselves: json_contains(matrix, [1, 2]).
NestedConstant = Constant | tuple["NestedConstant", ...]
Path = tuple[str | int, ...]
ArithmeticOp = OneOf["+", "-", "*", "/", "%", "**"]
CompareOp = OneOf["<", "<=", ">", ">=", "==", "!="]


@dataclass(frozen=True, slots=True)
class Node:
    """A part of an expression; `column` is the 1-based character where it starts."""

    column: int


@dataclass(frozen=True, slots=True)
class Literal(Node):
    """A number, string or boolean."""

    value: Constant


@dataclass(frozen=True, slots=True)
class Items(Node):
    """A list as written."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Placeholder(Node):
    """`{name}`: its value is given apart."""

    name: str


@dataclass(frozen=True, slots=True)
class Reference(Node):
    """A field with the keys and indices written behind it."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Values(Node):
    """A list whose elements are known."""

    values: tuple[NestedConstant, ...]


@dataclass(frozen=True, slots=True)
class Field(Node):
    """A column, whole."""

    name: str


@dataclass(frozen=True, slots=True)
class Element(Node):
    """One element of an array column."""

    name: str
    index: int


@dataclass(frozen=True, slots=True)
class JsonPath(Node):
    """What a JSON column, or an array of JSON, holds under the keys and indices of a path."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Arithmetic(Node):
    """Two numbers to one."""

    op: ArithmeticOp
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class ArrayLength(Node):
    """The number of elements of an array."""

    array: Node


@dataclass(frozen=True, slots=True)
class Compare(Node):
    """Two values of comparable types."""

    op: CompareOp
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class In(Node):
    """The operand equals one of the items."""

    operand: Node
    items: Node


@dataclass(frozen=True, slots=True)
class Like(Node):
    """The string fits the pattern: `%` any characters, `_` one, a backslash takes the next one literally."""

    operand: Node
    pattern: Node


@dataclass(frozen=True, slots=True)
class IsNull(Node):
    """There is no value; never null itself."""

    operand: Node


@dataclass(frozen=True, slots=True)
class Contains(Node):
    """The array holds all, or one at least, of the wanted values."""

    array: Node
    wanted: Node
    need_all: bool


@dataclass(frozen=True, slots=True)
class Not(Node):
    """The opposite; null stays null."""

    operand: Node


@dataclass(frozen=True, slots=True)
class Logical(Node):
    """All (`&&`) or one at least (`||`) of the operands."""

    op: OneOf["&&", "||"]
    operands: tuple[Node, ...]


def children(node: Node) -> tuple[Node, ...]:
    """Return the parts that a node is made of."""
    match node:
        case Arithmetic(left=left, right=right) | Compare(left=left, right=right):
            return left, right
        case ArrayLength(array=operand) | IsNull(operand=operand) | Not(operand=operand):
            return (operand,)
        case In(operand=left, items=right) | Like(operand=left, pattern=right) | Contains(array=left, wanted=right):
            return left, right
        case Logical(operands=parts) | Items(items=parts):
            return parts
        case _:
            return ()


def names(node: Node) -> Iterator[str]:
    """Iterate over the columns that a checked expression reads, some more than once."""
    if isinstance(node, Field | Element | JsonPath):
        yield node.name
    for child in children(node):
        yield from names(child)


def render(node: Node) -> str:  # noqa: PLR0911, PLR0912 - one a kind of node
    """Return a checked expression as text with all its brackets; equal texts have equal masks."""
    match node:
        case Literal(value=value):
            text = json.dumps(value)
            return f"({text})" if text.startswith("-") else text
        case Values(values=values):
            return json.dumps(values)
        case Field(name=name):
            return f"`{name}`"
        case Element(name=name, index=index):
            return f"`{name}`[{index}]"
        case JsonPath(name=name, path=path):
            return f"`{name}`" + "".join(f"[{json.dumps(key)}]" for key in path)
        case Arithmetic(op=op, left=left, right=right) | Compare(op=op, left=left, right=right):
            return f"({render(left)} {op} {render(right)})"
        case ArrayLength(array=array):
            return f"array_length({render(array)})"
        case In(operand=operand, items=items):
            return f"({render(operand)} in {render(items)})"
        case Like(operand=operand, pattern=pattern):
            return f"({render(operand)} like {render(pattern)})"
        case IsNull(operand=operand):
            return f"({render(operand)} is null)"
        case Contains(array=array, wanted=wanted, need_all=need_all):
            return f"array_contains_{'all' if need_all else 'any'}({render(array)}, {render(wanted)})"
        case Not(operand=operand):
            return f"(!{render(operand)})"
        case Logical(op=op, operands=operands):
            return "(" + f" {op} ".join(render(operand) for operand in operands) + ")"
        case _:
            raise TypeError(f"a {type(node).__name__} is left in a checked expression")
