"""JSON Schemas of replies: the Struct that all have in common, the forms of hits, and the result of each job type."""

from collections.abc import Mapping
from typing import get_args

import msgspec

from nearmq.errors import BY_CODE, CLIENT_ONLY
from nearmq.jobs import FORMAT, PrimaryKey, Reply, ScalarType
from nearmq.query_hits import Hits
from scripts.asyncapi.bodies import plain
from scripts.asyncapi.values import BASE64, INTEGER_ID, NAME, REF, STRING_ID, VERSION, Schema, ref
from scripts.asyncapi.wire_page import WirePage


def reply_schemas(page: WirePage) -> dict[str, Schema]:
    """Return the schemas of a reply's body and of what it refers to, by name."""
    _, found = msgspec.json.schema_components([Reply], schema_hook=_hook, ref_template=REF)
    schemas = {name: plain(schema) for name, schema in found.items()}
    for key, value in schemas["Reply"]["properties"].items():
        one = _without_null(value) | _RANGES.get(key, {})
        schemas["Reply"]["properties"][key] = _told(one, page.meaning("Replies", "key", key))
    schemas["Reply"]["required"] = ["format", *schemas["Reply"]["required"]]
    schemas["ErrorReply"]["properties"]["code"] |= _codes(page)
    explanation = {key: _told(one, page.meaning("To a search", "key", key)) for key, one in _EXPLANATION.items()}
    results = {RESULTS[of]: _result(of, page) for of in RESULTS}
    return {**schemas, **_SHAPES, "Explanation": _object(explanation), "ProgressResult": _PROGRESS, **results}


def _hook(kind: type) -> Schema:
    if kind is Hits:
        return ref("Hits")
    raise NotImplementedError(kind)


def _told(schema: Schema, meaning: str) -> Schema:
    return {"description": meaning, **schema}


def _without_null(schema: Schema) -> Schema:
    """Return the schema of a key that is left out rather than null."""
    if "anyOf" in schema:
        [one] = [branch for branch in schema["anyOf"] if branch != {"type": "null"}]
        return {"allOf": [one]}
    if isinstance(schema.get("type"), list):
        [kind] = [kind for kind in schema["type"] if kind != "null"]
        return schema | {"type": kind}
    return schema


def _codes(page: WirePage) -> Schema:
    codes = {code: kind for code, kind in BY_CODE.items() if kind not in CLIENT_ONLY}
    lines = [
        f"- `{code}`: {page.meaning('Errors', 'code', code)}{' (retryable)' if kind.retryable else ''}."
        for code, kind in codes.items()
    ]
    return {
        "description": "\n".join(["Later releases may add codes: take an unknown one by its `retryable`.", "", *lines]),
        "pattern": "^[A-Z_]+$",
        "x-extensible-enum": list(codes),
    }


def _result(job_type: str, page: WirePage) -> Schema:
    told = page.meaning("To the other jobs", "job", job_type)
    return _told(_RESULTS[RESULTS[job_type]], told)


def _object(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """Return the schema of an object, which later releases may add keys to."""
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


def _array(items: Schema, **facets: int) -> Schema:
    return {"type": "array", **facets, "items": items}


def _packed(description: str, axes: int) -> Schema:
    shape = _array(_COUNT, minItems=axes, maxItems=axes)
    data = {"type": "string", "contentEncoding": "base64", "pattern": BASE64}
    return _told(_object({"data": data, "shape": shape}), description)


def _choice(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


_COUNT: Schema = {"type": "integer", "minimum": 0}
_NUMBER: Schema = {"type": "number"}
_MILLISECONDS: Schema = {"type": "number", "minimum": 0}
_SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_FLAG: Schema = {"type": "boolean"}
_TEXT: Schema = {"type": "string"}

_IDS: Schema = {"anyOf": [_array(INTEGER_ID), _array(STRING_ID), ref("PackedIds")]}
_LISTED_IDS: Schema = {"anyOf": [_array(INTEGER_ID), _array(STRING_ID)]}
_COLUMNS: Schema = {"type": "object", "propertyNames": NAME, "additionalProperties": {"type": "array"}}
_MATRICES: Schema = {
    "type": "object",
    "propertyNames": NAME,
    "additionalProperties": {"anyOf": [_array(_array(_NUMBER)), ref("PackedVectors")]},
}

#: What the checks of a reader add to the Struct's types.
_RANGES: Mapping[str, Schema] = {
    "format": {"const": FORMAT},
    "version": VERSION,
    "attempt": {"minimum": 1},
    "explain": {"type": "array", "items": ref("Explanation")},
}
#: The forms of hits and rows that `hits.py` and `stored_rows.py` write.
_SHAPES: Mapping[str, Schema] = {
    "Hits": {
        "description": "One entry a query, or to a job with `encoding: base64` packed arrays over all queries.",
        "anyOf": [_array(ref("QueryHits")), ref("PackedHits")],
    },
    "QueryHits": {
        "description": "The hits of one query, nearest first, ties by smaller id; `fields` if any were asked for.",
        **_object({"ids": _LISTED_IDS, "distances": _array(_NUMBER)}, {"fields": _COLUMNS}),
    },
    "PackedHits": {
        "description": "The hits of all queries one after the other, how many each has, and fields of each query.",
        **_object(
            {"counts": _array(_COUNT), "ids": _IDS, "distances": ref("PackedDistances")}, {"fields": _array(_COLUMNS)}
        ),
    },
    "PackedIds": _packed("The base64 of little-endian int64 values, and how many.", 1),
    "PackedDistances": _packed("The base64 of little-endian float32 values, and how many.", 1),
    "PackedVectors": _packed("The base64 of little-endian float32 values, row by row; rows, dimensions.", 2),
}
#: The keys of `explain`, of each segment.
_EXPLANATION: Mapping[str, Schema] = {
    **dict.fromkeys(("segment", "partition"), _TEXT),
    **dict.fromkeys(("rows", "deleted", "allowed"), _COUNT),
    "selectivity": _SHARE,
    "index": _TEXT,
    "way": _choice("index", "exact"),
    "params": {"type": "object", "additionalProperties": _NUMBER},
    "exact_queries": _COUNT,
    **dict.fromkeys(("cached", "filter_cached"), _FLAG),
    **dict.fromkeys(("load_ms", "search_ms"), _MILLISECONDS),
}
_WRITTEN: Mapping[str, Schema] = {"collection": NAME, "version": VERSION}
_SLOWDOWN: Mapping[str, Schema] = {"slowdown_ms": _COUNT}
_VECTOR_FIELD = _object(
    {"name": NAME, "dim": _COUNT, "metric_type": _TEXT, "index": _TEXT}
    | {"index_params": {"type": "object", "additionalProperties": {"type": "integer"}}}
)
_SCALAR_FIELD = _object({"name": NAME, "type": _choice(*get_args(ScalarType)), "nullable": _FLAG})
_PARTITION = _object({"name": NAME, "rows": _COUNT, "segments": _COUNT, "bytes": _COUNT})
_HELD_JOB = _object(
    {"job_id": _TEXT, "type": _TEXT, "collection": {"type": ["string", "null"]}}
    | {"state": _choice("waiting", "running"), "age_s": _MILLISECONDS, "queries": _COUNT, "attempt": _COUNT}
)
_RESULTS: Mapping[str, Schema] = {
    "CatalogResult": _object(_WRITTEN),
    "ListResult": _object({"collections": _array(NAME)}),
    "DescribeResult": _object(
        {"name": NAME, "id": _TEXT, "version": VERSION, "primary_key": _choice(*get_args(PrimaryKey))}
        | {"vector_fields": _array(_VECTOR_FIELD), "scalar_fields": _array(_SCALAR_FIELD)}
        | {"partitions": _array(_PARTITION), "rows": _COUNT, "segments": _COUNT, "bytes": _COUNT}
    ),
    "UpsertResult": _object({**_WRITTEN, "inserted": _COUNT, "replaced": _COUNT}, _SLOWDOWN),
    "InsertResult": _object({**_WRITTEN, "inserted": _COUNT}, _SLOWDOWN),
    "DeleteResult": _object({**_WRITTEN, "deleted": _COUNT}, _SLOWDOWN),
    "RowsResult": _object({"ids": _IDS, "fields": _COLUMNS}, {"vectors": _MATRICES}),
    "CountResult": _object({"count": _COUNT}),
    "CompactResult": _object(
        {**_WRITTEN, **dict.fromkeys(("segments_before", "segments_after", "rows", "dropped"), _COUNT)}
    ),
    "LoadResult": _object({"segments": _COUNT, "bytes": _COUNT}),
    "ReleaseResult": _object({"bytes": _COUNT}),
    "CancelResult": _object(
        {"states": {"type": "object", "additionalProperties": _choice("waiting", "running", "writing", "absent")}}
    ),
    "PingResult": _object({"version": _TEXT, "uptime_s": _MILLISECONDS}, {"jobs": _array(_HELD_JOB)}),
}
_PROGRESS = {
    "description": "How far a load, compact or build is, and what a compact or build is at.",
    **_object({"progress": _SHARE}, {"stage": _choice("reading", "building", "storing", "committing")}),
}
#: By job type, the name of its result's schema; a search has hits instead.
RESULTS: Mapping[str, str] = {
    **dict.fromkeys(("create", "drop", "rename"), "CatalogResult"),
    "list": "ListResult",
    "describe": "DescribeResult",
    "upsert": "UpsertResult",
    "insert": "InsertResult",
    "delete": "DeleteResult",
    **dict.fromkeys(("get", "query"), "RowsResult"),
    "count": "CountResult",
    **dict.fromkeys(("compact", "build"), "CompactResult"),
    "load": "LoadResult",
    "release": "ReleaseResult",
    "cancel": "CancelResult",
    "ping": "PingResult",
}
#: The jobs that get `partial` replies.
TYPES_WITH_PROGRESS = ("load", "compact", "build")
