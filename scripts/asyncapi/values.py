"""JSON Schemas of single values that jobs and replies have in common: names, ids, versions, vectors."""

from typing import Any

import numpy as np

from nearmq.bounds import DEFAULT_BOUNDS
from nearmq.value_checks import INT64, NAME_PATTERN

Schema = dict[str, Any]

REF = "#/components/schemas/{name}"
MOST = DEFAULT_BOUNDS
_FLOAT32_MOST = float(np.finfo(np.float32).max)

BASE64 = r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
NAME: Schema = {"type": "string", "pattern": NAME_PATTERN}
INTEGER_ID: Schema = {"type": "integer", "minimum": INT64.start, "maximum": INT64.stop - 1}
STRING_ID: Schema = {"type": "string", "maxLength": MOST.id_bytes}
VERSION: Schema = {"type": "integer", "minimum": 0, "maximum": INT64.stop - 1}


def ref(name: str) -> Schema:
    """Return a reference to a schema of the document."""
    return {"$ref": REF.format(name=name)}


def matrix() -> Schema:
    """Return the schema of vectors, in lists or packed."""
    number = {"type": "number", "minimum": -_FLOAT32_MOST, "maximum": _FLOAT32_MOST}
    row = {"type": "array", "minItems": 1, "maxItems": MOST.dim, "items": number}
    rows = {"type": "array", "maxItems": MOST.rows, "items": row}
    axes = [{"type": "integer", "minimum": 0, "maximum": most} for most in (MOST.rows, MOST.dim)]
    packed = {
        "type": "object",
        "required": ["data", "shape"],
        "additionalProperties": False,
        "properties": {
            "data": {
                "description": "The base64 of the little-endian float32 values, row by row.",
                "type": "string",
                "contentEncoding": "base64",
                "pattern": BASE64,
            },
            "shape": {
                "description": "Rows, dimensions.",
                "type": "array",
                "minItems": 2,
                "items": axes,
                "additionalItems": False,
            },
        },
    }
    return {
        "description": "Vectors, all of one dimension: a list of numbers each, or packed.",
        "anyOf": [rows, packed],
    }


def row_vectors() -> Schema:
    """Return the schema of the vectors of a row write."""
    named = {
        "type": "object",
        "minProperties": 1,
        "propertyNames": NAME,
        "additionalProperties": ref("Matrix"),
    }
    return {
        "description": "The vectors of the only vector field, or of each one by its name.",
        "anyOf": [ref("Matrix"), named],
    }
