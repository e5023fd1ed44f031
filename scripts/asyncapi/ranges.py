"""What the checks of `job_checks.py`, `row_checks.py` and `value_checks.py` add to the types of the jobs' Structs."""

from collections.abc import Mapping
from typing import Any

from nearmq.job_checks import ROUND_DECIMAL
from nearmq.jobs import FORMAT
from nearmq.value_checks import ALL_FIELDS, INT64, JOB_ID_CHARACTERS, NAME_PATTERN
from nearmq_index_store.indexes.registry import INDEX_KINDS
from scripts.asyncapi.values import INTEGER_ID, MOST, STRING_ID, VERSION, Schema, ref

_OR_NULL: list[Schema] = [{"type": "null"}]
_NAMED: Schema = {"pattern": NAME_PATTERN}
_VERSION: Schema = {key: value for key, value in VERSION.items() if key != "type"}
_PARAMETER: Schema = {"exclusiveMinimum": -INT64.stop, "exclusiveMaximum": INT64.stop}


def _names(pattern: str = NAME_PATTERN) -> Schema:
    return {"minItems": 1, "maxItems": MOST.names, "items": {"type": "string", "pattern": pattern}}


def _ids(most: int, *, is_optional: bool = False, **facets: Any) -> Schema:
    """Return the schema of ids that are all integers or all strings."""
    arrays = [{"type": "array", "maxItems": most, **facets, "items": one} for one in (INTEGER_ID, STRING_ID)]
    return {"anyOf": [*arrays, *_OR_NULL] if is_optional else arrays}


def _params(kind: str) -> Schema:
    return {
        "maxProperties": MOST.params,
        "propertyNames": _NAMED,
        "additionalProperties": {"type": kind, **_PARAMETER},
    }


#: By key.
RANGES: Mapping[str, Schema] = {
    "format": {"const": FORMAT},
    **dict.fromkeys(("collection", "new_name", "partition_name", "field", "group_by_field", "name"), _NAMED),
    "partition_names": _names(),
    "output_fields": _names(NAME_PATTERN.replace("^", rf"^(\{ALL_FIELDS}|").replace("$", ")$")),
    "offset": {"minimum": 0, "maximum": MOST.limit - 1},
    "group_size": {"minimum": 1, "maximum": MOST.limit},
    "round_decimal": {"minimum": ROUND_DECIMAL.start, "maximum": ROUND_DECIMAL.stop - 1},
    "min_version": _VERSION,
    "version": _VERSION,
    "after": {**INTEGER_ID, **STRING_ID, "type": ["integer", "string", "null"]},
    "expr": {"maxLength": MOST.expr_bytes},
    "expr_params": {"maxProperties": MOST.params},
    "params": _params("number"),
    "index_params": _params("integer"),
    "job_ids": {
        "minItems": 1,
        "maxItems": MOST.names,
        "items": {"type": "string", "minLength": 1, "maxLength": JOB_ID_CHARACTERS},
    },
    "fields": {
        "maxProperties": MOST.scalar_fields,
        "propertyNames": _NAMED,
        "additionalProperties": {"type": "array", "maxItems": MOST.rows},
    },
    "dim": {"minimum": 1, "maximum": MOST.dim},
    "index": {"enum": list(INDEX_KINDS)},
    "vector_fields": {"maxItems": MOST.vector_fields},
    "scalar_fields": {"maxItems": MOST.scalar_fields},
}
_ROW_WRITE: Mapping[str, Schema] = {
    "ids": _ids(MOST.rows, uniqueItems=True),
    "vectors": {"allOf": [ref("RowVectors")]},
}
#: By Struct and key, where a range is its own.
RANGES_OF: Mapping[str, Mapping[str, Schema]] = {
    "SearchJob": {
        "limit": {"minimum": 1, "maximum": MOST.limit},
        "ids": _ids(MOST.queries, is_optional=True),
    },
    "QueryJob": {"limit": {"minimum": 1, "maximum": MOST.rows}},
    "GetJob": {"ids": _ids(MOST.rows)},
    "DeleteJob": {"ids": _ids(MOST.rows, is_optional=True)},
    "UpsertJob": _ROW_WRITE,
    "InsertJob": _ROW_WRITE,
}


def _given(key: str, **facets: Any) -> Schema:
    """Return the schema of a body in which a key stands and is not null."""
    return {"required": [key], "properties": {key: facets or {"not": {"type": "null"}}}}


_NOT_GIVEN: Schema = {"type": "null"}
_EMPTY: Schema = {"maxItems": 0}
_OF_A_COLLECTION = _given("vector_fields", minItems=1)
_OF_A_PARTITION = _given("partition_name", type="string")
_ADDED = _given("scalar_fields", minItems=1, items=_given("nullable", const=True))
_OF_A_COLLECTION["properties"] |= {"partition_name": _NOT_GIVEN}
_OF_A_PARTITION["properties"] |= {"vector_fields": _EMPTY, "scalar_fields": _EMPTY}
_ADDED["properties"] |= {"vector_fields": _EMPTY, "partition_name": _NOT_GIVEN}
#: By job type, which keys go together.
TOGETHER: Mapping[str, Schema] = {
    "search": {
        "oneOf": [_given("vectors"), _given("ids")],
        "if": _given("group_size", minimum=2),
        "then": _given("group_by_field"),
    },
    "delete": {"oneOf": [_given("ids"), _given("expr")]},
    "create": {"oneOf": [_OF_A_COLLECTION, _OF_A_PARTITION, _ADDED]},
}
