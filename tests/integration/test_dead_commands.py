"""`nearmq dead list | show | retry | drop` on a real broker: nothing is lost, whenever it is stopped."""

import json
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from nearmq import dead_runs
from nearmq.amqp import DeadLetterQueue, apply_topology
from nearmq.cli import run
from nearmq.dead_letters import Selection
from nearmq.dead_runs import Outcome
from nearmq.errors import BrokerUnavailable
from nearmq.topology import Names, declarations
from nearmq.transport import ConnectionLost
from tests.integration.peer import Peer, eventually, peer
from tests.worker_process import NEARMQ

pytestmark = pytest.mark.broker

NAMES = Names()
SEARCH, MAINTAIN, DEAD = NAMES.queue("search"), NAMES.queue("maintain"), NAMES.dead
NO_QUEUE = "there is no queue 'reply.guest.gone'"


@pytest.fixture
def url(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    apply_topology(broker_url, declarations())
    monkeypatch.setenv("NEARMQ_URL", broker_url)
    return broker_url


@pytest.fixture
def other(url: str) -> Iterator[Peer]:
    with peer(url) as other:
        yield other


def bury(other: Peer, count: int, *, reason: str = "it crashed", first: int = 0, **properties: Any) -> list[str]:
    """Put jobs into the dead letters as a worker does; return their ids, in order."""
    ids = [f"job-{number:05}" for number in range(first, first + count)]
    facts = {"routing_key": "search.books", "type": "search"} | properties
    routing_key = facts.pop("routing_key")
    headers = {"nearmq-reason": reason, "nearmq-queue": SEARCH} | facts.pop("headers", {})
    for message_id in ids:
        other.publish(
            routing_key,
            f"body of {message_id}".encode(),
            exchange=DEAD,
            message_id=message_id,
            delivery_mode=2,
            headers=headers,
            timestamp=1_700_000_000,
            **facts,
        )
    eventually(lambda: other.count(DEAD) >= count, "the dead letters")
    return ids


def taken(other: Peer, queue: str) -> list[tuple[Any, bytes]]:
    """Take all that waits in a queue."""
    messages = []
    while (message := other.channel.basic_get(queue, auto_ack=True))[0] is not None:
        messages.append(message[1:])
    return messages


def ids_in(other: Peer, queue: str) -> list[str]:
    return [properties.message_id for properties, _ in taken(other, queue)]


def kept(properties: Any) -> dict[str, Any]:
    """All headers but what the queue that it was got from counts."""
    return {name: value for name, value in properties.headers.items() if name != "x-delivery-count"}


def answer(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    assert run(["dead", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_dead_letters_are_counted_by_cause_whoever_buried_them(other: Peer, capsys: pytest.CaptureFixture[str]):
    bury(other, 3)
    bury(other, 2, reason=NO_QUEUE, type="reply", routing_key="reply.guest.gone", correlation_id="job-x")
    other.publish("nobody.knows", exchange=NAMES.jobs, message_id="lost", type="nobody")
    other.publish("search.films", exchange=NAMES.jobs, message_id="late", type="search", expiration="1")
    eventually(lambda: other.count(DEAD) == 7, "the dead letters of the broker")

    counted = answer(capsys, "list")

    assert counted["letters"] == 7
    by_cause = {group["cause"]: group for group in counted["causes"]}
    assert {cause: group["letters"] for cause, group in by_cause.items()} == {
        "it crashed": 3,
        "there is no queue '…'": 2,
        "unroutable": 1,
        "expired": 1,
    }
    assert by_cause["it crashed"] | {"bytes": 0} == {
        "cause": "it crashed",
        "letters": 3,
        "bytes": 0,
        "types": {"search": 3},
        "collections": {"books": 3},
        "first_published": "2023-11-14T22:13:20Z",
        "last_published": "2023-11-14T22:13:20Z",
    }
    assert answer(capsys, "list", "--type", "search", "--collection", "films")["causes"][0]["cause"] == "expired"
    assert run(["dead", "list"]) == 0
    assert "it crashed" in capsys.readouterr().out


def test_without_any_the_list_says_so_and_without_a_topology_what_to_do(
    other: Peer, capsys: pytest.CaptureFixture[str]
):
    assert run(["dead", "list"]) == 0
    assert capsys.readouterr().out == "no dead letters\n"
    other.channel.queue_delete(DEAD)
    assert run(["dead", "list"]) == 3
    assert "run `nearmq topology apply`" in capsys.readouterr().err


def test_a_letter_is_shown_with_its_headers_and_when_asked_its_body(other: Peer, capsys: pytest.CaptureFixture[str]):
    other.publish("search.films", b"\xff", exchange=NAMES.jobs, message_id="late", type="search", expiration="1")
    eventually(lambda: other.count(DEAD) == 1, "the dead letter")
    bury(other, 1, reply_to="reply.guest.1")
    assert run(["dead", "show", "--json", "--body"]) == 0
    late, job = map(json.loads, capsys.readouterr().out.splitlines())
    assert (late["reason"], late["queue"], late["body_base64"]) == ("expired", SEARCH, "/w==")
    (death,) = late["headers"]["x-death"]
    assert (death["queue"], death["reason"], death["count"]) == (SEARCH, "expired", 1)
    assert (job["job_id"], job["reply_to"], job["body"]) == ("job-00000", "reply.guest.1", "body of job-00000")
    assert job["headers"]["nearmq-reason"] == "it crashed"
    assert run(["dead", "show", "--limit", "1", "--body"]) == 0
    table = capsys.readouterr().out
    assert "late" in table
    assert "/w==" in table


def test_a_look_leaves_every_letter_as_it_was_and_in_its_place(other: Peer, capsys: pytest.CaptureFixture[str]):
    ids = bury(other, 900)  # of several pages
    for arguments in (
        ["list"],
        ["list", "--job-id", "job-00400"],
        ["retry", "-n"],
        ["drop", "-n"],
        ["retry", "-n", "-k1"],
    ):
        answer(capsys, *arguments)
    assert run(["dead", "show", "--limit", "300"]) == 0
    eventually(lambda: other.count(DEAD) == 900, "all letters back")
    messages = taken(other, DEAD)
    assert [properties.message_id for properties, _ in messages] == ids
    assert [body.decode() for _, body in messages] == [f"body of {message_id}" for message_id in ids]
    assert {properties.headers["nearmq-reason"] for properties, _ in messages} == {"it crashed"}


def start(*arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([NEARMQ, "dead", *arguments], stdout=subprocess.PIPE)


def test_a_look_that_is_killed_in_the_middle_leaves_every_letter_in_its_place(other: Peer):
    ids = bury(other, 900)
    process = start("show", "--limit", "900", "--json")
    assert process.stdout is not None
    process.stdout.read(1_000)  # it stands still when the pipe is full, in the middle
    eventually(lambda: other.count(DEAD) < 900, "some letters taken")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    eventually(lambda: other.count(DEAD) == 900, "all letters back")
    assert ids_in(other, DEAD) == ids


def test_a_retried_job_is_in_its_queue_as_it_was_and_the_others_stay(other: Peer, capsys: pytest.CaptureFixture[str]):
    ids = bury(other, 6, headers={"traceparent": "00-1", "nearmq-deadline": 5}, reply_to="r", correlation_id="c")
    builds = bury(other, 3, first=6, type="build", routing_key="build.books", reason="JOB_EXPIRED")

    counted = answer(capsys, "retry", "--type", "search", "--limit", "4", "--dry-run")
    assert (counted["letters"], counted["causes"][0]["cause"]) == (4, "it crashed")
    done = answer(capsys, "retry", "--type", "search", "--limit", "4")

    assert (done["retried"], done["failed"], done["dry_run"]) == (4, 0, False)
    messages = taken(other, SEARCH)
    assert [(properties.message_id, body.decode()) for properties, body in messages] == [
        (message_id, f"body of {message_id}") for message_id in ids[:4]
    ]
    for properties, _ in messages:
        assert kept(properties) == {"traceparent": "00-1", "nearmq-retries": 1}
        assert (properties.type, properties.reply_to, properties.correlation_id) == ("search", "r", "c")
        assert properties.timestamp == 1_700_000_000
    eventually(lambda: other.count(DEAD) == 5, "the others back")
    assert answer(capsys, "retry", "--cause", "JOB_")["retried"] == 3
    assert ids_in(other, MAINTAIN) == builds
    assert ids_in(other, DEAD) == ids[4:]


def test_what_the_broker_buried_goes_back_without_its_records_of_that(other: Peer, capsys: pytest.CaptureFixture[str]):
    other.publish("search.films", exchange=NAMES.jobs, message_id="late", type="search", expiration="1")
    eventually(lambda: other.count(DEAD) == 1, "the dead letter")
    assert answer(capsys, "retry")["retried"] == 1
    properties, _ = other.get(SEARCH)
    assert kept(properties) == {"nearmq-retries": 1}
    assert properties.expiration is None


def test_a_job_that_no_queue_takes_is_back_once_and_counts_its_retries(other: Peer, capsys: pytest.CaptureFixture[str]):
    other.publish("nobody.knows", exchange=NAMES.jobs, message_id="lost", type="nobody")
    eventually(lambda: other.count(DEAD) == 1, "the dead letter")
    for retries in (1, 2):
        assert answer(capsys, "retry")["retried"] == 1
        eventually(lambda: other.count(DEAD) == 1, "the dead letter again")
        assert run(["dead", "show", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["retries"] == retries


def test_a_reply_goes_to_its_own_queue_and_stays_while_there_is_none(other: Peer, capsys: pytest.CaptureFixture[str]):
    (reply,) = bury(other, 1, reason=NO_QUEUE, type="reply", routing_key="reply.guest.gone", correlation_id="job-x")
    bury(other, 1, first=1)

    done = answer(capsys, "retry", code=4)
    assert (done["retried"], done["failed_by_cause"]) == (1, {"there is no queue '…'": 1})
    assert answer(capsys, "retry", "--job-id", "job-x", code=1)["retried"] == 0

    other.channel.queue_declare("reply.guest.gone", durable=True)
    assert answer(capsys, "retry")["retried"] == 1
    properties, body = other.get("reply.guest.gone")
    assert (properties.message_id, properties.correlation_id, properties.type) == (reply, "job-x", "reply")
    assert (properties.headers, body) == ({"nearmq-retries": 1}, b"body of job-00000")
    assert other.count(DEAD) == 0


def test_in_hardened_mode_a_reply_goes_through_the_exchange_of_replies(other: Peer, capsys: pytest.CaptureFixture[str]):
    other.channel.queue_declare("reply.a.1", durable=True)
    other.channel.queue_bind("reply.a.1", NAMES.replies, "bound")
    bury(other, 1, reason=NO_QUEUE, type="reply", routing_key="bound", correlation_id="job-x")
    bury(other, 1, first=1, reason=NO_QUEUE, type="reply", routing_key="other", correlation_id="job-y")
    done = answer(capsys, "retry", "--reply-pattern", "b.*", code=4)
    assert (done["retried"], list(done["failed_by_cause"])) == (
        1,
        ["reply_to '…' does not match '…', the pattern of hardened mode"],
    )
    assert ids_in(other, "reply.a.1") == ["job-00000"]


@pytest.mark.parametrize("address", ["nearmq.maintain", "nearmq.dead", "amq.gen-x"])
def test_a_forged_reply_reaches_no_queue_of_nearmqs_or_the_brokers_own(
    other: Peer, capsys: pytest.CaptureFixture[str], address: str
):
    bury(other, 1, type="reply", routing_key=address)
    assert answer(capsys, "retry", code=1)["failed"] == 1
    assert (other.count(MAINTAIN), other.count(DEAD)) == (0, 1)


def refusing_queue(other: Peer) -> None:
    """A pool of its own that takes no job."""
    other.channel.queue_declare("full", durable=True, arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
    other.channel.queue_bind("full", NAMES.jobs, "search.full")


def test_a_job_that_its_queue_refuses_stays(other: Peer, capsys: pytest.CaptureFixture[str]):
    refusing_queue(other)
    bury(other, 2, routing_key="search.full")
    bury(other, 2, first=2)
    done = answer(capsys, "retry", code=4)
    assert (done["retried"], done["failed_by_cause"]) == (2, {"the queue for '…' is full": 2})
    assert (ids_in(other, SEARCH), ids_in(other, DEAD)) == (["job-00002", "job-00003"], ["job-00000", "job-00001"])


def test_a_long_run_gives_back_what_it_holds_and_tries_each_letter_once(url: str, other: Peer):
    refusing_queue(other)
    bury(other, 3, routing_key="search.full")
    bury(other, 5, first=3)
    outcome, opened = Outcome(), []

    def open_queue() -> DeadLetterQueue:
        opened.append(1)
        return DeadLetterQueue(url, NAMES)

    dead_runs.put_back(open_queue, Selection(), outcome, limit=7, rate=None, on_progress=lambda *_: None, hold_s=0.0)
    assert (outcome.done, outcome.failed.total(), len(opened)) == (4, 3, 7)
    assert Counter(ids_in(other, SEARCH)) == {f"job-{number:05}": 1 for number in range(3, 7)}
    assert ids_in(other, DEAD) == ["job-00000", "job-00001", "job-00002", "job-00007"]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_retry_that_is_stopped_in_the_middle_loses_nothing(other: Peer, sent: signal.Signals):
    ids = bury(other, 900)
    process = start("retry", "--rate", "50", "--json")
    eventually(lambda: other.count(SEARCH) > 20, "some jobs put back")
    process.send_signal(sent)
    output, _ = process.communicate(timeout=60)
    eventually(lambda: other.count(SEARCH) + other.count(DEAD) >= 900, "all others back")
    retried, dead = ids_in(other, SEARCH), ids_in(other, DEAD)
    assert 20 < len(retried) < 900
    assert sorted({*retried, *dead}) == ids
    assert dead == sorted(dead)
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert json.loads(output)["retried"] == len(retried)
        assert len(retried) + len(dead) == 900


def test_dropping_asks_says_how_many_and_leaves_the_others(other: Peer, capsys: pytest.CaptureFixture[str]):
    bury(other, 3)
    others = bury(other, 2, first=3, reason="JOB_EXPIRED")
    assert run(["dead", "drop", "--no-input"]) == 2
    assert "to drop 5 dead letters for good needs --force" in capsys.readouterr().err
    assert answer(capsys, "drop", "--cause", "it crashed", "-n")["letters"] == 3
    assert answer(capsys, "drop", "--cause", "it crashed", "--force")["dropped"] == 3
    assert answer(capsys, "drop", "--cause", "nothing like it")["dropped"] == 0
    eventually(lambda: other.count(DEAD) == 2, "the others back")
    assert answer(capsys, "drop", "--limit", "1", "--force")["dropped"] == 1
    assert ids_in(other, DEAD) == others[1:]


def test_a_lost_connection_is_an_error_and_everything_is_back(url: str, other: Peer):
    bury(other, 5)
    with DeadLetterQueue(url, NAMES) as queue:
        letter = next(queue.letters())
        queue._connection.call(lambda: queue._connection.drop(ConnectionLost("cut")))
        for call in (queue.count, partial(queue.drop, letter), queue.put_back(letter).result):
            with pytest.raises(ConnectionLost):
                call()
    eventually(lambda: other.count(DEAD) == 5, "all back")


def opener(url: str) -> Callable[[], DeadLetterQueue]:
    return partial(DeadLetterQueue, url, NAMES)


def test_while_one_looks_another_sees_fewer_and_neither_waits_for_ever(url: str, other: Peer):
    bury(other, 300)
    look = partial(dead_runs.look, opener(url), Selection(), limit=None, on_progress=lambda *_: None)
    first = look()
    next(first)
    assert len(list(look())) == 300 - 256
    assert len(list(first)) == 299
    eventually(lambda: other.count(DEAD) == 300, "all back")


def test_letters_that_do_not_come_are_not_waited_for(url: str, other: Peer, monkeypatch: pytest.MonkeyPatch):
    bury(other, 3)
    monkeypatch.setattr("nearmq.amqp.dead_letters._SILENCE_S", 0.5)
    given = []
    with DeadLetterQueue(url, NAMES) as queue, monkeypatch.context() as patch:
        patch.setattr(queue, "count", lambda: 5)  # as if another had taken two of them
        with pytest.raises(BrokerUnavailable, match="5 dead letters wait, but none came"):
            given.extend(queue.letters())
    assert (len(given), other.count(DEAD)) == (3, 3)
