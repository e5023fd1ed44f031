"""What a dead letter tells of itself, and what of it is published again."""

from typing import Any

import pytest

from nearmq.dead_letters import DeadLetter, Selection, by_cause
from nearmq.transport import Message


def letter(body: bytes = b"{}", **facts: Any) -> DeadLetter:
    headers = facts.pop("headers", {})
    plain = {name: value for name, value in headers.items() if isinstance(value, str | int)}
    message = {"routing_key": "search.books", "type": "search", "message_id": "job-1"} | facts
    return DeadLetter(message=Message(body=body, headers=plain, **message), headers=headers, tag=1)


BY_WORKER = {"nearmq-reason": "there is no queue 'reply.guest.7'", "nearmq-queue": "nearmq.search"}
BY_BROKER = {
    "x-death": [{"reason": "delivery_limit", "queue": "nearmq.search", "count": 1}, {"reason": "expired"}],
    "x-delivery-count": 20,
}
REPLY = {"type": "reply", "routing_key": "reply.guest.7", "message_id": "r-1", "correlation_id": "job-1"}


@pytest.mark.parametrize(
    ("headers", "reason", "cause", "queue"),
    [
        (BY_WORKER, "there is no queue 'reply.guest.7'", "there is no queue '…'", "nearmq.search"),
        (BY_BROKER, "delivery_limit", "delivery_limit", "nearmq.search"),
        (BY_BROKER | BY_WORKER, "there is no queue 'reply.guest.7'", "there is no queue '…'", "nearmq.search"),
        ({}, "unroutable", "unroutable", None),
        ({"x-death": "nonsense"}, "unroutable", "unroutable", None),
        ({"x-death": [{}]}, "unroutable", "unroutable", None),
    ],
)
def test_the_reason_is_the_workers_else_the_brokers(headers: Any, reason: str, cause: str, queue: str | None):
    dead = letter(headers=headers)
    assert (dead.reason, dead.cause, dead.queue) == (reason, cause, queue)


def test_a_job_goes_again_as_it_was_without_what_made_it_a_dead_letter():
    own = {"traceparent": "00-1", "nearmq-retries": 2}
    dead = letter(
        b"body", headers=own | BY_WORKER | BY_BROKER | {"nearmq-deadline": 1}, correlation_id="c", reply_to="r"
    )
    again = dead.again()
    assert again.headers == {"traceparent": "00-1", "nearmq-retries": 3}
    assert (again.message_id, again.correlation_id, again.reply_to, again.body) == ("job-1", "c", "r", b"body")
    assert (again.type, again.routing_key) == ("search", "search.books")


def test_a_part_of_a_reply_stays_that_part():
    again = letter(headers={"nearmq-part": "2/3"} | BY_WORKER, **REPLY).again()
    assert again.headers == {"nearmq-part": "2/3", "nearmq-retries": 1}
    assert again.routing_key == "reply.guest.7"


def test_a_reply_is_known_by_its_jobs_id_and_is_of_no_collection():
    dead = letter(headers=BY_WORKER, **REPLY)
    assert (dead.is_reply, dead.job_id, dead.collection) == (True, "job-1", None)
    assert letter(routing_key="list", type="list").collection is None
    assert letter(routing_key="search.books.s017").collection == "books"


@pytest.mark.parametrize(
    ("selection", "taken"),
    [
        (Selection(), ["a", "b", "c"]),
        (Selection(causes=("there is no queue",)), ["c"]),
        (Selection(causes=("there is no queue '…'", "JOB_")), ["b", "c"]),
        (Selection(causes=("there is no queue 'reply.guest.7'",)), ["c"]),
        (Selection(types=("search", "upsert"), collections=("books",)), ["a"]),
        (Selection(collections=("books", "films")), ["a", "b"]),
        (Selection(job_ids=("a", "c", "d")), ["a", "c"]),
        (Selection(job_ids=("a",), types=("upsert",)), []),
    ],
)
def test_a_selection_takes_what_matches_each_of_its_lists(selection: Selection, taken: list[str]):
    letters = [
        letter(message_id="a", headers=BY_BROKER),
        letter(message_id="b", type="upsert", routing_key="upsert.films", headers={"nearmq-reason": "JOB_EXPIRED"}),
        letter(headers=BY_WORKER, **REPLY | {"correlation_id": "c"}),
    ]
    assert [each.job_id for each in letters if selection.takes(each)] == taken


def test_groups_are_by_cause_and_the_largest_comes_first():
    letters = [
        letter(b"12", timestamp_s=50, headers={"nearmq-reason": "JOB_EXPIRED"}),
        letter(b"1", timestamp_s=30, headers={"nearmq-reason": "there is no queue 'a'"}, **REPLY),
        letter(b"123", timestamp_s=20, headers={"nearmq-reason": "there is no queue 'b'"}, **REPLY),
        letter(b"", timestamp_s=0, headers={"nearmq-reason": "there is no queue 'c'"}),
    ]
    first, second = by_cause(letters)
    assert (first.cause, first.letters, first.bytes) == ("there is no queue '…'", 3, 4)
    assert (first.types, first.collections) == ({"reply": 2, "search": 1}, {"books": 1})
    assert (first.first_s, first.last_s) == (20, 30)
    assert (second.cause, second.letters) == ("JOB_EXPIRED", 1)
