"""Strict JSON from strangers: what is ambiguous or deep is refused, and named, before a tree is built.

Duplicate keys are why the standard library's decoder with `object_pairs_hook` was measured. Microseconds for the body
of a search of n queries of 128 dims, to its Struct, best of 41 rounds in turn:

                                      1 packed   1,000 packed   1 nested   1,000 nested
    json + object_pairs_hook               7            500         48         49,000
    orjson, no such check                  4            240          8          7,500
    msgspec, vectors as Raw, no check      4            400          9         11,000
    this module                           11            510         17         13,400

Packed bodies, which our client sends, come out even; nested ones, which others send, take a quarter of the time. The
depth and the number of items are checked here too, which the others would have to add.
"""

import json
from typing import Any

import numpy as np
import orjson

from nearmq.errors import InvalidArgument, LimitExceeded

_BRACKETS = b"[]{}"
_NOT_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))
#: Opening is a step of +1, closing one of -1 (as int8).
_STEPS = bytes.maketrans(_BRACKETS, b"\x01\xff\x01\xff")


def parse_object(body: bytes, *, max_depth: int, max_lists: int, max_strings: int) -> dict[str, Any]:
    """Parse a body that must be one JSON object.

    Raises:
        LimitExceeded: there are more than `max_strings` strings (keys are some), or more than `max_lists` lists and
            objects (a small one takes 30 times the memory of its text), or they are nested deeper than `max_depth`.
        InvalidArgument: not UTF-8, not JSON (NaN, Infinity and numbers beyond float64 are not), not an object, or a key
            stands twice in one object.
    """
    _check_utf8(body)
    _check_count("strings", body.count(b'"') // 2, max_strings)
    structure = _outside_of_strings(body)
    brackets = structure.count(b"[") + structure.count(b"{")
    _check_count("lists and objects", brackets, max_lists)
    # Fewer opening brackets than levels cannot nest too deep: the usual packed body is done here.
    if brackets > max_depth and (depth := _depth(structure)) > max_depth:
        raise LimitExceeded(f"body is nested {depth} levels deep, allowed are {max_depth}", field="body")
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"body is not JSON: {error}", field="body") from error
    if not isinstance(tree, dict):
        raise InvalidArgument(f"body is a JSON {type(tree).__name__}, expected an object", field="body")
    # Outside of strings a colon follows each key and nothing else; keys that the tree lacks stood there twice.
    colons = structure.count(b":")
    if colons != _keys_at_first_sight(tree) and colons != _keys(tree):
        json.loads(body, object_pairs_hook=_refuse_duplicates, parse_int=float)
    return tree


def _check_count(kind: str, count: int, bound: int) -> None:
    if count > bound:
        raise LimitExceeded(f"body holds {count} {kind}, allowed are at most {bound}", field="body")


def _check_utf8(body: bytes) -> None:
    if body.isascii():  # copies nothing
        return
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"body is not UTF-8 at byte {error.start}", field="body") from error


def _outside_of_strings(body: bytes) -> bytes:
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(body.split(b'"')[::2])


def _depth(structure: bytes) -> int:
    steps = np.frombuffer(structure.translate(_STEPS, _NOT_BRACKETS), np.int8)
    return int(steps.cumsum(dtype=np.int64).max(initial=0))


def _keys_at_first_sight(tree: dict[str, Any]) -> int:
    """Count the keys of the object and of those right inside it, which most bodies have no more of."""
    return len(tree) + sum(len(value) for value in tree.values() if type(value) is dict)


def _keys(tree: Any) -> int:
    if isinstance(tree, dict):
        return len(tree) + sum(_keys(value) for value in tree.values())
    if isinstance(tree, list) and not {dict, list}.isdisjoint(map(type, tree)):
        return sum(_keys(value) for value in tree)
    return 0


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise InvalidArgument(f"key {key!r:.80} stands twice in one object", field=key[:80])
        seen.add(key)
