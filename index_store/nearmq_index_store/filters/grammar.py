"""The text of an expression to its tree.

The grammar follows Milvus's `Plan.g4`, with three liberties: `not` binds weaker than comparisons, which gives the same
answers wherever Milvus accepts the text and reads `not a > 3` as it is meant; a chained range may hold any value in its
middle; and a name that is no identifier, or is a word of the language, is written in backticks.
"""

from functools import cache
from typing import cast

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedToken

from nearmq_index_store.filters.problem import ProblemError, shortened
from nearmq_index_store.filters.strings import unquote
from nearmq_index_store.filters.tree import (
    Arithmetic,
    ArithmeticOp,
    ArrayLength,
    Compare,
    CompareOp,
    Contains,
    In,
    IsNull,
    Items,
    Like,
    Literal,
    Logical,
    Node,
    Not,
    Placeholder,
    Reference,
)

_GRAMMAR = r"""
?start: any_of

?any_of: all_of (_OR all_of)*
?all_of: negation (_AND negation)*
?negation: _NOT negation -> not_
    | equality
?equality: condition
    | equality EQUALITY condition -> compare
?condition: sum
    | sum ORDER sum -> compare
    | sum ORDER sum ORDER sum -> chain
    | sum _IN items -> in_
    | sum _NOT _IN items -> not_in
    | sum _LIKE pattern -> like
    | reference _IS _NULL -> is_null
    | reference _IS _NOT _NULL -> is_not_null
    | CONTAINS "(" reference "," item ")" -> contains

?sum: product
    | sum SIGN product -> arithmetic
?product: unary
    | product FACTOR unary -> arithmetic
?unary: SIGN unary -> signed
    | power
?power: atom
    | power POWER exponent -> arithmetic
?exponent: SIGN exponent -> signed
    | atom
?atom: literal
    | placeholder
    | reference
    | _LENGTH "(" reference ")" -> array_length
    | "(" any_of ")"

reference: NAME ("[" (STRING | INTEGER) "]")*
placeholder: "{" NAME "}"
?pattern: STRING -> literal
    | placeholder
?items: OPEN (item ("," item)* ","?)? "]" -> listed
    | placeholder
?item: literal
    | SIGN (INTEGER | FLOAT) -> signed_literal
    | items
literal: INTEGER | FLOAT | STRING | BOOLEAN

_OR.2: /(or|OR)\b|\|\|/
_AND.2: /(and|AND)\b|&&/
_NOT.2: /(not|NOT)\b|!(?!=)/
_IN.2: /(in|IN)\b/
_LIKE.2: /(like|LIKE)\b/
_IS.2: /(is|IS)\b/
_NULL.2: /(null|NULL)\b/
BOOLEAN.2: /(true|True|TRUE|false|False|FALSE)\b/
CONTAINS.2: /((json|array)_contains(_all|_any)?|(JSON|ARRAY)_CONTAINS(_ALL|_ANY)?)\b/
_LENGTH.2: /(array_length|ARRAY_LENGTH)\b/
EQUALITY: "==" | "!="
ORDER: /[<>]=?/
OPEN: "["
SIGN: /[+-]/
POWER.2: "**"
FACTOR: /[*\/%]/
FLOAT.2: /([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+/
INTEGER: /0[xX][0-9a-fA-F]+|0[bB][01]+|0|[1-9][0-9]*/
STRING: /"([^"\\\r\n]|\\.)*"|'([^'\\\r\n]|\\.)*'/
NAME: /[A-Za-z_][A-Za-z0-9_]*|`[^`]+`/
%ignore /[ \t\r\n]+/
"""

#: What people of other languages write.
_MEANT = {"=": "==", "&": "&&", "|": "||", "^": "**"}


def parse(expression: str) -> Node:
    """Return the tree of an expression, unchecked and of any depth.

    Raises:
        ProblemError: the text is no expression.
    """
    try:
        return cast("Node", _parser().parse(expression))
    except UnexpectedCharacters as error:
        position = cast("int", error.pos_in_stream)
        raise _unexpected(expression[position], position) from None
    except UnexpectedToken as error:
        if error.token.type == "$END":
            raise ProblemError("unexpected end", len(expression) + 1) from None
        raise _unexpected(str(error.token), error.token.start_pos or 0) from None


def _unexpected(text: str, position: int) -> ProblemError:
    if text in ('"', "'", "`"):
        return ProblemError(f"a {text} without its end", position + 1)
    advice = f"did you mean {_MEANT[text]!r}" if text in _MEANT else ""
    return ProblemError(f"unexpected {shortened(text)}", position + 1, advice)


@cache
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", lexer="contextual", transformer=_Builder(), propagate_positions=False)


def _column(token: Token) -> int:
    return (token.start_pos or 0) + 1


def _name(token: Token) -> str:
    return token.strip("`")


class _Builder(Transformer[Token, Node]):
    """Makes the nodes while the parser reduces, without recursion: each method gets the parts of one rule."""

    def any_of(self, parts: list[Node]) -> Node:
        return Logical(parts[0].column, "||", tuple(parts))

    def all_of(self, parts: list[Node]) -> Node:
        return Logical(parts[0].column, "&&", tuple(parts))

    def not_(self, parts: list[Node]) -> Node:
        return Not(parts[0].column, parts[0])

    def compare(self, parts: tuple[Node, Token, Node]) -> Node:
        left, op, right = parts
        return Compare(_column(op), cast("CompareOp", str(op)), left, right)

    def chain(self, parts: tuple[Node, Token, Node, Token, Node]) -> Node:
        low, first, middle, second, high = parts
        if first[0] != second[0]:
            raise ProblemError(f"a range goes one way, not {first} and {second}", _column(second))
        return Logical(low.column, "&&", (self.compare((low, first, middle)), self.compare((middle, second, high))))

    def in_(self, parts: tuple[Node, Node]) -> Node:
        return In(parts[0].column, *parts)

    def not_in(self, parts: tuple[Node, Node]) -> Node:
        return Not(parts[0].column, self.in_(parts))

    def like(self, parts: tuple[Node, Node]) -> Node:
        return Like(parts[0].column, *parts)

    def is_null(self, parts: list[Node]) -> Node:
        return IsNull(parts[0].column, parts[0])

    def is_not_null(self, parts: list[Node]) -> Node:
        return Not(parts[0].column, self.is_null(parts))

    def contains(self, parts: tuple[Token, Node, Node]) -> Node:
        function, array, wanted = parts
        many = function.lower().endswith(("_all", "_any"))
        if not many:
            wanted = Items(wanted.column, (wanted,))
        return Contains(_column(function), array, wanted, function.lower().endswith("_all"))

    def array_length(self, parts: list[Node]) -> Node:
        return ArrayLength(parts[0].column, parts[0])

    def arithmetic(self, parts: tuple[Node, Token, Node]) -> Node:
        left, op, right = parts
        return Arithmetic(_column(op), cast("ArithmeticOp", str(op)), left, right)

    def signed(self, parts: tuple[Token, Node]) -> Node:
        sign, operand = parts
        # Folded at once, so that the least int64 can be written.
        if isinstance(operand, Literal) and type(operand.value) in (int, float):
            return Literal(_column(sign), -operand.value if sign == "-" else operand.value)  # type: ignore[operator]
        return Arithmetic(_column(sign), cast("ArithmeticOp", str(sign)), Literal(_column(sign), 0), operand)

    def signed_literal(self, parts: tuple[Token, Token]) -> Node:
        return self.signed((parts[0], self.literal([parts[1]])))

    def reference(self, parts: list[Token]) -> Node:
        path = tuple(_constant(part) for part in parts[1:])
        return Reference(_column(parts[0]), _name(parts[0]), cast("tuple[str | int, ...]", path))

    def placeholder(self, parts: list[Token]) -> Node:
        return Placeholder(_column(parts[0]) - 1, _name(parts[0]))

    def listed(self, parts: tuple[Token, *tuple[Node, ...]]) -> Node:
        bracket, *items = parts
        return Items(_column(bracket), tuple(items))

    def literal(self, parts: list[Token]) -> Node:
        return Literal(_column(parts[0]), _constant(parts[0]))


def _constant(token: Token) -> bool | int | float | str:
    match token.type:
        case "BOOLEAN":
            return token.lower() == "true"
        case "INTEGER":
            if len(token) > 80:  # noqa: PLR2004 - int() refuses thousands of digits with an error of its own
                raise ProblemError("an integer beyond 64 bits", _column(token))
            return int(token, 0)
        case "FLOAT":
            return float(token)
        case _:
            return unquote(str(token), _column(token))
