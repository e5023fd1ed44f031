"""Stored rows on the wire, as `get` and `query` are answered: `{"ids": …, "fields": …, "vectors": …}`, a value a row.

{"ids": [9, 7], "fields": {"year": [2024, 1999]}, "vectors": {"title": [[0.5, -1.25], [0.0, 2.0]]}}
{"ids": {"data": …, "shape": [2]}, "fields": {"year": [2024, 1999]}, "vectors": {"title": {"data": …, "shape": [2, 2]}}}
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nearmq.jobs import Encoding, FloatMatrix, IdFormat
from nearmq.vectors import pack, unpack

Ids = npt.NDArray[np.int64] | npt.NDArray[np.object_]


def write_rows(
    ids: Sequence[int] | Sequence[str] | Ids,
    fields: Mapping[str, list[Any]],
    vectors: Mapping[str, FloatMatrix],
    *,
    encoding: Encoding = "json",
    id_format: IdFormat = "int",
) -> dict[str, Any]:
    """Return the `result` of a get or query.

    Args:
        ids: all integers or all strings.
        fields: of each scalar output field its values as JSON has them, one a row.
        vectors: of each vector output field its vectors, shape (rows, dim).
        encoding: `base64` packs vectors, and ids that are integers.
        id_format: `string` writes integer ids as strings.
    """
    packed = encoding == "base64"
    tree: dict[str, Any] = {"ids": _write_ids(ids, encoding, id_format), "fields": dict(fields)}
    if vectors:
        tree["vectors"] = {name: pack(matrix, "<f4") if packed else matrix for name, matrix in vectors.items()}
    return tree


def read_rows(tree: Mapping[str, Any]) -> tuple[Ids, dict[str, list[Any]], dict[str, FloatMatrix]]:
    """Return ids (int64, or str objects), fields and vectors of a get's or query's `result`.

    Raises:
        KeyError, TypeError, ValueError: it is not of the form above.
    """
    ids = _read_ids(tree["ids"])
    fields = dict(tree.get("fields") or {})
    vectors = {name: _read_matrix(matrix, len(ids)) for name, matrix in (tree.get("vectors") or {}).items()}
    for name, column in (fields | vectors).items():
        if len(column) != len(ids):
            raise ValueError(f"{name!r} has {len(column)} values beside {len(ids)} ids")
    return ids, fields, vectors


def _write_ids(ids: Sequence[int] | Sequence[str] | Ids, encoding: Encoding, id_format: IdFormat) -> Any:
    keys = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    if keys and (isinstance(keys[0], str) or id_format == "string"):
        return list(map(str, keys))
    return pack(np.array(keys, np.int64), "<i8") if encoding == "base64" else keys


def _read_ids(ids: Any) -> Ids:
    if isinstance(ids, dict):
        return unpack(ids, ids["shape"], "<i8")
    return np.array(ids, dtype=object if ids and isinstance(ids[0], str) else np.int64)


def _read_matrix(matrix: Any, rows: int) -> FloatMatrix:
    if isinstance(matrix, dict):
        return unpack(matrix, matrix["shape"], "<f4")
    return np.array(matrix, dtype=np.float32).reshape(rows, -1) if rows else np.empty((0, 0), np.float32)
