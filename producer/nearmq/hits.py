"""The hits of a search on the wire: in JSON one object a query; packed, one array over all queries and their counts.

    "hits": [{"ids": [7, 3], "distances": [0.1, 0.4]}, {"ids": [9], "distances": [0.2]}]
    "hits": {"counts": [2, 1], "ids": {"data": …, "shape": [3]}, "distances": {"data": …, "shape": [3]}}

Packing one array a query would cost more than plain JSON does.
"""

from collections.abc import Sequence
from itertools import chain, repeat
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

from nearmq.jobs import Encoding, IdFormat
from nearmq.query_hits import Hits
from nearmq.vectors import from_bytes

_INT64, _FLOAT32 = np.dtype("<i8"), np.dtype("<f4")


class _Packed(msgspec.Struct, frozen=True, gc=False):
    """The values of an array, little-endian; msgspec has bytes as base64."""

    data: bytes
    shape: list[int]

    def values(self, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        return from_bytes(self.data, self.shape, dtype)


class _PackedHits(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    counts: Sequence[Annotated[int, msgspec.Meta(ge=0)]]
    ids: _Packed | Sequence[int | str]
    distances: _Packed
    fields: Sequence[dict[str, list[Any]] | None] | None = None


msgspec.json.Decoder(_PackedHits)  # learns the types before there are threads, see `jobs.py`


def write_hits(hits: Hits, encoding: Encoding, id_format: IdFormat) -> Any:
    """Return what msgspec writes under a reply's `hits`."""
    as_integers = hits.ids.dtype.kind in "iu" and id_format == "int"
    if encoding == "base64":
        ids = _packed(hits.ids, _INT64) if as_integers else _as_strings(hits.ids)
        return _PackedHits(hits.counts, ids, _packed(hits.distances, _FLOAT32), hits.fields)
    rows = [
        _without_none(
            ids=row.ids if as_integers else _as_strings(row.ids),
            distances=row.distances,
            fields=fields,
        )
        for row, fields in zip(hits, hits.fields or repeat(None, len(hits)), strict=True)
    ]
    return msgspec.Raw(orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY))


def read_hits(value: Any) -> Hits:
    """Return the hits of all queries; keys that this release does not know are let pass.

    Raises:
        KeyError, TypeError, ValueError: it is not of the form above.
    """
    if isinstance(value, dict):
        packed = msgspec.convert(value, _PackedHits)
        counts, fields = packed.counts, packed.fields or None
        ids = packed.ids.values(_INT64) if isinstance(packed.ids, _Packed) else _array(packed.ids, np.int64)
        distances = packed.distances.values(_FLOAT32)
    else:
        counts = [len(row["ids"]) for row in value]
        if counts != [len(row["distances"]) for row in value]:
            raise ValueError("ids and distances differ in length")
        ids = _array(list(chain.from_iterable(row["ids"] for row in value)), np.int64)
        distances = _array(list(chain.from_iterable(row["distances"] for row in value)), np.float32)
        fields = [row.get("fields") for row in value]
    if not sum(counts) == len(ids) == len(distances):
        raise ValueError(f"counts come to {sum(counts)}, beside {len(ids)} ids and {len(distances)} distances")
    if fields is not None and len(fields) != len(counts):
        raise ValueError(f"there are fields of {len(fields)} queries, and counts of {len(counts)}")
    return Hits(counts, ids, distances, fields)


def _packed(values: npt.NDArray[Any], dtype: np.dtype[Any]) -> _Packed:
    return _Packed(values.astype(dtype, copy=False).tobytes(), [len(values)])


def _as_strings(ids: npt.NDArray[Any]) -> list[str]:
    return list(map(str, ids.tolist()))


def _array(values: Sequence[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    with np.errstate(over="ignore"):  # as float32, what is beyond it becomes infinite
        return np.array(values, dtype=object if values and isinstance(values[0], str) else dtype)


def _without_none(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
