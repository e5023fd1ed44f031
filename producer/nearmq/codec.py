"""Jobs and replies to bytes and back, format 1. Jobs come from strangers and are read strictly, replies leniently.

docs/wire.md is this contract in words. Order of a job's checks: body bytes, UTF-8, depth and duplicate keys
(`strict_json.py`), unknown keys and types (`strict_struct.py`, `vectors.py`), ranges (`job_checks.py`), routing key.
"""

import re
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import orjson

from nearmq.bounds import DEFAULT_BOUNDS, Bounds
from nearmq.errors import Internal, InvalidArgument, LimitExceeded
from nearmq.hits import read_hits, write_hits
from nearmq.job_checks import check_job
from nearmq.jobs import FORMAT, JOB_TYPES, Encoding, FloatMatrix, IdFormat, Job, Reply, RowWriteJob, SearchJob
from nearmq.query_hits import Hits
from nearmq.row_checks import check_finite
from nearmq.search_texts import Known, Text, cut
from nearmq.strict_json import parse_object
from nearmq.strict_struct import nearest, to_struct
from nearmq.topology import TYPES_WITHOUT_COLLECTION
from nearmq.vectors import encoded, pack, read_data, read_row_vectors, read_vectors

#: The levels that a value of a row write stands in: the body, its `fields`, and the column.
_VALUE_DEPTH = 3

_SLOT = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


@dataclass(frozen=True, slots=True)
class _Read:
    """A search that was read, without its vectors, and their shape."""

    job: SearchJob
    shape: tuple[int, ...]


class _OfJob(msgspec.Struct, frozen=True, gc=False):
    """What tells whose a reply is."""

    job_id: str


_BUNDLE = msgspec.json.Decoder(list[msgspec.Raw])
_JOB_ID = msgspec.json.Decoder(_OfJob)
_REPLY = msgspec.json.Decoder(Reply, dec_hook=lambda _, hits: read_hits(hits))

_written: Known[Text] = Known()
_read: Known[_Read] = Known()


def encode_job(job: Job, *, packed: bool = True, bounds: Bounds = DEFAULT_BOUNDS) -> bytes:
    """Return a job's body, after the checks that the worker will make.

    Args:
        job: its vectors, if any, are an array of shape (queries, dim) that is cast to float32.
        packed: vectors as base64, a fifth of the time and half of the bytes of nested lists.
        bounds: those that the workers are set to.

    Raises:
        InvalidArgument, LimitExceeded: as `decode_job`.
    """
    key = _text_key(job, bounds) if packed else None
    if key is not None and (text := _written.get(key)) is not None:
        return text.around(encoded(read_vectors(job.vectors, bounds), "<f4"))  # type: ignore[attr-defined]  # a search's
    body = _encode_whole(job, bounds, packed=packed)
    if key is not None and (found := cut(body)) is not None:
        _written.put(key, found[0])
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
    found = cut(body)
    key = found and (job_type, routing_key, content_type, content_encoding, found[0], bounds)
    if found is not None and (known := _read.get(key)) is not None:
        vectors = read_data(found[1], known.shape)
        if vectors is not None:  # else reading the whole tells what is wrong with them
            return msgspec.structs.replace(known.job, vectors=vectors)
    struct = _struct_of(job_type)
    _check_content(content_type, content_encoding)
    _check_body_bytes(body, bounds)
    job = _read_job(_parse(body, struct, bounds), struct, bounds)
    _check_routing_key(job_type, routing_key, job)
    if found is not None and isinstance(job, SearchJob) and job.vectors is not None:
        _read.put(key, _Read(msgspec.structs.replace(job, vectors=None), job.vectors.shape))
    return job


def encode_reply(reply: Reply, *, encoding: Encoding = "json", id_format: IdFormat = "int") -> bytes:
    """Return a reply's body; the ids of all its hits are of one type.

    Args:
        reply: hits as `query_hits.Hits` has them; arrays in its result are written as lists.
        encoding: `base64` packs distances, and ids that are integers (`hits.py`).
        id_format: `string` writes integers as strings, for readers whose numbers are float64.
    """

    def written(value: Any) -> Any:
        if isinstance(value, Hits):
            return write_hits(value, encoding, id_format)
        if isinstance(value, np.ndarray):
            return msgspec.Raw(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))
        return _as_python(value)

    return msgspec.json.encode(reply, enc_hook=written)


def decode_bundle(body: bytes) -> list[tuple[str, msgspec.Raw]]:
    """Return the replies of a bundle, each as `decode_reply` reads it, beside the id of its job.

    Raises:
        Internal: the body is no list of objects that each have the id of their job.
    """
    try:
        return [(_JOB_ID.decode(reply).job_id, reply) for reply in _BUNDLE.decode(body)]
    except (ValueError, RecursionError) as error:
        raise Internal(f"the replies cannot be read: {error}") from error


def decode_reply(body: bytes | msgspec.Raw) -> Reply:
    """Return a reply, its hits as arrays: ids int64 (object where they are strings), distances float32.

    Keys and error codes that this release does not know are let pass.

    Raises:
        Internal: the body is no reply of a format that this release knows.
    """
    try:
        reply = _REPLY.decode(body)
    except (KeyError, OverflowError, TypeError, ValueError, RecursionError) as error:
        raise Internal(f"the reply cannot be read: {error}") from error
    if reply.format != FORMAT:
        raise Internal(f"the reply has format {reply.format}, this client reads {FORMAT}", field="format")
    return reply


def _encode_whole(job: Job, bounds: Bounds, *, packed: bool) -> bytes:
    vectors: Any = job.vectors if isinstance(job, SearchJob | RowWriteJob) else None
    plain = msgspec.structs.replace(job, vectors=None) if vectors is not None else job
    # Bytes stay bytes, which orjson refuses; base64 in a text field would be nobody's wish.
    tree = {"format": FORMAT, **msgspec.to_builtins(plain, enc_hook=_as_python, builtin_types=(bytes, bytearray))}
    if vectors is not None:
        tree["vectors"] = vectors
    if isinstance(job, RowWriteJob) and "fields" in tree:
        check_finite(tree["fields"])
    checked = _read_job(tree, type(job), bounds)
    if vectors is not None:
        read: FloatMatrix | dict[str, FloatMatrix] = checked.vectors  # type: ignore[attr-defined]  # as the job has
        tree["vectors"] = _packed(read) if packed else read
    try:
        body = orjson.dumps(tree, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError as error:
        raise InvalidArgument(f"the job cannot be written as JSON: {error}") from error
    _check_body_bytes(body, bounds)
    return body


def _text_key(job: Job, bounds: Bounds) -> tuple[object, ...] | None:
    """Return what is equal only for searches of one text; None of a job that is written whole."""
    if not (isinstance(job, SearchJob) and isinstance(job.vectors, np.ndarray)):
        return None
    try:
        # Unlike JSON's, these bytes tell strings from bytes, and 1 from true.
        plain = msgspec.msgpack.encode(msgspec.structs.replace(job, vectors=None), enc_hook=_as_python)
    except (OverflowError, TypeError, ValueError):  # which writing the whole refuses by name
        return None
    return plain, job.vectors.shape, bounds


def _parse(body: bytes, struct: type[Job], bounds: Bounds) -> dict[str, Any]:
    if issubclass(struct, RowWriteJob):
        depth = _VALUE_DEPTH + bounds.json_depth
        return parse_object(body, max_depth=depth, max_lists=bounds.row_lists, max_strings=bounds.row_strings)
    return parse_object(body, max_depth=bounds.depth, max_lists=bounds.items, max_strings=bounds.items)


def _packed(vectors: FloatMatrix | dict[str, FloatMatrix]) -> dict[str, Any]:
    if isinstance(vectors, dict):
        return {name: pack(matrix, "<f4") for name, matrix in vectors.items()}
    return pack(vectors, "<f4")


def _read_job(tree: dict[str, Any], struct: type[Job], bounds: Bounds) -> Job:
    job = to_struct(tree, struct, read_array=lambda value: read_vectors(value, bounds))
    if isinstance(job, RowWriteJob):
        job = msgspec.structs.replace(job, vectors=read_row_vectors(job.vectors, bounds))
    check_job(job, bounds)
    return job


def _struct_of(job_type: str) -> type[Job]:
    struct = JOB_TYPES.get(job_type)
    if struct is None:
        raise InvalidArgument(f"unknown job type {job_type!r:.80}, {nearest(job_type, JOB_TYPES)}", field="type")
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
            f"body has {len(body)} bytes, allowed are at most {bounds.body_bytes}: split the queries or rows, "
            "or pack them",
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


def _as_python(value: Any) -> Any:
    """Turn numpy's scalars, which callers compute limits and the like with, into Python's."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise InvalidArgument(f"{value!r:.80} of type {type(value).__name__} cannot be sent")
