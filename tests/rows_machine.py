"""Random writes, reads, merges and collections of garbage by two workers over one store, against a dictionary.

The workers are embedded, so each has its own caches, and forgets them when it is opened again. For one store:

    python -m tests.rows_machine file L2

`tests/contract/test_rows_stateful.py` runs it for each, beside each other.
"""

import itertools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

import nearmq
from nearmq.collection import Collection
from nearmq.errors import AlreadyExists, PartitionNotFound, VersionExpired
from nearmq.jobs import BuildJob, ScalarFieldSpec, VectorFieldSpec
from nearmq.row_results import Rows, WriteResult
from nearmq_index_store.gc import collect_garbage
from nearmq_index_store.verifying import verify
from tests import servers
from tests.exploring.quick_segments import FOLDER
from tests.world import World, embedded_world

RUNS = 200
STEPS = 30

DIM = 4
PARTITIONS = ("_default", "p")
ALL_FIELDS = ["year", "vector"]


class Row(NamedTuple):
    vector: tuple[int, ...]
    year: int | None
    partition: str


Model = Mapping[int, Row]


class Filter(NamedTuple):
    """An expression, and what it says of a row."""

    expr: str
    params: dict[str, Any]
    allows: Callable[[int, Row], bool]


def at_least(year: int) -> Filter:
    return Filter("year >= {year}", {"year": year}, lambda _, row: row.year is not None and row.year >= year)


def one_of(ids: list[int]) -> Filter:
    return Filter("id in {ids}", {"ids": ids}, lambda key, _: key in ids)


def neither(year: int, least: int) -> Filter:
    return Filter(
        "not (year == {year}) and id < {least}",
        {"year": year, "least": least},
        lambda key, row: row.year is not None and row.year != year and key < least,
    )


IDS = st.integers(0, 11)
YEARS = st.none() | st.integers(0, 4)
VECTORS = st.tuples(*[st.integers(-2, 2)] * DIM)
SOME_IDS = st.lists(IDS, min_size=1, max_size=5, unique=True)
PARTITION = st.sampled_from(PARTITIONS)
WHERE = st.sampled_from([None, ["_default"], ["p"], ["p", "_default"]])
FILTERS = st.one_of(
    st.builds(at_least, st.integers(0, 5)),
    st.builds(one_of, SOME_IDS),
    st.builds(neither, st.integers(0, 4), IDS),
    st.just(Filter("year is null", {}, lambda _, row: row.year is None)),
)
NO_FILTER = Filter("id >= 0", {}, lambda *_: True)
WINDOWS = st.fixed_dictionaries({"limit": st.integers(1, 14), "offset": st.integers(0, 4), "after": st.none() | IDS})
WORKERS = st.sampled_from(["one", "two"])
NOTHING = ((0,) * DIM, None)
ROWS = st.dictionaries(IDS, st.tuples(VECTORS, YEARS), min_size=1, max_size=4)


@dataclass
class Shop:
    """A store with two workers, for one run after the other, each with a collection of its own."""

    store_url: str
    metric: str
    settings: dict[str, Any]
    worlds: dict[str, World] = field(default_factory=dict)
    closing: dict[str, ExitStack] = field(default_factory=dict)
    collections: Iterator[int] = field(default_factory=itertools.count)

    def open(self, worker: str) -> None:
        """Start a worker that remembers nothing."""
        self.close(worker)
        self.closing[worker] = ExitStack()
        world = embedded_world(self.store_url, threads=1, **self.settings)
        self.worlds[worker] = self.closing[worker].enter_context(world)

    def close(self, worker: str) -> None:
        if worker in self.closing:
            self.closing.pop(worker).close()


class Machine(RuleBasedStateMachine):
    """What a client may do, through either worker."""

    shop: Shop

    @initialize()
    def create(self) -> None:
        self.name = f"books{next(self.shop.collections)}"
        schema = nearmq.Schema(
            vector_fields=[VectorFieldSpec(name="vector", dim=DIM, metric_type=self.shop.metric, index="FLAT")],
            scalar_fields=[ScalarFieldSpec(name="year", type="int64", nullable=True)],
        )
        client = self.shop.worlds["one"].client
        client.create_collection(self.name, schema=schema)
        client.collection(self.name).create_partition("p")
        [self.collection_id] = {self.shop.worlds["one"].catalog.collection_id(self.name)}
        self.model: dict[int, Row] = {}
        self.partitions = set(PARTITIONS)
        self.past: dict[int, Model] = {}  # by version
        self.expired_below = 0
        self.jobs = itertools.count()
        self.last: tuple[str, Write, WriteResult] | None = None

    def books(self, worker: str) -> Collection:
        return self.shop.worlds[worker].client.collection(self.name)

    def write(self, worker: str, write: "Write", **expected: int) -> None:
        """Write under a job id of its own; `expected` are the counts."""
        job_id = f"{self.name} job {next(self.jobs)}"
        done = write(self.books(worker), job_id)
        assert {"inserted": done.inserted, "replaced": done.replaced, "deleted": done.deleted} == {
            "inserted": 0,
            "replaced": 0,
            "deleted": 0,
        } | expected
        self.last = job_id, write, done
        self.past[done.version] = dict(self.model)

    @rule(worker=WORKERS, rows=ROWS, partition=PARTITION)
    def upsert(self, worker: str, rows: dict[int, tuple[Any, Any]], partition: str) -> None:
        send = sender("upsert", rows, partition)
        if partition not in self.partitions:
            with pytest.raises(PartitionNotFound):
                send(self.books(worker), None)
            return
        replaced = len(rows.keys() & self.model.keys())
        self.model |= {key: Row(vector, year, partition) for key, (vector, year) in rows.items()}
        self.write(worker, send, inserted=len(rows) - replaced, replaced=replaced)

    @rule(worker=WORKERS, rows=ROWS, partition=PARTITION)
    def insert(self, worker: str, rows: dict[int, tuple[Any, Any]], partition: str) -> None:
        send = sender("insert", rows, partition)
        taken = rows.keys() & self.model.keys()
        if partition not in self.partitions or taken:
            with pytest.raises(PartitionNotFound if partition not in self.partitions else AlreadyExists):
                send(self.books(worker), None)
            return
        self.model |= {key: Row(vector, year, partition) for key, (vector, year) in rows.items()}
        self.write(worker, send, inserted=len(rows))

    @rule(worker=WORKERS, ids=SOME_IDS, partition=st.none() | PARTITION)
    def delete(self, worker: str, ids: list[int], partition: str | None) -> None:
        self.remove(worker, one_of(ids), partition, {"ids": ids})

    @rule(worker=WORKERS, where=FILTERS, partition=st.none() | PARTITION)
    def delete_where(self, worker: str, where: Filter, partition: str | None) -> None:
        self.remove(worker, where, partition, {"expr": where.expr, "expr_params": where.params})

    def remove(self, worker: str, where: Filter, partition: str | None, arguments: dict[str, Any]) -> None:
        def send(books: Collection, job_id: str | None) -> WriteResult:
            return books.delete(**arguments, partition_name=partition, job_id=job_id)

        if partition is not None and partition not in self.partitions:
            with pytest.raises(PartitionNotFound):
                send(self.books(worker), None)
            return
        gone = self.allowed(where, None if partition is None else [partition])
        for key in gone:
            del self.model[key]
        self.write(worker, send, deleted=len(gone))

    @precondition(lambda self: self.last is not None)
    @rule(worker=WORKERS)
    def deliver_again(self, worker: str) -> None:
        """The last write comes again, to any worker: it is answered as before and has no effect."""
        assert self.last is not None
        job_id, send, done = self.last
        assert replace(send(self.books(worker), job_id), slowdown_ms=0.0) == replace(done, slowdown_ms=0.0)

    @rule(worker=WORKERS)
    def drop_or_create_partition(self, worker: str) -> None:
        if "p" in self.partitions:
            self.books(worker).drop_partition("p")
            self.partitions.remove("p")
            for key in self.allowed(NO_FILTER, ["p"]):
                del self.model[key]
        else:
            self.books(worker).create_partition("p")
            self.partitions.add("p")

    @rule(worker=WORKERS, force=st.booleans())
    def merge_segments(self, worker: str, force: bool) -> None:
        books = self.books(worker)
        books.build() if force else books.compact()

    @rule(rows=ROWS, gone=SOME_IDS)
    def write_while_segments_are_merged(self, rows: dict[int, tuple[Any, Any]], gone: list[int]) -> None:
        merged = self.shop.worlds["two"].client.submit(BuildJob(collection=self.name))
        self.upsert("one", rows, "_default")
        self.delete("one", gone, None)
        merged.result()

    @rule(rows=ROWS, others=ROWS)
    def upsert_through_both_workers(self, rows: dict[int, tuple[Any, Any]], others: dict[int, tuple[Any, Any]]) -> None:
        """At the same time; no id is in both, so that their order does not matter."""
        shares = {"one": rows, "two": {key: row for key, row in others.items() if key not in rows} or {99: NOTHING}}
        replaced = {worker: len(share.keys() & self.model.keys()) for worker, share in shares.items()}
        waiting = {worker: submit_upsert(self.books(worker), share) for worker, share in shares.items()}
        done = {worker: future.result() for worker, future in waiting.items()}
        assert {worker: result.replaced for worker, result in done.items()} == replaced
        for share in shares.values():
            self.model |= {key: Row(vector, year, "_default") for key, (vector, year) in share.items()}
        self.past[max(result.version for result in done.values())] = dict(self.model)

    @rule(keep_s=st.sampled_from([0.0, 3_600.0]))
    def remove_garbage(self, keep_s: float) -> None:
        """All versions are younger than an hour."""
        world = self.shop.worlds["one"]
        collect_garbage(
            world.catalog,
            [self.collection_id],
            keep_s=keep_s,
            grace_s=0,
            on_problem=lambda _, error: pytest.fail(error.message),
            clock=lambda: time.time() + 0.002,
        )
        floor = world.catalog.readers.heads.floor(self.collection_id)
        assert keep_s == 0 or floor == self.expired_below
        self.expired_below = floor

    @rule(worker=WORKERS)
    def open_again(self, worker: str) -> None:
        self.shop.open(worker)

    @rule(worker=WORKERS, query=VECTORS, where=st.none() | FILTERS, partitions=WHERE, limit=st.integers(1, 14))
    def search(
        self, worker: str, query: tuple[int, ...], where: Filter | None, partitions: list[str] | None, limit: int
    ) -> None:
        if self.is_unknown(partitions):
            return
        options = {"limit": limit, "partition_names": partitions, "output_fields": ["year"], **given(where)}
        found = self.books(worker).search(np.array([query], np.float32), **options)[0]
        expected = nearest(self.allowed(where or NO_FILTER, partitions), query, self.shop.metric)[:limit]
        assert list(zip(found.ids.tolist(), found.distances.tolist(), strict=True)) == expected
        assert found.fields["year"] == [self.model[key].year for key, _ in expected]

    @rule(worker=WORKERS, ids=SOME_IDS)
    def get(self, worker: str, ids: list[int]) -> None:
        rows = self.books(worker).get(ids, output_fields=ALL_FIELDS)
        assert as_rows(rows) == [(key, self.model[key][:2]) for key in ids if key in self.model]

    @rule(worker=WORKERS, where=st.none() | FILTERS, partitions=WHERE)
    def count(self, worker: str, where: Filter | None, partitions: list[str] | None) -> None:
        if not self.is_unknown(partitions):
            counted = self.books(worker).count(partition_names=partitions, **given(where))
            assert counted == len(self.allowed(where or NO_FILTER, partitions))

    @rule(worker=WORKERS, where=st.none() | FILTERS, partitions=WHERE, window=WINDOWS)
    def query(
        self, worker: str, where: Filter | None, partitions: list[str] | None, window: dict[str, int | None]
    ) -> None:
        if self.is_unknown(partitions):
            return
        options = {"partition_names": partitions, "output_fields": ALL_FIELDS, **window, **given(where)}
        rows = self.books(worker).query(**options)
        offset, after = window["offset"], window["after"]
        allowed = sorted(self.allowed(where or NO_FILTER, partitions).items())
        expected = [(key, row[:2]) for key, row in allowed if after is None or key > after]
        assert as_rows(rows) == expected[offset : offset + window["limit"]]

    @precondition(lambda self: self.past)
    @rule(worker=WORKERS, data=st.data())
    def query_a_past_version(self, worker: str, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from(sorted(self.past)))
        if version < self.expired_below:
            with pytest.raises(VersionExpired):
                self.books(worker).query(version=version)
        else:
            rows = self.books(worker).query(version=version, output_fields=ALL_FIELDS)
            assert as_rows(rows) == [(key, row[:2]) for key, row in sorted(self.past[version].items())]

    def teardown(self) -> None:
        """At the end all is there, also for who starts now."""
        self.shop.open("one")
        rows = self.books("one").query(output_fields=ALL_FIELDS)
        assert as_rows(rows) == [(key, row[:2]) for key, row in sorted(self.model.items())]
        assert list(verify(self.shop.worlds["one"].catalog, self.name)) == []

    def allowed(self, where: Filter, partitions: Sequence[str] | None) -> dict[int, Row]:
        return {
            key: row
            for key, row in self.model.items()
            if where.allows(key, row) and (partitions is None or row.partition in partitions)
        }

    def is_unknown(self, partitions: Sequence[str] | None) -> bool:
        return partitions is not None and not self.partitions.issuperset(partitions)


Write = Callable[[Collection, str | None], WriteResult]


def sender(kind: str, rows: dict[int, tuple[Any, Any]], partition: str) -> Write:
    """An upsert or insert, to be sent under any job id."""
    vectors = np.array([vector for vector, _ in rows.values()], np.float32)
    years = {"year": [year for _, year in rows.values()]}

    def send(books: Collection, job_id: str | None) -> WriteResult:
        write = getattr(books, kind)
        done: WriteResult = write(list(rows), vectors, years, partition_name=partition, job_id=job_id)
        return done

    return send


def submit_upsert(books: Collection, rows: dict[int, tuple[Any, Any]]) -> Future[WriteResult]:
    vectors = np.array([vector for vector, _ in rows.values()], np.float32)
    return books.submit_upsert(list(rows), vectors, {"year": [year for _, year in rows.values()]})


def given(where: Filter | None) -> dict[str, Any]:
    return {} if where is None else {"expr": where.expr, "expr_params": where.params}


def nearest(rows: Model, query: tuple[int, ...], metric: str) -> list[tuple[int, float]]:
    """All rows with their distances, which whole numbers make exact, nearest first, ties by smaller id."""
    if metric == "IP":
        products = [(key, float(np.dot(row.vector, query))) for key, row in rows.items()]
        return sorted(products, key=lambda hit: (-hit[1], hit[0]))
    squares = [(key, float(np.sum(np.subtract(row.vector, query) ** 2))) for key, row in rows.items()]
    return sorted(squares, key=lambda hit: (hit[1], hit[0]))


def as_rows(rows: Rows) -> list[tuple[int, tuple[tuple[int, ...], int | None]]]:
    vectors = [tuple(vector) for vector in rows.vectors["vector"].astype(int).tolist()]
    return list(zip(rows.ids.tolist(), zip(vectors, rows.fields["year"], strict=True), strict=True))


def main() -> None:
    """Play the runs over one kind of store (file, redis, cached-file) with one metric; one that fails is an error."""
    kind, metric = sys.argv[1:]
    with ExitStack() as stack:
        redis_url = None if kind == "file" else stack.enter_context(servers.shared_redis()).url
        if kind == "redis":
            url, redis_url = redis_url, None
        else:
            url = f"file:{stack.enter_context(TemporaryDirectory(dir=FOLDER))}"
        shop = Shop(url, metric, {"cache": redis_url})
        for worker in ("one", "two"):
            shop.open(worker)
            stack.callback(shop.close, worker)
        run_state_machine_as_test(
            type("Machine", (Machine,), {"shop": shop}),
            settings=settings(
                max_examples=RUNS,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                phases=[Phase.generate],  # a failed run is short enough as it is, and would take minutes to shrink
            ),
        )


if __name__ == "__main__":
    main()
