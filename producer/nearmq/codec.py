"""Jobs and replies to bytes and back, format 1. Jobs come from strangers and are read strictly, replies leniently.

docs/wire.md is this contract in words. Order of a job's checks: body bytes, UTF-8, depth and duplicate keys
(`strict_json.py`), unknown keys, types (`vectors.py` for the vectors), ranges (`bounds.py`), routing key.
"""

import re
from difflib import get_close_matches
from typing import Any, get_args

import msgspec
import numpy as np
import orjson

from nearmq.bounds import DEFAULT_BOUNDS, Bounds, check_job
from nearmq.errors import Internal, InvalidArgument, LimitExceeded
from nearmq.jobs import (
    FORMAT,
    JOB_TYPES,
    Encoding,
    Hits,
    IdFormat,
    Job,
    Metric,
    Reply,
    SearchJob,
    VectorFieldSpec,
)
from nearmq.strict_json import parse_object
from nearmq.topology import TYPES_WITHOUT_COLLECTION
from nearmq.vectors import pack, read_vectors, unpack

_SLOT = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_CHOICES = {
    "metric_type": get_args(Metric),
    "encoding": get_args(Encoding),
    "id_format": get_args(IdFormat),
    "primary_key": ("int64", "string"),
}
#: The types of JSON values by the names that msgspec's messages give them.
_JSON_TYPES = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    type(None): "null",
    list: "array",
    dict: "object",
}
_FAULT = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)


def encode_job(job: Job, *, packed: bool = True, bounds: Bounds = DEFAULT_BOUNDS) -> bytes:
    """Return a job's body, after the checks that the worker will make.

    Args:
        job: its vectors, if any, are an array of shape (queries, dim) that is cast to float32.
        packed: vectors as base64, a fifth of the time and half of the bytes of nested lists.
        bounds: those that the workers are set to.

    Raises:
        InvalidArgument, LimitExceeded: as `decode_job`.
    """
    vectors = job.vectors if isinstance(job, SearchJob) else None
    plain = msgspec.structs.replace(job, vectors=None) if vectors is not None else job
    tree = {"format": FORMAT, **msgspec.to_builtins(plain, enc_hook=_as_python)}
    if vectors is not None:
        tree["vectors"] = vectors
    checked = _read_job(tree, type(job), bounds)
    if isinstance(checked, SearchJob) and checked.vectors is not None:
        tree["vectors"] = pack(checked.vectors, "<f4") if packed else checked.vectors
    body = orjson.dumps(tree, option=orjson.OPT_SERIALIZE_NUMPY)
    _check_body_bytes(body, bounds)
    return body


def decode_job(
    job_type: str,
    routing_key: str,
    body: bytes,
    *,
    content_type: str | None = None,
    content_encoding: str | None = None,
    bounds: Bounds = DEFAULT_BOUNDS,
) -> Job:
    """Return the job of a message, every value checked; its vectors are float32 (queries, dim), C-contiguous, finite.

    Raises:
        LimitExceeded: there is too much of something: bytes, depth, queries, limit, names.
        InvalidArgument: anything else, with the field at fault; an unknown key names the nearest known one.
    """
    struct = _struct_of(job_type)
    _check_content(content_type, content_encoding)
    _check_body_bytes(body, bounds)
    job = _read_job(parse_object(body, max_depth=bounds.depth), struct, bounds)
    _check_routing_key(job_type, routing_key, job)
    return job


def encode_reply(reply: Reply, *, encoding: Encoding = "json", id_format: IdFormat = "int") -> bytes:
    """Return a reply's body; the ids and distances of its hits are arrays (or lists), ids of one type throughout.

    Args:
        reply: hits as `jobs.Hits` describes them.
        encoding: `base64` packs distances, and ids that are integers.
        id_format: `string` writes integers as strings, for readers whose numbers are float64.
    """
    tree = {"format": FORMAT, **msgspec.to_builtins(msgspec.structs.replace(reply, hits=None), enc_hook=_as_python)}
    if reply.hits is not None:
        tree["hits"] = [_hits_tree(hits, encoding, id_format) for hits in reply.hits]
    return orjson.dumps(tree, option=orjson.OPT_SERIALIZE_NUMPY)


def decode_reply(body: bytes) -> Reply:
    """Return a reply, its hits as arrays: ids int64 (object where they are strings), distances float32.

    Keys and error codes that this release does not know are let pass.

    Raises:
        Internal: the body is no reply of a format that this release knows.
    """
    try:
        reply = msgspec.convert(orjson.loads(body), Reply)
        if reply.format != FORMAT:
            raise Internal(f"the reply has format {reply.format}, this client reads {FORMAT}", field="format")
        if reply.hits is None:
            return reply
        return msgspec.structs.replace(reply, hits=[_read_hits(hits) for hits in reply.hits])
    except (msgspec.ValidationError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise Internal(f"the reply cannot be read: {error}") from error


def _read_job(tree: dict[str, Any], struct: type[Job], bounds: Bounds) -> Job:
    _check_keys(tree, struct)
    try:
        job = msgspec.convert(tree, struct, dec_hook=lambda _, value: read_vectors(value, bounds))
    except msgspec.ValidationError as error:
        raise _explained(error, tree) from error
    check_job(job, bounds)
    return job


def _struct_of(job_type: str) -> type[Job]:
    struct = JOB_TYPES.get(job_type)
    if struct is None:
        raise InvalidArgument(f"unknown job type {job_type!r:.80}, {_known(job_type, JOB_TYPES)}", field="type")
    return struct


def _check_content(content_type: str | None, content_encoding: str | None) -> None:
    if content_type:
        kind, _, parameter = content_type.lower().partition(";")
        if kind.strip() != "application/json" or parameter.strip() not in {"", "charset=utf-8"}:
            raise InvalidArgument(
                f"content_type is {content_type!r:.80}, allowed is 'application/json'", field="content_type"
            )
    if content_encoding and content_encoding.lower() != "utf-8":
        raise InvalidArgument(
            f"content_encoding is {content_encoding!r:.80}, allowed are none and 'utf-8'", field="content_encoding"
        )


def _check_body_bytes(body: bytes, bounds: Bounds) -> None:
    if len(body) > bounds.body_bytes:
        raise LimitExceeded(
            f"body has {len(body)} bytes, allowed are at most {bounds.body_bytes}: split the queries, or pack them",
            field="body",
        )


def _check_routing_key(job_type: str, routing_key: str, job: Job) -> None:
    words = routing_key.split(".")
    expected = [job_type] if job_type in TYPES_WITHOUT_COLLECTION else [job_type, getattr(job, "collection", "")]
    has_slot = len(expected) > 1 and len(words) == len(expected) + 1 and _SLOT.match(words[-1])
    if (words[:-1] if has_slot else words) != expected:
        raise InvalidArgument(
            f"routing key is {routing_key!r:.300}, but type and collection make {'.'.join(expected)!r}",
            field="routing_key",
        )


def _check_keys(tree: dict[str, Any], struct: type[msgspec.Struct], path: str = "") -> None:
    known = struct.__struct_fields__
    for key in tree:
        if key not in known:
            field = f"{path}{key}"[:200]
            raise InvalidArgument(f"unknown key {field!r}, {_known(key, known)}", field=field)
    specs = tree.get("vector_fields")
    for position, spec in enumerate(specs if isinstance(specs, list) else ()):
        if isinstance(spec, dict):
            _check_keys(spec, VectorFieldSpec, f"vector_fields[{position}].")


def _known(word: str, known: Any) -> str:
    nearest = get_close_matches(word[:80], known, n=1)
    return f"did you mean {nearest[0]!r}" if nearest else f"known are {', '.join(sorted(known))}"


def _explained(error: msgspec.ValidationError, tree: dict[str, Any]) -> InvalidArgument:
    """Make an error with the field and its value from msgspec's, which has the path and the types."""
    fault = _FAULT.fullmatch(str(error))
    what, path = (fault["what"], fault["path"] or "") if fault else (str(error), "")
    if missing := re.search("missing required field `(.*)`", what):
        field = f"{path}.{missing[1]}".lstrip(".")
        return InvalidArgument(f"{field} is missing", field=field)
    field, value = _locate(tree, path, what)
    choices = _CHOICES.get(field)
    if choices:
        allowed = f"one of {', '.join(map(repr, choices))}"
    else:
        allowed = what.partition(",")[0].removeprefix("Expected ").replace("`", "")
    return InvalidArgument(f"{field} is {value!r:.80}, expected {allowed}", field=field)


def _locate(tree: Any, path: str, what: str) -> tuple[str, Any]:
    """Follow a path such as `vector_fields[0].dim`; its `[...]` is the first value of the type that `what` tells."""
    field = ""
    got = what.rpartition("got ")[2].strip("`")
    for word in re.findall(r"[^.\[\]]+|\[\.\.\.\]", path):
        if word == "[...]":
            key = next((key for key, value in tree.items() if _JSON_TYPES.get(type(value)) == got), "")
            field, tree = f"{field}.{key}", tree.get(key)
        elif isinstance(tree, list):
            field, tree = f"{field}[{word}]", tree[int(word)]
        else:
            field, tree = f"{field}.{word}".lstrip("."), tree[word]
    return field, tree


def _as_python(value: Any) -> Any:
    """Turn numpy's scalars, which callers compute limits and the like with, into Python's."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise InvalidArgument(f"{value!r:.80} of type {type(value).__name__} cannot be sent")


def _hits_tree(hits: Hits, encoding: Encoding, id_format: IdFormat) -> dict[str, Any]:
    ids = np.asarray(hits.ids)
    is_integer = ids.dtype.kind in "iu"
    if encoding == "base64":
        distances: Any = pack(np.asarray(hits.distances), "<f4")
    else:
        distances = np.ascontiguousarray(hits.distances, dtype=np.float32)
    tree: dict[str, Any] = {"ids": _ids_tree(ids, encoding, id_format) if is_integer else list(hits.ids)}
    tree["distances"] = distances
    if hits.fields is not None:
        tree["fields"] = hits.fields
    return tree


def _ids_tree(ids: np.ndarray, encoding: Encoding, id_format: IdFormat) -> Any:
    if id_format == "string":
        return list(map(str, ids.tolist()))
    if encoding == "base64":
        return pack(ids, "<i8")
    return np.ascontiguousarray(ids, dtype=np.int64)


def _read_hits(hits: Hits) -> Hits:
    ids = _read_values(hits.ids, "<i8")
    distances = _read_values(hits.distances, "<f4")
    if len(ids) != len(distances):
        raise ValueError(f"{len(ids)} ids beside {len(distances)} distances")
    return msgspec.structs.replace(hits, ids=ids, distances=distances)


def _read_values(value: Any, dtype: str) -> np.ndarray:
    if isinstance(value, dict):
        return unpack(value, value["shape"], dtype)
    if value and isinstance(value[0], str):
        return np.array(value, dtype=object)
    return np.array(value, dtype=np.dtype(dtype).newbyteorder("="))
