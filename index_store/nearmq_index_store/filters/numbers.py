"""Arithmetic and comparison of Arrow arrays of int64 and float64, exact where the machine's own is not.

int64 stays int64 under + - * / %: division truncates towards zero and the remainder has the sign of the dividend, as in
C and in Milvus; where C would overflow the result is null. With a float64 on either side, and for ** always, it is
float64 arithmetic. Dividing by zero is null for both.
"""

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nearmq_index_store.filters.tree import ArithmeticOp, CompareOp

_CHECKED = {"+": pc.add_checked, "-": pc.subtract_checked, "*": pc.multiply_checked, "/": pc.divide_checked}
_FLOATING = {"+": pc.add, "-": pc.subtract, "*": pc.multiply, "/": pc.divide, "**": pc.power}
_COMPARE = {
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
    "==": pc.equal,
    "!=": pc.not_equal,
}
_ORDERED: dict[CompareOp, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


def arithmetic(op: ArithmeticOp, left: pa.Array, right: pa.Array) -> pa.Array:
    """Return the result for each row; null where an operand is, where int64 overflows, and for a division by zero."""
    is_int = pa.types.is_integer(left.type) and pa.types.is_integer(right.type) and op != "**"
    if not is_int:
        left, right = left.cast(pa.float64(), safe=False), right.cast(pa.float64(), safe=False)
    if op in ("/", "%"):
        right = pc.if_else(pc.equal(right, 0), None, right)
    if op == "%":
        return _remainder(left, right)
    if not is_int:
        return _FLOATING[op](left, right)
    try:
        return _CHECKED[op](left, right)
    except pa.ArrowInvalid:  # some row overflows; which one, Arrow does not say
        return _rowwise(op, left, right)


def compare(op: CompareOp, left: pa.Array | pa.Scalar, right: pa.Array | pa.Scalar) -> pa.Array:
    """Return left op right, null where either is; one side at least is an array.

    int64 and float64 are compared by their exact values; NaN is unequal to everything and has no order. Strings are
    ordered by code point.
    """
    if pa.types.is_integer(left.type) and pa.types.is_floating(right.type):
        return _compare_mixed(_ORDERED[op], left, right)
    if pa.types.is_floating(left.type) and pa.types.is_integer(right.type):
        return _compare_mixed(lambda order, zero: _ORDERED[op](-order, zero), right, left)
    return _COMPARE[op](left, right)


def compare_values(op: CompareOp, left: Any, right: Any) -> bool:
    """Return left op right for two Python values that have an order, or for any two with == and !=."""
    return bool(_ORDERED[op](left, right))


def as_type(values: tuple[Any, ...], wanted: pa.DataType) -> list[Any]:
    """Return those of some numbers, strings or bools that a type can hold exactly, as that type, each once.

    They are for a look-up in Arrow, by bits, so -0.0 becomes 0.0; `one_zero` does the same to what is looked up.
    """
    if pa.types.is_integer(wanted):
        whole = (int(value) for value in values if value == math.floor(value))
        return list(dict.fromkeys(value for value in whole if -(2**63) <= value < 2**63))
    if pa.types.is_floating(wanted):
        return list(dict.fromkeys(float(value) + 0.0 for value in values if float(value) == value))
    return list(dict.fromkeys(values))


def one_zero(array: pa.Array) -> pa.Array:
    """Return the values with -0.0 as 0.0."""
    return pc.add(array, 0.0) if pa.types.is_floating(array.type) else array


def _remainder(left: pa.Array, right: pa.Array) -> pa.Array:
    with np.errstate(invalid="ignore"):  # inf % 2 is NaN
        found = np.fmod(_filled(left), _filled(right, 1))
    return pa.array(found, mask=_nulls(left) | _nulls(right))


def _rowwise(op: ArithmeticOp, left: pa.Array, right: pa.Array) -> pa.Array:
    found = []
    for a, b in zip(left.to_pylist(), right.to_pylist(), strict=True):
        result = None if a is None or b is None else _exact(op, a, b)
        found.append(result if result is not None and -(2**63) <= result < 2**63 else None)
    return pa.array(found, pa.int64())


def _exact(op: ArithmeticOp, a: int, b: int) -> int:
    match op:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case _:
            quotient = abs(a) // abs(b)
            return quotient if (a < 0) == (b < 0) else -quotient


def _compare_mixed(
    ordered: Callable[[Any, Any], Any], integers: pa.Array | pa.Scalar, floats: pa.Array | pa.Scalar
) -> pa.Array:
    """Compare by the order of the pair: -1, 0 or 1, and NaN where there is none."""
    rows = max(len(side) if isinstance(side, pa.Array) else 1 for side in (integers, floats))
    left, right = _broadcast(integers, rows), _broadcast(floats, rows)
    whole, real = _filled(left), _filled(right)
    floor = np.floor(real)
    inside = (floor >= -(2.0**63)) & (floor < 2.0**63)
    as_integer = np.where(inside, floor, 0.0).astype(np.int64)
    order = np.sign((whole > as_integer).astype(np.float64) - (whole < as_integer))
    order = np.where((order == 0) & (real > floor), -1.0, order)
    order = np.where(inside, order, -np.sign(real))  # NaN stays NaN
    return pa.array(ordered(order, 0.0), mask=_nulls(left) | _nulls(right))


def _broadcast(side: pa.Array | pa.Scalar, rows: int) -> pa.Array:
    return pa.repeat(side, rows) if isinstance(side, pa.Scalar) else side


def _filled(array: pa.Array, value: int = 0) -> npt.NDArray[Any]:
    filled: npt.NDArray[Any] = array.fill_null(value).to_numpy(zero_copy_only=False)
    return filled


def _nulls(array: pa.Array) -> npt.NDArray[np.bool_]:
    nulls: npt.NDArray[np.bool_] = array.is_null().to_numpy(zero_copy_only=False)
    return nulls
