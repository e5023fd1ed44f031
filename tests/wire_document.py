"""docs/asyncapi.yaml as validators of messages, strict where JSON Schema's own reading is lax."""

import copy
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from jsonschema import Draft7Validator, ValidationError, validators
from referencing import Registry
from referencing.jsonschema import DRAFT7
from ruamel.yaml import YAML

from scripts.asyncapi.document import PATH

TEXT = PATH.read_text()
DOCUMENT: dict[str, Any] = YAML(typ="safe", pure=True).load(TEXT)

_URI = "urn:nearmq"
#: Schemas that say nothing of what else stands beside their keys.
_OPEN = {"DeadLetterProperties"}


def faults(message: str, part: str, value: Any, *, closed: bool = False) -> list[str]:
    """Return what is wrong with the `headers` or the `payload` of a message of the document; empty if nothing is.

    Args:
        closed: refuse what only later releases may add: keys and codes that the document does not name.
    """
    return [
        f"{error.json_path}: {error.message:.300}" for error in _validator(message, part, closed).iter_errors(value)
    ]


def _integer(_: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)  # 10.0 is none


def _pattern(_: Any, pattern: str, value: Any, __: Any) -> Iterator[ValidationError]:
    """As ECMAScript has it, whose `$` is no line break's place."""
    if isinstance(value, str) and not re.search(re.sub(r"\$(?=\)|$)", r"\\Z", pattern), value):
        yield ValidationError(f"{value!r:.80} does not match {pattern}")


_Strict = validators.extend(
    Draft7Validator, {"pattern": _pattern}, type_checker=Draft7Validator.TYPE_CHECKER.redefine("integer", _integer)
)


@cache
def _validator(message: str, part: str, closed: bool) -> Draft7Validator:
    schema = {"$ref": f"{_URI}#/components/messages/{message}/{part}"}
    return _Strict(schema, registry=_registry(closed))


@cache
def _registry(closed: bool) -> Registry[Any]:
    document = copy.deepcopy(DOCUMENT)
    if closed:
        for name, schema in document["components"]["schemas"].items():
            if name not in _OPEN:
                _close(schema)
    return Registry().with_resource(_URI, DRAFT7.create_resource(document))


def _close(schema: Mapping[str, Any]) -> None:
    """Let an object have no key, and a text no value, that its schema does not name."""
    if not isinstance(schema, dict):
        return
    if "x-extensible-enum" in schema:
        schema["enum"] = schema["x-extensible-enum"]
    properties = schema.get("properties", {})
    if properties:
        schema.setdefault("additionalProperties", False)
    items = schema.get("items")
    for inner in (*properties.values(), *schema.get("anyOf", ()), schema.get("additionalProperties"), items):
        _close(inner)
