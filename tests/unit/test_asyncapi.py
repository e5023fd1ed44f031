"""docs/asyncapi.yaml: valid, whole, equal to what the code says, and as strict as the codec."""

import copy
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from nearmq import errors
from nearmq.bounds import Bounds
from nearmq.codec import decode_job
from nearmq.errors import InvalidArgument, NearmqError
from nearmq.jobs import JOB_TYPES
from nearmq.topology import (
    CONTROL_TYPES,
    QUEUE_TYPES,
    TYPES_WITHOUT_COLLECTION,
    Names,
    check_reply_to,
    declarations,
    routing_key,
)
from nearmq_index_store.indexes.registry import INDEX_KINDS
from scripts.asyncapi.document import document
from scripts.asyncapi.written import written
from tests.unit.test_refused_jobs import INVALID, OTHERS, ROW_JOBS
from tests.unit.test_topology import landing
from tests.unit.test_wire_bytes import FOLDER, examples
from tests.wire_document import DOCUMENT, TEXT, faults

OFFICIAL = json.loads((Path(__file__).parent / "data" / "asyncapi-3.0.0.json").read_text())
DECLARED = declarations()
NAMES = Names()
BOUNDS = Bounds()
MESSAGES = DOCUMENT["components"]["messages"]
VECTOR, SCALAR = {"name": "v", "dim": 2}, {"name": "s", "type": "int64", "nullable": True}
#: At fault where a message is wrong beside its body.
TYPING = {"type", "routing_key"}

#: What the document tells in words, in the messages of the codec.
UNSAID = re.compile(
    r"has \d+ (dimensions, vectors|rows, ids has)|cannot be unpacked|have shape \[[1-9]\d*, 0\]|is nan"
    r"|offset \+ limit|group_size is|hits, allowed|is there \d+ times|bytes, allowed|levels deep|lists and objects"
)


def test_the_document_is_what_the_code_says():
    assert written(document()) == TEXT, "docs/asyncapi.yaml is not what the code says: run `make asyncapi`"


def test_the_document_is_asyncapi_3():
    wrong = Draft7Validator(OFFICIAL).iter_errors(DOCUMENT)
    assert [f"{error.json_path}: {error.message:.200}" for error in wrong] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["channels", "search", "address"], 1),
        (["channels", "searchQueue", "bindings", "amqp", "is"], "exchange"),
        (["operations", "search", "action"], "publish"),
        (["components", "messages", "search", "body"], {}),
        (["components", "schemas", "SearchJob", "required"], "collection"),
    ],
)
def test_what_is_not_asyncapi_3_would_be_noticed(path: list[str], value: Any):
    assert not Draft7Validator(OFFICIAL).is_valid(changed(DOCUMENT, path, value))


def test_every_reference_leads_somewhere():
    for reference in references(DOCUMENT):
        assert resolved(reference) is not None


def test_every_message_and_schema_is_used():
    used = set(references({key: value for key, value in DOCUMENT.items() if key != "components"}))
    unread = list(used)
    while unread:
        new = set(references(resolved(unread.pop()))) - used
        used |= new
        unread += new
    for kind, named in DOCUMENT["components"].items():
        assert {f"#/components/{kind}/{name}" for name in named} <= used


def test_every_job_type_has_its_channel_operation_message_and_example():
    assert set(DOCUMENT["operations"]) == set(JOB_TYPES)
    for job_type in JOB_TYPES:
        operation, message = DOCUMENT["operations"][job_type], MESSAGES[job_type]
        assert operation["channel"] == {"$ref": f"#/channels/{job_type}"}
        assert list(DOCUMENT["channels"][job_type]["messages"]) == [job_type]
        assert message["bindings"]["amqp"]["messageType"] == job_type
        assert message["examples"]
        assert MESSAGES[f"{job_type}Reply"]["examples"]


@pytest.mark.parametrize("name", [name for name, message in MESSAGES.items() if "examples" in message])
def test_an_example_is_such_a_message(name: str):
    for example in MESSAGES[name]["examples"]:
        for part, value in example.items():
            assert faults(name, part, value, closed=True) == []
        if name in JOB_TYPES:
            assert refusal(name, example["payload"]) is None


def test_every_error_code_that_travels_is_listed():
    listed = DOCUMENT["components"]["schemas"]["ErrorReply"]["properties"]["code"]
    travelling = {code for code, kind in errors.BY_CODE.items() if kind not in errors.CLIENT_ONLY}
    assert set(listed["x-extensible-enum"]) == travelling
    told = re.findall(r"^- `(\w+)`: .*?( \(retryable\))?\.$", listed["description"], re.MULTILINE)
    assert {code: bool(mark) for code, mark in told} == {code: errors.BY_CODE[code].retryable for code in travelling}


def test_channels_lead_where_the_topology_leads():
    for job_type in JOB_TYPES:
        channel = DOCUMENT["channels"][job_type]
        key = channel["address"].replace("{collection}", "books")
        assert key == routing_key(job_type, None if job_type in TYPES_WITHOUT_COLLECTION else "books")
        [queue] = landing(DECLARED, key)
        if job_type in CONTROL_TYPES:
            assert (queue, "every live worker" in channel["description"]) == (NAMES.control, True)
        else:
            assert f"`{queue}`" in channel["description"]
            [named] = [one for one in DOCUMENT["channels"].values() if one["address"] == queue]
            assert job_type in named["messages"]


def test_bindings_are_what_the_topology_declares():
    exchange = DOCUMENT["components"]["channelBindings"]["jobs"]["amqp"]["exchange"]
    assert (exchange["name"], exchange["type"]) in [(one.name, one.kind) for one in DECLARED.exchanges]
    queues = [DOCUMENT["channels"][f"{pool}Queue"] for pool in QUEUE_TYPES] + [DOCUMENT["channels"]["deadLetters"]]
    assert {one["bindings"]["amqp"]["queue"]["name"] for one in queues} == {queue.name for queue in DECLARED.queues}
    defaults = {"arguments": {}, "routing_key": ""}
    for kind, listed in asdict(DECLARED).items():
        told = [{name: default for name, default in defaults.items() if name in one} for one in listed]
        assert [was | one for was, one in zip(told, DOCUMENT["x-topology"][kind], strict=True)] == list(listed)


@pytest.mark.parametrize(
    "reply_to",
    [
        *("my.results", "r", "nearmqx", "nearm", "amqp", "amq", "é" * 100, "a" * 255, "amq.rabbitmq.reply-to"),
        *("amq.rabbitmq.reply-to.g1h2AA", "nearmq.", "nearmq", "nearmq.search", "amq.gen-1", "amq.rabbitmq.reply-tom"),
        *("", "a" * 256, "amq."),
    ],
)
def test_a_reply_to_is_allowed_where_a_worker_allows_it(reply_to: str):
    try:
        check_reply_to(reply_to, NAMES)
        is_allowed = True
    except InvalidArgument:
        is_allowed = False
    told = {"type": "list", "message_id": "1", "reply_to": reply_to}
    assert (faults("list", "headers", told) == []) == is_allowed


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "get"},
        {"type": None},
        {"message_id": ""},
        {"message_id": "x" * 129},
        {"content_type": "text/plain"},
        {"content_encoding": "gzip"},
        {"delivery_mode": 3},
        {"nearmq-deadline": "soon"},
        {"nearmq-deadline": 1.5},
        {"nearmq-accept": "all"},
        {"traceparent": 1},
    ],
)
def test_wrong_properties_of_a_job_are_refused(wrong: dict[str, Any]):
    told = MESSAGES["search"]["examples"][0]["headers"]
    assert faults("search", "headers", told, closed=True) == []
    assert faults("search", "headers", told | wrong) != []


def bodies() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(FOLDER.glob("job.*.json")):
        yield path.name.split(".")[1], json.loads(path.read_bytes())
    for example in examples("job"):
        yield example.values[0], json.loads(example.values[1])


#: What is put in the place of each value of a good body, and of each key that it lacks.
WRONG = (
    *(None, True, 0, 1, -1, 7, 10.5, 2**31, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 1e300),
    *("", "a", "a b", "a\n", "*", "x" * 128, "x" * 129, "x" * 1_025),
    *([], [None], [1], [1, 1], ["a"], [1, "a"], [[1.0]], [[]], [{}]),
    *({}, {"a": 1}, {"a b": 1}, {"a": []}, {"a": None}, {"data": "", "shape": [0, 3]}, {"data": "AAAA", "shape": [1]}),
)


@pytest.mark.parametrize("job_type", JOB_TYPES)
def test_a_changed_body_is_refused_where_the_codec_refuses_it(job_type: str):
    good = [body for of, body in bodies() if of == job_type]
    for body in good:
        assert (refusal(job_type, body), faults(job_type, "payload", body)) == (None, [])
    assert sum(agree(job_type, mutant) for mutant in mutants(good, schema_of(job_type)["properties"])) > 10


#: By bound, a job type and its body with so many of something.
EDGES: dict[str, tuple[str, Callable[[int], dict[str, Any]], int]] = {
    "limit": ("search", lambda n: {"ids": [1], "limit": n}, BOUNDS.limit),
    "offset": ("search", lambda n: {"ids": [1], "limit": 1, "offset": n}, BOUNDS.limit - 1),
    "group_size": ("search", lambda n: {"ids": [1], "limit": 1, "group_by_field": "a", "group_size": n}, BOUNDS.limit),
    "ids": ("search", lambda n: {"ids": list(range(n)), "limit": 1}, BOUNDS.queries),
    "vectors": ("search", lambda n: {"vectors": [[1]] * n, "limit": 1}, BOUNDS.queries),
    "dimensions": ("search", lambda n: {"vectors": [[1] * n], "limit": 1}, BOUNDS.dim),
    "params": ("search", lambda n: {"ids": [1], "limit": 1, "params": dict.fromkeys(letters(n), 1)}, BOUNDS.params),
    "a param": ("search", lambda n: {"ids": [1], "limit": 1, "params": {"ef": n}}, 2**63 - 1),
    "names": ("search", lambda n: {"ids": [1], "limit": 1, "partition_names": ["p"] * n}, BOUNDS.names),
    "output fields": ("search", lambda n: {"ids": [1], "limit": 1, "output_fields": ["*"] * n}, BOUNDS.names),
    "decimals": ("search", lambda n: {"ids": [1], "limit": 1, "round_decimal": n}, 6),
    "min_version": ("count", lambda n: {"min_version": n}, 2**63 - 1),
    "expr": ("count", lambda n: {"expr": "x" * n}, BOUNDS.expr_bytes),
    "expr_params": ("count", lambda n: {"expr_params": dict.fromkeys(letters(n), 1)}, BOUNDS.params),
    "a name": ("drop", lambda n: {"partition_name": "x" * n}, 128),
    "a string id": ("get", lambda n: {"ids": ["x" * n]}, BOUNDS.id_bytes),
    "an integer id": ("get", lambda n: {"ids": [n]}, 2**63 - 1),
    "a small id": ("get", lambda n: {"ids": [-n]}, 2**63),
    "ids to get": ("get", lambda n: {"ids": list(range(n))}, BOUNDS.rows),
    "ids to delete": ("delete", lambda n: {"ids": list(range(n))}, BOUNDS.rows),
    "rows to query": ("query", lambda n: {"limit": n}, BOUNDS.rows),
    "after": ("query", lambda n: {"limit": 1, "after": n}, 2**63 - 1),
    "rows": ("upsert", lambda n: {"ids": list(range(n)), "vectors": [[1]] * n}, BOUNDS.rows),
    "columns": (
        "insert",
        lambda n: {"ids": [], "vectors": [], "fields": {name: [] for name in letters(n)}},
        BOUNDS.scalar_fields,
    ),
    "vector fields": ("create", lambda n: {"vector_fields": [VECTOR | {"name": a} for a in letters(n)]}, 8),
    "scalar fields": ("create", lambda n: {"scalar_fields": [SCALAR | {"name": a} for a in letters(n)]}, 64),
    "dim": ("create", lambda n: {"vector_fields": [VECTOR | {"dim": n}]}, BOUNDS.dim),
    "job ids": ("cancel", lambda n: {"job_ids": ["1"] * n}, BOUNDS.names),
    "a job id": ("cancel", lambda n: {"job_ids": ["1" * n]}, 128),
}


@pytest.mark.parametrize("case", EDGES)
def test_as_much_is_allowed_as_the_codec_allows(case: str):
    job_type, make, most = EDGES[case]
    common = {} if job_type in TYPES_WITHOUT_COLLECTION else {"collection": "books"}
    assert (refusal(job_type, common | make(most)), faults(job_type, "payload", common | make(most))) == (None, [])
    assert refusal(job_type, common | make(most + 1)) is not None
    assert faults(job_type, "payload", common | make(most + 1)) != []


def known_wrong() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the bodies that the codec's own tests refuse, of those that are JSON objects."""
    cases = {f"search: {case}": ("search", body) for case, (body, *_) in INVALID.items()}
    cases |= {f"rows: {case}": (job_type, body) for case, (job_type, body, *_) in ROW_JOBS.items()}
    cases |= {case: (job_type, body) for case, (job_type, _, body, field, *_) in OTHERS.items() if field not in TYPING}
    whole = {case: (of, {"collection": "books"} | body) for case, (of, body) in cases.items() if isinstance(body, dict)}
    del whole["search: no collection"]
    return whole


@pytest.mark.parametrize("case", known_wrong())
def test_what_the_codec_is_known_to_refuse_is_refused_or_left_to_the_worker_in_words(case: str):
    job_type, body = known_wrong()[case]
    assert refusal(job_type, body) is not None
    agree(job_type, body)


def test_an_index_of_no_kind_is_refused_though_the_codec_leaves_that_to_the_store():
    job = {"collection": "books", "vector_fields": [VECTOR | {"index": "ANNOY"}]}
    assert refusal("create", job) is None
    assert faults("create", "payload", job) != []


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("searchReply", ["status"], "done"),
        ("searchReply", ["status"], "error"),
        ("searchReply", ["version"], "17"),
        ("searchReply", ["hits"], None),
        ("searchReply", ["hits", 0, "ids"], [1.5]),
        ("searchReply", ["hits", 0, "ids"], [1, "1"]),
        ("searchReply", ["hits", 0, "distances"], ["0.5"]),
        ("searchReply", ["timing_ms", "queue"], "fast"),
        ("searchReply", ["job_id"], None),
        ("errorReply", ["error", "code"], "NO_SUCH_CODE"),
        ("errorReply", ["error", "code"], None),
        ("errorReply", ["error"], {}),
        ("progressReply", ["result", "progress"], 1.5),
        ("describeReply", ["result", "rows"], -1),
        ("describeReply", ["result", "vector_fields", 0, "dim"], "256"),
        ("upsertReply", ["result", "inserted"], None),
        ("getReply", ["result", "fields"], [1999]),
        ("loadReply", ["version"], ...),
        ("loadReply", ["surprise"], 1),
    ],
)
def test_a_changed_reply_is_refused(name: str, path: list[Any], value: Any):
    [example, *_] = [one["payload"] for one in MESSAGES[name]["examples"]]
    assert faults(name, "payload", example, closed=True) == []
    assert faults(name, "payload", changed(example, path, value), closed=True) != []


def test_a_reader_lets_keys_and_codes_of_later_releases_pass():
    [error] = [one["payload"] for one in MESSAGES["errorReply"]["examples"]]
    assert faults("errorReply", "payload", changed(error, ["error", "code"], "BRAND_NEW") | {"more": 1}) == []


def agree(job_type: str, body: dict[str, Any]) -> bool:
    """Hold the document to the codec, where it does not leave a check to the worker in words; say if both refuse."""
    refused, wrong = refusal(job_type, body), faults(job_type, "payload", body)
    if refused and not wrong:
        assert UNSAID.search(refused), (body, refused)
    elif not refused and wrong:
        assert ".index:" in wrong[0], (body, wrong)
        assert not any(f"'{kind}'" == wrong[0].split(" ")[1] for kind in INDEX_KINDS)
    return bool(refused and wrong)


def refusal(job_type: str, body: dict[str, Any]) -> str | None:
    collection = body.get("collection")
    is_named = job_type not in TYPES_WITHOUT_COLLECTION and isinstance(collection, str)
    try:
        decode_job(job_type, routing_key(job_type, collection if is_named else None), json.dumps(body).encode())
    except NearmqError as error:
        return error.message
    return None


def mutants(good: Sequence[dict[str, Any]], known: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Give bodies with one value changed, left out, or added: each of theirs once, and each key that they may have."""
    ways = {tuple(path): body for body in good for path in paths(body)}
    for path, body in ways.items():
        yield from (changed(body, path, value) for value in (..., *WRONG))
    for key in (*known, "unknown"):
        yield from (good[0] | {key: value} for value in WRONG)


def paths(tree: Any, path: Sequence[Any] = ()) -> Iterator[list[Any]]:
    """Give the way to each value in a tree; of a list only to the first."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree[:1]) if isinstance(tree, list) else ()
    for key, value in items:
        yield [*path, key]
        yield from paths(value, [*path, key])


def changed(tree: Any, path: Sequence[Any], value: Any) -> Any:
    """Return a copy with another value at a place, or with none there if it is `...`."""
    tree = copy.deepcopy(tree)
    *way, last = path
    place = tree
    for key in way:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return tree


def schema_of(job_type: str) -> Any:
    return resolved(MESSAGES[job_type]["payload"]["$ref"])


def resolved(reference: str) -> Any:
    place: Any = DOCUMENT
    for key in reference.removeprefix("#/").split("/"):
        place = place[key]
    return place


def references(tree: Any) -> Iterator[str]:
    """Give every `$ref` in a tree."""
    if isinstance(tree, dict):
        if isinstance(tree.get("$ref"), str):
            yield tree["$ref"]
        tree = tree.values()
    elif not isinstance(tree, list):
        return
    for value in tree:
        yield from references(value)


def letters(number: int) -> list[str]:
    return [f"n{position}" for position in range(number)]
