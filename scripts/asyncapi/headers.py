"""JSON Schemas of what AMQP carries beside a body: its basic properties by name, and the headers, as one object."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from nearmq.bundles import BUNDLE_TYPE
from nearmq.bundles import HEADER as ACCEPT_HEADER
from nearmq.dead_letters import QUEUE_HEADER, REASON_HEADER, REPLY_TYPE, RETRIES_HEADER
from nearmq.jobs import JOB_TYPES
from nearmq.parts import HEADER as PART_HEADER
from nearmq.topology import DEFAULT_PREFIX, DIRECT_REPLY_TO
from nearmq.value_checks import JOB_ID_CHARACTERS
from scripts.asyncapi.values import Schema, ref
from scripts.asyncapi.wire_page import WirePage

#: When the job of the examples was made, which its id tells too.
_MADE_MS = 0x0192F0C12B3C
_JOB_ID = "0192f0c1-2b3c-7d4e-8f50-617283940a1b"

_OWN = rf"{re.escape(DEFAULT_PREFIX)}(\.|$)"
_BROKERS = rf"amq\.(?!{re.escape(DIRECT_REPLY_TO.removeprefix('amq.'))}(\.|$))".replace(r"\-", "-")
#: AMQP carries names as short strings.
_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 255}
_TEXT: Schema = {"type": "string"}

_CONTENT: Mapping[str, Schema] = {
    "content_type": {"type": "string", "pattern": "^application/json(; ?charset=utf-8)?$"},
    "content_encoding": {"type": "string", "enum": ["utf-8"]},
    "delivery_mode": {"type": "integer", "enum": [1, 2]},
    "timestamp": {"type": "integer", "minimum": 0},
    "app_id": _TEXT,
}
_TRACE: Mapping[str, Schema] = {"traceparent": _TEXT, "tracestate": _TEXT}
_JOB: Mapping[str, Schema] = {
    "type": {"type": "string", "enum": list(JOB_TYPES)},
    "message_id": {"type": "string", "minLength": 1, "maxLength": JOB_ID_CHARACTERS},
    "correlation_id": _TEXT,
    "reply_to": {**_NAME, "pattern": f"^(?!{_OWN})(?!{_BROKERS})"},
    **_CONTENT,
    "nearmq-deadline": {"type": "integer"},
    ACCEPT_HEADER: {"type": "string", "enum": [BUNDLE_TYPE]},
    **_TRACE,
}
_RETRIES: Schema = {
    "description": "How often the message was put back from the dead letters.",
    "type": "integer",
    "minimum": 1,
}
_REPLY: Mapping[str, Schema] = {
    "type": {"type": "string", "enum": [REPLY_TYPE, BUNDLE_TYPE]},
    "message_id": {"description": "The reply's own.", **_NAME},
    "correlation_id": {"description": "The job's correlation id, or its id where it has none.", **_TEXT},
    **_CONTENT,
    PART_HEADER: {
        "description": "Which part of a long reply this is: `<number>/<count>`, numbers from 1.",
        "type": "string",
        "pattern": "^[1-9][0-9]{0,5}/[1-9][0-9]{0,5}$",
    },
    **_TRACE,
}
_DEAD: Mapping[str, Schema] = {
    REASON_HEADER: {"description": "Why a worker put it here.", "type": "string"},
    QUEUE_HEADER: {"description": "The queue that its job came from.", "type": "string"},
    "x-death": {"description": "The broker's own record, where it dead-lettered the message itself.", "type": "array"},
}


def header_schemas(page: WirePage) -> dict[str, Schema]:
    """Return the schemas of the properties of jobs, replies and dead letters, by name."""
    job = {key: {"description": page.meaning("Publishing a job", "property", key), **one} for key, one in _JOB.items()}
    return {
        "JobProperties": {
            "description": "AMQP's basic properties of a job by their names, and the headers of its header table.",
            **_object(["type", "message_id"], {**job, RETRIES_HEADER: _RETRIES}),
        },
        "ReplyProperties": {
            "description": "AMQP's basic properties of a reply by their names, and the headers of its header table.",
            **_object(["type", "message_id", "content_type"], {**_REPLY, RETRIES_HEADER: _RETRIES}),
        },
        "DeadLetterProperties": {
            "description": "The properties of the job or reply as they were, and what says why it is here.",
            **_object([], {**_DEAD, RETRIES_HEADER: _RETRIES}),
        },
    }


def job_properties(job_type: str) -> Schema:
    """Return the schema of the properties of one job type's messages."""
    return _narrowed("JobProperties", {"type": {"const": job_type}})


def reply_properties(reply_type: str, *required: str) -> Schema:
    """Return the schema of the properties of replies of one type; those that need no part number have none."""
    narrowed = _narrowed("ReplyProperties", {"type": {"const": reply_type}}, *required)
    if PART_HEADER not in required:
        narrowed["not"] = {"required": [PART_HEADER]}
    return narrowed


def example_properties(job_type: str) -> dict[str, Any]:
    """Return properties as a producer may give them to a job."""
    return {
        "type": job_type,
        "message_id": _JOB_ID,
        "reply_to": "my.results",
        "content_type": "application/json",
        "delivery_mode": 2,
        "timestamp": _MADE_MS // 1_000,
        "app_id": "crawler/1.0",
        "nearmq-deadline": _MADE_MS + 30_000,
    }


def _narrowed(name: str, properties: dict[str, Schema], *required: str) -> Schema:
    return {"allOf": [ref(name), _object(required, properties)]}


def _object(required: Sequence[str], properties: dict[str, Schema]) -> Schema:
    return {"type": "object", **({"required": list(required)} if required else {}), "properties": properties}
