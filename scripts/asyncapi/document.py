"""The whole document: servers, channels, an operation for each job type, messages and schemas."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nearmq.bundles import BUNDLE_TYPE, MOST_BYTES
from nearmq.dead_letters import REPLY_TYPE
from nearmq.jobs import FORMAT, JOB_TYPES
from nearmq.parts import HEADER as PART_HEADER
from nearmq.topology import (
    QUEUE_TYPES,
    TYPES_WITHOUT_COLLECTION,
    Declarations,
    Names,
    declarations,
    routing_key,
)
from scripts.asyncapi.bodies import job_schemas
from scripts.asyncapi.headers import example_properties, header_schemas, job_properties, reply_properties
from scripts.asyncapi.introduction import INTRODUCTION
from scripts.asyncapi.replies import RESULTS, TYPES_WITH_PROGRESS, reply_schemas
from scripts.asyncapi.values import NAME, Schema, ref
from scripts.asyncapi.wire_page import PATH as WIRE_PATH
from scripts.asyncapi.wire_page import WirePage

PATH = Path(__file__).parents[2] / "docs" / "asyncapi.yaml"

_JSON = "application/json"
_BINDING = {"bindingVersion": "0.3.0"}
_NAMES = Names()
_AMQPS_PORT, _AMQP_PORT = 5671, 5672


def document() -> dict[str, Any]:
    """Return the document as a tree of plain values."""
    page = WirePage(WIRE_PATH.read_text())
    declared = declarations()
    schemas = job_schemas(page) | reply_schemas(page) | header_schemas(page)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "nearmq",
            "version": str(FORMAT),
            "description": INTRODUCTION,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": _JSON,
        "servers": {"amqp": _server("amqp", _AMQP_PORT), "amqps": _server("amqps", _AMQPS_PORT)},
        "channels": {
            **{job_type: _job_channel(job_type) for job_type in JOB_TYPES},
            "replies": _replies_channel(),
            **{f"{pool}Queue": _pool_channel(pool) for pool in QUEUE_TYPES},
            "deadLetters": _queue_channel(_NAMES.dead, "What could not be answered, for operators.", ["deadLetter"]),
        },
        "operations": {job_type: _operation(job_type) for job_type in JOB_TYPES},
        "components": {
            "messages": _messages(page),
            "schemas": schemas,
            "parameters": {"collection": _collection()},
            "channelBindings": {"jobs": {"amqp": _jobs_exchange(declared)}},
            "operationBindings": {"publish": {"amqp": _PUBLISH | _BINDING}},
            "securitySchemes": {"login": {"type": "userPassword", "description": "A user of the broker."}},
        },
        "x-topology": _topology(declared),
    }


def _reply_name(job_type: str) -> str:
    """Return the name of the message that answers a job with a result."""
    return f"{job_type}Reply"


def _replies_to(job_type: str) -> list[str]:
    """Return the names of the messages that may answer a job."""
    progress = ["progressReply"] if job_type in TYPES_WITH_PROGRESS else []
    return [_reply_name(job_type), *progress, "errorReply", "replyPart", "repliesTogether"]


_PUBLISH = {"deliveryMode": 2, "mandatory": True, "timestamp": True}


def _server(protocol: str, port: int) -> dict[str, Any]:
    return {
        "host": f"{{host}}:{port}",
        "protocol": protocol,
        "protocolVersion": "0-9-1",
        "pathname": "/{virtual_host}",
        "description": "RabbitMQ, where `nearmq topology apply` has declared what `x-topology` lists.",
        "variables": {
            "host": {"default": "localhost"},
            "virtual_host": {"default": "%2F", "description": "Percent-encoded; `%2F` is the one named `/`."},
        },
        "security": [{"$ref": "#/components/securitySchemes/login"}],
    }


def _job_channel(job_type: str) -> dict[str, Any]:
    collection = None if job_type in TYPES_WITHOUT_COLLECTION else "{collection}"
    queue = _NAMES.queue_of(job_type)
    channel: dict[str, Any] = {
        "address": routing_key(job_type, collection),
        "description": f"Lands in `{queue}`." if queue else "A copy goes to every live worker; best effort.",
        "messages": _message_refs([job_type]),
        "bindings": {"$ref": "#/components/channelBindings/jobs"},
    }
    if collection:
        channel["parameters"] = {"collection": {"$ref": "#/components/parameters/collection"}}
    return channel


def _replies_channel() -> dict[str, Any]:
    names = dict.fromkeys(name for job_type in JOB_TYPES for name in _replies_to(job_type))
    return {
        "address": None,
        "description": (
            "The queue that a job's `reply_to` names. Workers publish to it through the default exchange, in hardened "
            f"mode through `{_NAMES.replies}` alone: bind it there under its own name. Declare it durable and with "
            "`x-expires`, and it keeps replies while the producer reconnects."
        ),
        "messages": _message_refs(names),
        "bindings": _queue_binding("my.results"),
    }


def _pool_channel(pool: str) -> dict[str, Any]:
    known = [job_type for job_type in QUEUE_TYPES[pool] if job_type in JOB_TYPES]
    return _queue_channel(_NAMES.queue(pool), "Where workers take these jobs from; publish nothing here.", known)


def _queue_channel(name: str, description: str, messages: Iterable[str]) -> dict[str, Any]:
    return {
        "address": name,
        "description": description,
        "messages": _message_refs(messages),
        "bindings": _queue_binding(name),
    }


def _queue_binding(name: str) -> dict[str, Any]:
    queue = {"name": name, "durable": True, "exclusive": False, "autoDelete": False}
    return {"amqp": {"is": "queue", "queue": queue, **_BINDING}}


def _jobs_exchange(declared: Declarations) -> dict[str, Any]:
    [jobs] = [exchange for exchange in declared.exchanges if exchange.name == _NAMES.jobs]
    exchange = {"name": jobs.name, "type": jobs.kind, "durable": True, "autoDelete": False}
    return {"is": "routingKey", "exchange": exchange, **_BINDING}


def _message_refs(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _operation(job_type: str) -> dict[str, Any]:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{job_type}"},
        "summary": _summary(job_type),
        "messages": [{"$ref": f"#/channels/{job_type}/messages/{job_type}"}],
        "bindings": {"$ref": "#/components/operationBindings/publish"},
        "reply": {
            "address": {"location": "$message.header#/reply_to"},
            "channel": {"$ref": "#/channels/replies"},
            "messages": [{"$ref": f"#/channels/replies/messages/{name}"} for name in _replies_to(job_type)],
        },
    }


def _summary(job_type: str) -> str:
    doc = JOB_TYPES[job_type].__doc__ or ""
    return " ".join(doc.partition("\n\n")[0].split())


def _collection() -> dict[str, Any]:
    return {
        "description": f"The collection's name, that of the body: it matches `{NAME['pattern']}`.",
        "location": "$message.payload#/collection",
        "examples": ["books"],
    }


def _messages(page: WirePage) -> dict[str, Any]:
    jobs = {job_type: _job_message(job_type, page) for job_type in JOB_TYPES}
    answers = {_reply_name(job_type): _answer(job_type, page) for job_type in JOB_TYPES}
    progress = _result_of(["partial"], {"result": ref("ProgressResult")})
    error = _result_of(["error"], {"error": ref("ErrorReply")})
    return {
        **jobs,
        **answers,
        "progressReply": _reply("How far a job is; its last reply is still to come.", progress, page, "progress"),
        "errorReply": _reply("Why a job has no result.", error, page, "error"),
        "replyPart": {
            **_message(
                f"A slice of the body of a long reply: join those of one `message_id` in the order of `{PART_HEADER}`.",
                reply_properties(REPLY_TYPE, "correlation_id", PART_HEADER),
                {"type": "string", "contentEncoding": "binary"},
                REPLY_TYPE,
            ),
            "correlationId": _CORRELATION,
        },
        "repliesTogether": _message(
            f"The replies to several jobs that said `nearmq-accept: {BUNDLE_TYPE}`, each known by its `job_id`; at "
            f"most {MOST_BYTES:,} bytes.",
            reply_properties(BUNDLE_TYPE),
            {"type": "array", "minItems": 2, "items": ref("Reply")},
            BUNDLE_TYPE,
        ),
        "deadLetter": {
            "summary": "A job or reply that nobody took, with the body that it had.",
            "headers": ref("DeadLetterProperties"),
            "payload": {"description": "Anything: a job that cannot be read lands here too."},
        },
    }


_CORRELATION = {"location": "$message.header#/correlation_id"}


def _message(summary: str, headers: Schema, payload: Schema, message_type: str) -> dict[str, Any]:
    return {
        "summary": summary,
        "contentType": _JSON,
        "headers": headers,
        "payload": payload,
        "bindings": {"amqp": {"messageType": message_type, **_BINDING}},
    }


def _job_message(job_type: str, page: WirePage) -> dict[str, Any]:
    payload = ref(JOB_TYPES[job_type].__name__)
    examples = [{"payload": body} for body in page.examples("job", job_type)]
    examples[0] = {"headers": example_properties(job_type), **examples[0]}
    message = _message(_summary(job_type), job_properties(job_type), payload, job_type)
    return message | {"correlationId": _CORRELATION, "examples": examples}


def _answer(job_type: str, page: WirePage) -> dict[str, Any]:
    if job_type == "search":
        given = {"hits": ref("Hits")}
        payload = _result_of(["ok", "partial"], given, "version")
    else:
        version = [] if job_type in TYPES_WITHOUT_COLLECTION else ["version"]
        payload = _result_of(["ok"], {"result": ref(RESULTS[job_type])}, *version)
    alike = [of for of in JOB_TYPES if RESULTS.get(of, of) == RESULTS.get(job_type, job_type)]
    return _reply(f"The result of `{job_type}`.", payload, page, *alike)


def _result_of(status: list[str], given: dict[str, Schema], *required: str) -> Schema:
    """Return the schema of replies that have one of these states, and what stands in them."""
    properties = {"status": {"enum": status}, **given}
    return {"allOf": [ref("Reply"), {"required": [*given, *required], "properties": properties}]}


def _reply(summary: str, payload: Schema, page: WirePage, *like: str) -> dict[str, Any]:
    message = _message(summary, reply_properties(REPLY_TYPE, "correlation_id"), payload, REPLY_TYPE)
    examples = [{"payload": body} for example in like for body in page.examples("reply", example)]
    return message | {"correlationId": _CORRELATION, "examples": examples}


def _topology(declared: Declarations) -> dict[str, Any]:
    """Return what `nearmq topology apply` declares, which AMQP's bindings of AsyncAPI have no words for."""
    return {
        kind: [{key: value for key, value in one.items() if value not in ("", {})} for one in listed]
        for kind, listed in asdict(declared).items()
    }
