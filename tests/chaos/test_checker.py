"""The judge itself: a sound history passes, and one that is broken in any way does not."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.chaos.checker import check
from tests.chaos.history import Entry, History, digest_of

STILL, READ, UPSERT, DELETE = "search.still", "search.moving", "upsert.moving", "delete.moving"


def entries() -> list[Entry]:
    """Searches, writes and reads of their versions, a dead letter and an expiry; a fault that two connections felt."""
    made: list[Entry] = []

    def add(op: str, phase: str, t: float | None = None, proc: str = "client", **rest: object) -> None:
        made.append(Entry(t=len(made) if t is None else t, proc=proc, op=op, phase=phase, **rest))

    def job(op: str, job_id: str, *, version: int | None = None, answer: str, wanted: str = "", **rest: object) -> None:
        add(op, "submitted", job_id=job_id, digest=wanted, **rest)
        add(op, "confirmed", job_id=job_id)
        add(op, "answered", job_id=job_id, version=version, digest=answer)

    job(STILL, "s1", answer="hits", wanted="hits")
    job(UPSERT, "w1", version=2, answer="one", wanted="one", effect={1: 10, 2: 20})
    job(READ, "r1", version=2, answer=digest_of({1: 10, 2: 20}))
    job(UPSERT, "w2", version=3, answer="two", wanted="two", effect={1: 11})
    job(DELETE, "w3", version=4, answer="three", wanted="three", effect={2: None})
    job(READ, "r2", version=4, answer=digest_of({1: 11}))
    add(STILL, "answered", job_id="s1", digest="hits")
    for job_id, end in (("d1", "dead"), ("e1", "expired")):
        add(STILL, "submitted", job_id=job_id)
        add(STILL, "confirmed", job_id=job_id)
        add(STILL, end, job_id=job_id)
    add("reset", "injected", 100)
    add("reset", "healed", 101)
    add("consuming", "lost", 104, proc="worker")
    add("publishing", "lost", 100.5, proc="worker")
    add("publishing", "connected", 103, proc="worker")
    add("consuming", "connected", 107, proc="worker")
    job(STILL, "s2", answer="hits")
    made[-1] = replace(made[-1], t=108)
    for job_id, version in (("w1", 2), ("w2", 3), ("w3", 4)):
        add("commit", "committed", job_id=job_id, version=version)
    add("rows", "final", effect={1: 11})
    return made


def without(job_id: str, phase: str) -> list[Entry]:
    return [entry for entry in entries() if (entry.job_id, entry.phase) != (job_id, phase)]


def changed(job_id: str, phase: str, **changes: object) -> list[Entry]:
    return [
        replace(entry, **changes) if (entry.job_id, entry.phase) == (job_id, phase) else entry for entry in entries()
    ]


def with_another(like: str, phase: str, **changes: object) -> list[Entry]:
    [first, *_] = [entry for entry in entries() if (entry.job_id, entry.phase) == (like, phase)]
    return [*entries(), replace(first, **changes)]


def test_a_sound_history_passes_and_its_second_answers_are_counted():
    verdict = check(entries())
    assert verdict.faults == []
    assert (verdict.jobs, verdict.duplicates, verdict.dead, verdict.expired) == (9, 1, 1, 1)


def test_recovery_counts_from_the_heal_or_from_when_the_loss_was_noticed():
    # The publishing connection is back 2 s after the heal, the consuming one 3 s after its loss was noticed; the first
    # answer comes 4 s after that.
    assert check(entries()).recovery_s == 4


@pytest.mark.parametrize(
    ("broken", "where", "sentence"),
    [
        (without("s2", "answered"), "lost", "job s2 is lost"),
        (without("d1", "dead"), "lost", "job d1 is lost"),
        (with_another("s1", "answered", job_id="x"), "unexpected", "job 'x' is answered, and nobody submitted it"),
        (with_another("w1", "committed", job_id="x"), "unexpected", "job 'x' is committed, and nobody submitted it"),
        (with_another("s1", "answered", digest="other"), "wrong", "job s1 has different answers"),
        (changed("s1", "answered", digest="other"), "wrong", "is answered other, right is hits"),
        (changed("r1", "answered", digest=digest_of({1: 10})), "wrong", "job r1 does not see version 2"),
        (changed("r2", "answered", version=3), "wrong", "job r2 sees version 3, but 4 was there before it"),
        (changed("r1", "submitted", version=5), "wrong", "job r1 sees version 2, but 5 was there before it"),
        (changed("w3", "answered", version=2), "wrong", "write w3 took effect in version 2, after one of version 3"),
        (with_another("w1", "committed", version=5), "effects", "write w1 took effect 2 times"),
        (without("w2", "committed"), "effects", "write w2 is answered and took no effect"),
        (changed("w2", "committed", version=7), "effects", "write w2 is in version 7, its answer says 3"),
        (changed("", "final", effect={1: 10, 2: 20}), "effects", "the rows in the end are {1: 10, 2: 20}"),
    ],
)
def test_a_history_that_is_broken_is_noticed(broken: list[Entry], where: str, sentence: str):
    verdict = check(broken)
    assert any(sentence in fault for fault in getattr(verdict, where)), verdict.faults


def test_many_processes_append_to_one_history_and_read_whole_lines(tmp_path: Path):
    one, other = History(tmp_path / "h", "one"), History(tmp_path / "h", "other")
    one.add(STILL, "submitted", job_id="s1", digest="hits")
    assert [entry.proc for entry in other.entries()] == ["one"]
    with (tmp_path / "h").open("ab") as file:
        file.write(b'{"t":1,"proc":"third",')
        file.flush()
        assert len(other.entries()) == 1
        file.write(b'"op":"o","phase":"lost"}\n')
    other.add(UPSERT, "submitted", job_id="w1", effect={1: 10, 2: None})
    assert [entry.proc for entry in other.entries()] == ["one", "third", "other"]
    assert one.entries()[-1].effect == {1: 10, 2: None}
    one.close()
    other.close()
