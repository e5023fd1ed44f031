"""While rows change and segments are merged, every answer is that of one version, between its submit and its reply."""

import itertools
import threading
from dataclasses import dataclass, field

import numpy as np

from nearmq.jobs import CreateJob, VectorFieldSpec
from nearmq_index_store.gc import collect_garbage
from tests.world import World

WRITERS = 4
KEYS = 12
JOBS = 60


@dataclass
class Writer:
    """A writer with keys of its own, and what each of its jobs wrote: keys, and their value, None for a delete."""

    number: int
    jobs: list[tuple[list[int], float | None]] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)

    def run(self, world: World) -> None:
        books = world.client.collection("books")
        rng = np.random.default_rng(self.number)
        for job in range(JOBS):
            keys = (self.number * KEYS + rng.choice(KEYS, size=rng.integers(1, KEYS), replace=False)).tolist()
            is_delete = job % 3 == 2
            value = None if is_delete else float(job)
            self.jobs.append((keys, value))
            if is_delete:
                self.versions.append(books.delete(keys).version)
            else:
                self.versions.append(books.upsert(keys, np.full((len(keys), 2), value, np.float32)).version)

    def rows_at(self, version: int) -> dict[int, float]:
        """What this writer's rows were at a version."""
        rows: dict[int, float] = {}
        for (keys, value), made in zip(self.jobs, self.versions, strict=True):
            if made <= version:
                for key in keys:
                    if value is None:
                        rows.pop(key, None)
                    else:
                        rows[key] = value
        return rows


@dataclass(frozen=True)
class Answer:
    least: int
    version: int
    rows: dict[int, float]


def test_every_answer_is_explained_by_one_version_while_writers_and_a_compactor_run(world: World):
    spec = VectorFieldSpec(name="vector", dim=2, index="FLAT")
    world.client.submit(CreateJob(collection="books", vector_fields=[spec])).result()
    writers = [Writer(number) for number in range(WRITERS)]
    threads = [threading.Thread(target=writer.run, args=[world]) for writer in writers]
    stopped = threading.Event()
    maintainer = threading.Thread(target=maintain, args=[world, stopped])
    answers: list[Answer] = []
    for thread in (*threads, maintainer):
        thread.start()
    while any(thread.is_alive() for thread in threads):
        answers.append(ask(world, writers))
    stopped.set()
    for thread in (*threads, maintainer):
        thread.join()
    answers.append(ask(world, writers))

    assert [len(writer.versions) for writer in writers] == [JOBS] * WRITERS
    assert len({answer.version for answer in answers}) > 10
    for answer in answers:
        expected = [writer.rows_at(answer.version).items() for writer in writers]
        assert answer.rows == dict(itertools.chain.from_iterable(expected)), f"at version {answer.version}"
        assert answer.version >= answer.least


def ask(world: World, writers: list[Writer]) -> Answer:
    """Search for all rows; a distance to the origin tells a row's value."""
    least = max((writer.versions[-1] for writer in writers if writer.versions), default=0)
    results = world.client.collection("books").search(np.zeros((1, 2), np.float32), limit=WRITERS * KEYS)
    found = zip(results[0].ids.tolist(), results[0].distances.tolist(), strict=True)
    return Answer(least, results.version, {key: round((distance / 2) ** 0.5, 3) for key, distance in found})


def maintain(world: World, stopped: threading.Event) -> None:
    """Merge all segments and remove old versions, again and again."""
    books = world.client.collection("books")
    while not stopped.wait(0.05):
        books.build()
        catalog = world.catalog
        collection_id = catalog.snapshot("books").manifest.collection_id
        collect_garbage(catalog, [collection_id], keep_s=2.0, grace_s=0.0, on_problem=fail)


def fail(collection_id: str, problem: Exception) -> None:
    raise AssertionError(collection_id) from problem
