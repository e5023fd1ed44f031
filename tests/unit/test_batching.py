"""Which waiting jobs are taken together, and in which order."""

import threading
import time
from typing import Any

import numpy as np

from nearmq.amqp import Delivery
from nearmq.jobs import TYPE_OF, CountJob, CreateJob, DropJob, Job, ListJob, SearchJob, UpsertJob
from nearmq.transport import Message
from nearmq_worker.batching import Task, WaitingJobs


def task(job: Job, *, job_id: str = "") -> Task:
    message = Message(routing_key="", type=TYPE_OF[type(job)], message_id=job_id, body=b"")
    delivery = Delivery(message=message, generation=1, tag=1, queue="q")
    return Task(delivery=delivery, job=job, deadline_ms=None, taken_at=time.monotonic())


def search(collection: str, *, queries: int = 1, job_id: str = "", **fields: Any) -> Task:
    vectors = np.zeros((queries, 2), np.float32)
    return task(SearchJob(collection=collection, limit=1, vectors=vectors, **fields), job_id=job_id)


def taken(waiting: WaitingJobs) -> list[Task]:
    result = waiting.take()
    assert result is not None
    return result[1]


def test_searches_of_one_collection_field_and_params_are_taken_together_whatever_their_limits():
    waiting = WaitingJobs(batch_queries=100, batch_bytes=1_000)
    together = [search("a"), search("a"), search("a", partition_names=None)]
    apart = [search("b"), search("a", params={"ef": 99}), search("a", partition_names=["p"]), search("a", field="f")]
    for one in (together[0], *apart, *together[1:]):
        waiting.put([one])
    assert taken(waiting) == together
    assert [taken(waiting) for _ in apart] == [[one] for one in apart]


def test_a_batch_ends_at_the_bound_and_the_rest_waits_behind_the_other_groups():
    waiting = WaitingJobs(batch_queries=10, batch_bytes=1_000)
    big = [search("a", queries=6), search("a", queries=4), search("a", queries=1)]
    other = search("b")
    for one in (*big, other):
        waiting.put([one])
    assert taken(waiting) == big[:2]
    assert taken(waiting) == [other]
    assert taken(waiting) == big[2:]


def test_a_batch_ends_at_64_searches_however_small_they_are():
    waiting = WaitingJobs(batch_queries=1_000, batch_bytes=1_000)
    jobs = [search("a") for _ in range(100)]
    for one in jobs:
        waiting.put([one])
    assert taken(waiting) == jobs[:64]
    assert taken(waiting) == jobs[64:]


def test_a_job_over_the_bound_is_taken_alone():
    waiting = WaitingJobs(batch_queries=10, batch_bytes=1_000)
    jobs = [search("a", queries=50), search("a")]
    for one in jobs:
        waiting.put([one])
    assert taken(waiting) == jobs[:1]
    assert taken(waiting) == jobs[1:]


def test_writes_are_taken_one_by_one_in_their_order_and_never_two_at_once():
    waiting = WaitingJobs(batch_queries=10, batch_bytes=1_000)
    writes = [task(CreateJob(collection="a")), task(DropJob(collection="a")), task(CreateJob(collection="b"))]
    for one in writes:
        waiting.put([one])
    group, first = waiting.take() or (None, [])
    assert first == writes[:1]
    read = search("a")
    waiting.put([read])
    assert taken(waiting) == [read]  # reads go on while a write runs
    second: list[Task] = []
    thread = threading.Thread(target=lambda: second.extend(taken(waiting)))
    thread.start()
    thread.join(0.05)
    assert not second
    assert group is not None
    waiting.done(group)
    thread.join(5)
    assert second == writes[1:2]


def test_other_reads_go_alone():
    waiting = WaitingJobs(batch_queries=10, batch_bytes=1_000)
    lists = [task(ListJob()), task(ListJob())]
    for one in lists:
        waiting.put([one])
    assert [taken(waiting), taken(waiting)] == [lists[:1], lists[1:]]


def test_collections_take_turns_however_many_groups_of_jobs_one_of_them_has():
    waiting = WaitingJobs(batch_queries=10, batch_bytes=1_000)
    flood: list[Task] = []
    for number in range(100):
        flood += [search("a", params={"ef": number}), task(CountJob(collection="a"))]
    write = task(UpsertJob(collection="a", ids=[1], vectors=np.zeros((1, 2), np.float32)))
    others = [search("b"), search("b"), task(CountJob(collection="b")), task(ListJob())]
    for one in (*flood, *others, write):
        waiting.put([one])
    turns = [taken(waiting) for _ in range(7)]
    assert turns == [[flood[0]], others[:2], [others[3]], [write], [flood[1]], [others[2]], [flood[2]]]
    assert [taken(waiting) for _ in flood[3:]] == [[one] for one in flood[3:]]


def test_a_collection_that_has_many_queries_waiting_is_behind_the_others_after_each_batch():
    waiting = WaitingJobs(batch_queries=10, batch_bytes=1_000)
    for one in (*[search("a", queries=5) for _ in range(6)], search("b"), search("c")):
        waiting.put([one])
    order = [taken(waiting)[0].job.collection for _ in range(5)]
    assert order == ["a", "b", "c", "a", "a"]


def test_withdrawn_jobs_are_gone_and_all_others_keep_their_place():
    waiting = WaitingJobs(batch_queries=10, batch_bytes=1_000)
    jobs = [search("a", job_id="1"), search("a", job_id="2"), search("a", job_id="1"), search("b", job_id="1")]
    last = search("b", params={"ef": 99}, job_id="3")
    write = task(UpsertJob(collection="a", ids=[1], vectors=np.zeros((1, 2), np.float32)), job_id="1")
    for one in (*jobs, last, write):
        waiting.put([one])
    assert waiting.withdraw("1") == [jobs[0], jobs[2], jobs[3]]
    assert waiting.withdraw("1") == []
    assert [taken(waiting), taken(waiting), taken(waiting)] == [[jobs[1]], [last], [write]]


def test_closing_wakes_takers_and_leaves_what_waits_to_be_drained():
    waiting = WaitingJobs(batch_queries=10, batch_bytes=1_000)
    taker: list[object] = []
    thread = threading.Thread(target=lambda: taker.append(waiting.take()))
    thread.start()
    waiting.close()
    thread.join(5)
    assert taker == [None]
    one = search("a")
    waiting.put([one])
    assert waiting.take() is None
    assert waiting.drain() == [one]
    assert waiting.drain() == []


def test_a_pause_that_is_over_leaves_nobody_turning_in_circles():
    waiting = WaitingJobs(batch_queries=10, batch_bytes=1_000)
    used_s: list[float] = []

    def take() -> None:
        waiting.take()
        used_s.append(time.thread_time())

    thread = threading.Thread(target=take)
    thread.start()
    waiting.pause("books", 0.01)
    time.sleep(0.5)
    waiting.close()
    thread.join()
    assert used_s[0] < 0.1
