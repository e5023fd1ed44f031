"""JSON Schemas of the bodies of jobs: types and defaults of the Structs, with the ranges that the codec checks."""

from collections.abc import Sequence

import msgspec
import numpy as np

from nearmq.jobs import JOB_TYPES, TYPE_OF
from scripts.asyncapi.ranges import RANGES, RANGES_OF, TOGETHER
from scripts.asyncapi.values import REF, Schema, matrix, ref, row_vectors
from scripts.asyncapi.wire_page import WirePage

#: The first column of the tables of the objects that stand in a create.
_HEADERS = {"VectorFieldSpec": "key of a vector field", "ScalarFieldSpec": "key of a scalar field"}


def job_schemas(page: WirePage) -> dict[str, Schema]:
    """Return the schema of each job type's body and of what these refer to, by name."""
    _, found = msgspec.json.schema_components(JOB_TYPES.values(), schema_hook=_hook, ref_template=REF)
    types = {struct.__name__: job_type for struct, job_type in TYPE_OF.items()}
    schemas = {name: _job_schema(types.get(name, ""), found[name], page) for name in found}
    return schemas | {"Matrix": matrix(), "RowVectors": row_vectors()}


def plain(schema: Schema) -> Schema:
    """Return a schema of msgspec's as one would write it by hand: no titles, short unions, no default of null."""
    made: Schema = {}
    for key, value in schema.items():
        if key == "anyOf":
            made |= _union([plain(branch) for branch in value])
        elif key == "properties":
            made[key] = {name: plain(one) for name, one in value.items()}
        elif key in {"items", "additionalProperties"} and isinstance(value, dict):
            made[key] = plain(value)
        elif key == "description":
            made[key] = " ".join(value.partition("\n\n")[0].split())
        elif key != "title" and (key, value) not in (("default", None), ("required", [])):
            made[key] = value
    return made


def _hook(kind: type) -> Schema:
    if kind is np.ndarray:
        return ref("Matrix")
    raise NotImplementedError(kind)


def _union(branches: Sequence[Schema]) -> Schema:
    detailed = [branch for branch in branches if set(branch) != {"type"}]
    if len(detailed) > 1 or any("$ref" in branch for branch in detailed):
        return {"anyOf": list(branches)}
    types = [branch["type"] for branch in branches if "type" in branch]
    if "number" in types and "integer" in types:
        types.remove("integer")
    [rest] = detailed or [{}]
    if "enum" in rest:  # the rest of the union is null
        return {"enum": [*rest["enum"], None]}
    return rest | {"type": types if len(types) > 1 else types[0]}


def _job_schema(job_type: str, schema: Schema, page: WirePage) -> Schema:
    """Return the schema of a job's body, or of an object that stands in one."""
    made = plain(schema)
    ranges = {**RANGES, **RANGES_OF.get(schema["title"], {})}
    for key, value in made["properties"].items():
        facets = ranges.get(key, {})
        known = {} if "anyOf" in facets or "allOf" in facets else value  # these say all that the Struct's type does
        made["properties"][key] = {"description": _meaning(schema["title"], job_type, key, page), **known, **facets}
    return {**made, **TOGETHER.get(job_type, {})}


def _meaning(title: str, job_type: str, key: str, page: WirePage) -> str:
    if key == "format":
        return "The number of the wire contract."
    heading = _HEADERS.get(title)
    return page.meaning("create", heading, key) if heading else page.job_key(job_type, key)
