"""What is kept of replies whose jobs come again, and for which jobs it counts."""

from collections.abc import Sequence

from msgspec.structs import replace

from nearmq.transport import Message
from nearmq_index_store.errors import StoreUnavailable
from nearmq_worker.answered import AnsweredJobs

JOB = Message(routing_key="search.books", type="search", message_id="1", body=b"{}", reply_to="replies")


class Shared:
    """Notes that live as long as the test, or none when it is away."""

    def __init__(self) -> None:
        self.notes: dict[str, bytes] = {}
        self.is_away = False

    def put(self, notes: dict[str, bytes], expiry_s: int) -> None:
        assert expiry_s > 0
        if self.is_away:
            raise StoreUnavailable("away")
        self.notes |= notes

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        if self.is_away:
            raise StoreUnavailable("away")
        return [self.notes.get(key) for key in keys]


def test_a_reply_is_known_to_its_own_worker_and_by_the_notes_to_others():
    shared = Shared()
    own, other, without = AnsweredJobs(shared), AnsweredJobs(shared), AnsweredJobs()
    own.note(JOB, b"reply")
    without.note(JOB, b"reply")
    own.close()
    unknown = replace(JOB, message_id="2")
    assert own.replies([unknown, JOB]) == [None, b"reply"]
    assert other.replies([JOB, unknown]) == [b"reply", None]
    assert without.replies([JOB, unknown]) == [b"reply", None]


def test_only_the_same_job_gets_the_reply():
    answered = AnsweredJobs()
    answered.note(JOB, b"reply")
    for change in ({"body": b"{ }"}, {"type": "count"}, {"routing_key": "search.films"}, {"correlation_id": "c"}):
        assert answered.replies([replace(JOB, **change)]) == [None]


def test_writes_and_long_replies_are_not_kept():
    answered = AnsweredJobs()
    write = replace(JOB, type="upsert")
    answered.note(write, b"reply")
    answered.note(JOB, bytes(65_537))
    assert answered.replies([write, JOB]) == [None, None]


def test_without_the_server_nothing_is_known_and_nothing_fails():
    shared = Shared()
    shared.is_away = True
    answered = AnsweredJobs(shared)
    answered.note(JOB, b"reply")
    answered.close()
    assert answered.replies([JOB, replace(JOB, message_id="2")]) == [b"reply", None]
