"""A parsed JSON object to its Struct, where each refusal names the field, the value and what is expected."""

import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any, TypeVar, get_args

import msgspec

from nearmq.errors import InvalidArgument
from nearmq.jobs import Encoding, IdFormat, Metric, PrimaryKey, ScalarFieldSpec, ScalarType, VectorFieldSpec

S = TypeVar("S", bound=msgspec.Struct)

_CHOICES = {
    "metric_type": get_args(Metric),
    "encoding": get_args(Encoding),
    "id_format": get_args(IdFormat),
    "primary_key": get_args(PrimaryKey),
    "type": get_args(ScalarType),
}
#: The objects that stand in lists, by the list's key.
_LISTED: dict[str, type[msgspec.Struct]] = {"vector_fields": VectorFieldSpec, "scalar_fields": ScalarFieldSpec}
#: What msgspec calls the types of JSON values in its messages.
_TYPE_NAMES = {bool: "bool", int: "int", float: "float", str: "str", type(None): "null", list: "array", dict: "object"}
_EXPECTED = {
    "int": "an integer",
    "float": "a number",
    "int | float": "a number",
    "int | str": "an integer or a string",
    "str": "a string",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}
_MESSAGE = re.compile(r"Expected `(?P<expected>[^`]*?)(?: \| null)?`, got `(?P<got>\w+)`")
_PLACE = re.compile(r" - at `\$\.(?P<path>.*)`\Z")
_STEP = re.compile(r"\[(\d+)\]|\[(\.\.\.)\]|\.?(\w+)")


def to_struct(tree: dict[str, Any], struct: type[S], *, read_array: Callable[[Any], Any]) -> S:
    """Return the Struct of an object; types are strict, so that a bool is no int and 1.0 is none.

    Args:
        tree: as parsed from JSON; arrays may stand in it as such.
        struct: forbids unknown fields.
        read_array: makes the value of a field of type np.ndarray.

    Raises:
        InvalidArgument: a key is unknown (names the nearest known one) or missing, or a value is of the wrong type.
    """
    _check_keys(tree, struct)
    try:
        return msgspec.convert(tree, struct, dec_hook=lambda _, value: read_array(value))
    except msgspec.ValidationError as error:
        raise _explained(str(error), tree) from error


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint for a word that is not known: the nearest one that is, else all of them."""
    known = sorted(known)
    close = get_close_matches(word[:80], known, n=1)
    return f"did you mean {close[0]!r}" if close else f"known are {', '.join(known)}"


def _check_keys(tree: dict[str, Any], struct: type[msgspec.Struct], path: str = "") -> None:
    if not tree.keys() <= _known_keys(struct):
        key = next(key for key in tree if key not in _known_keys(struct))
        field = f"{path}{key}"[:200]
        raise InvalidArgument(f"unknown key {field!r}, {nearest(key, struct.__struct_fields__)}", field=field)
    for name, listed in _LISTED.items():
        specs = tree.get(name)
        for position, spec in enumerate(specs if isinstance(specs, list) else ()):
            if isinstance(spec, dict):
                _check_keys(spec, listed, f"{name}[{position}].")


@cache
def _known_keys(struct: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(struct.__struct_fields__)


def _explained(message: str, tree: dict[str, Any]) -> InvalidArgument:
    """Make our error of msgspec's message, which has the types and the path, but not the value."""
    place = _PLACE.search(message)
    path = place["path"] if place else ""
    if missing := re.match("Object missing required field `(.*?)`", message):
        field = f"{path}.{missing[1]}".lstrip(".")
        return InvalidArgument(f"{field} is missing", field=field)
    types = _MESSAGE.match(message)
    field, value = _locate(tree, _STEP.findall(path), types["got"] if types else "") or (path, None)
    expected = _EXPECTED.get(types["expected"], types["expected"]) if types else ""
    if field in _CHOICES or field.endswith(("].metric_type", "].type")):
        expected = f"one of {', '.join(map(repr, _CHOICES[field.rpartition('.')[2]]))}"
    return InvalidArgument(f"{field or 'the job'} is {value!r:.80}, expected {expected}", field=field or None)


def _locate(tree: Any, steps: Sequence[Sequence[str]], got: str, field: str = "") -> tuple[str, Any] | None:
    """Follow a path such as `fields[0].dim`; its `[...]` is the first key that has such a value behind it."""
    if not steps:
        return (field, tree) if got in {"", _TYPE_NAMES.get(type(tree))} else None
    (index, any_key, name), *rest = steps
    if index:
        inside = isinstance(tree, list) and int(index) < len(tree)
        return _locate(tree[int(index)], rest, got, f"{field}[{index}]") if inside else None
    if not isinstance(tree, dict):
        return None
    for key in tree if any_key else [name]:
        found = _locate(tree.get(key), rest, got, f"{field}.{key}".lstrip("."))
        if found is not None:
            return found
    return None
