"""Rows are read back by id, by expression and by number, at one version whatever is written meanwhile."""

import json
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import pytest

import nearmq
from nearmq.client import Client
from nearmq.collection import Collection
from nearmq.errors import (
    CollectionNotFound,
    FieldNotFound,
    InvalidArgument,
    InvalidExpression,
    LimitExceeded,
    NearmqError,
    PartitionNotFound,
    VersionExpired,
    VersionTimeout,
)
from nearmq.job_ids import new_job_id
from nearmq.jobs import CountJob, GetJob, Job, QueryJob, Reply, SearchJob
from nearmq.stored_rows import read_rows
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.schema import ScalarField
from tests.world import World, delete

ROWS = 90
KEYS = [number * 7 % ROWS - 40 for number in range(ROWS)]
YEARS = [2**62 + number for number in range(ROWS)]
TITLES = [None if number % 4 == 0 else f"é {number}" for number in range(ROWS)]
NOTES = [{"a": 2**60 + number} for number in range(ROWS)]
PAGES = [[number, -(2**63)] for number in range(ROWS)]
FIELDS: dict[str, list[Any]] = {"year": YEARS, "title": TITLES, "notes": NOTES, "pages": PAGES}
COLUMNS: dict[str, list[Any]] = FIELDS | {"notes": [json.dumps(note) for note in NOTES]}
FRONTS = np.random.default_rng(1).standard_normal((ROWS, 4), dtype=np.float32)
BACKS = np.random.default_rng(2).standard_normal((ROWS, 3), dtype=np.float32)


def create(client: Client, primary_key: Any = "int64") -> Collection:
    schema = nearmq.Schema(
        primary_key=primary_key,
        vector_fields=[
            nearmq.VectorFieldSpec(name="front", dim=4, index="HNSW"),
            nearmq.VectorFieldSpec(name="back", dim=3, index="FLAT"),
        ],
        scalar_fields=[
            nearmq.ScalarFieldSpec(name="year", type="int64"),
            nearmq.ScalarFieldSpec(name="title", type="string", nullable=True),
            nearmq.ScalarFieldSpec(name="notes", type="json"),
            nearmq.ScalarFieldSpec(name="pages", type="array<int64>"),
        ],
    )
    return client.create_collection("books", schema=schema)


def fill(world: World, keys: Sequence[Any] = KEYS, partition: str = "_default", segments: int = 4) -> None:
    rows = range(len(keys))
    vectors = {"front": FRONTS[rows], "back": BACKS[rows]}
    scalars = {name: values[: len(keys)] for name, values in COLUMNS.items()}
    world.add("books", keys, vectors, scalars=scalars, partition=partition, segments=segments)


@pytest.fixture
def books(world: World) -> Collection:
    """Rows of ids in no order, in four segments whose ids overlap."""
    books = create(world.client)
    fill(world)
    return books


def reply_to(world: World, job: Job) -> Reply:
    return world.client.submit(job).result()


def rows_of(reply: Reply) -> tuple[list[Any], dict[str, list[Any]], dict[str, np.ndarray]]:
    assert reply.result is not None
    ids, fields, vectors = read_rows(reply.result)
    return ids.tolist(), fields, vectors


def get(world: World, ids: Sequence[Any], **options: Any) -> tuple[list[Any], dict[str, list[Any]], dict[str, Any]]:
    return rows_of(reply_to(world, GetJob(collection="books", ids=list(ids), **options)))


def query(world: World, **options: Any) -> list[Any]:
    return rows_of(reply_to(world, QueryJob(collection="books", **({"limit": ROWS} | options))))[0]


def count(world: World, **options: Any) -> int:
    result = reply_to(world, CountJob(collection="books", **options)).result
    assert result is not None
    return int(result["count"])


def expected_fields(keys: Sequence[int], names: Sequence[str]) -> dict[str, list[Any]]:
    return {name: [FIELDS[name][KEYS.index(key)] for key in keys] for name in names}


@pytest.mark.usefixtures("books")
@pytest.mark.parametrize("encoding", ["json", "base64"])
def test_get_gives_rows_in_the_order_asked_for_and_leaves_out_what_is_missing(world: World, encoding: Any):
    asked = [3, 999, -40, 49, 3, -41, 0]
    ids, fields, vectors = get(world, asked, output_fields=["*", "back", "front"], encoding=encoding)
    assert ids == [3, -40, 49, 3, 0]
    assert fields == expected_fields(ids, ["year", "title", "notes", "pages"])
    places = [KEYS.index(key) for key in ids]
    assert list(vectors) == ["back", "front"]
    assert (vectors["front"] == FRONTS[places]).all()
    assert (vectors["back"] == BACKS[places]).all()
    assert get(world, asked, encoding=encoding) == (ids, {}, {})


def test_get_loads_only_segments_that_have_one_of_the_ids_and_no_index(world: World):
    create(world.client)
    fill(world, range(ROWS), segments=6)  # of eight, compaction would make one
    assert get(world, [21, 17], output_fields=["year"])[1] == {"year": [YEARS[21], YEARS[17]]}
    assert world.cache().misses == 1
    rows_alone = world.cache().bytes
    assert get(world, [18], output_fields=["year"])[1] == {"year": [YEARS[18]]}
    assert (world.cache().misses, world.cache().bytes) == (1, rows_alone)


@pytest.mark.usefixtures("books")
def test_get_looks_in_the_named_partitions_only(world: World):
    fill(world, range(1_000, 1_010), partition="2024", segments=1)
    assert get(world, [3, 1_003])[0] == [3, 1_003]
    assert get(world, [3, 1_003], partition_names=["2024"])[0] == [1_003]
    with pytest.raises(PartitionNotFound, match="'2025'"):
        get(world, [3], partition_names=["2025"])


def test_string_keys_are_found_and_ordered_by_their_bytes(world: World):
    keys = sorted({f"{'aé😀Z'[number % 4]}{number % 13}" for number in range(60)})
    shuffled = [keys[number * 7 % len(keys)] for number in range(len(keys))]
    create(world.client, primary_key="string")
    fill(world, shuffled, segments=3)
    assert get(world, ["é1", "nothing", keys[0]], output_fields=["year"]) == (
        ["é1", keys[0]],
        {"year": [YEARS[shuffled.index("é1")], YEARS[shuffled.index(keys[0])]]},
        {},
    )
    by_bytes = sorted(keys, key=str.encode)
    assert query(world) == by_bytes
    assert query(world, after=by_bytes[20], limit=5) == by_bytes[21:26]
    with pytest.raises(InvalidArgument, match="the primary keys are string"):
        get(world, [1])


@pytest.mark.usefixtures("books")
def test_deleted_rows_are_neither_found_nor_counted(world: World):
    gone = [key for key in KEYS if key % 3 == 0]
    delete(world.store, "books", gone)
    left = sorted(set(KEYS) - set(gone))
    assert get(world, KEYS)[0] == [key for key in KEYS if key in left]
    assert query(world) == left
    assert count(world) == len(left)
    assert count(world, expr="id >= 0") == len([key for key in left if key >= 0])
    delete(world.store, "books", left)
    assert (query(world), count(world), get(world, KEYS)[0]) == ([], 0, [])


@pytest.mark.usefixtures("books")
def test_query_gives_the_rows_that_an_expression_is_true_of_in_the_order_of_their_ids(world: World):
    expected = [key for key in sorted(KEYS) if TITLES[KEYS.index(key)] is not None and key % 2 == 0]
    job = QueryJob(
        collection="books",
        expr="title is not null and id % {two} == 0",
        expr_params={"two": 2},
        limit=ROWS,
        output_fields=["title", "front"],
    )
    ids, fields, vectors = rows_of(reply_to(world, job))
    assert ids == expected
    assert fields == expected_fields(ids, ["title"])
    assert (vectors["front"] == FRONTS[[KEYS.index(key) for key in ids]]).all()
    assert count(world, expr=job.expr, expr_params=job.expr_params) == len(expected)


@pytest.mark.usefixtures("books")
@pytest.mark.parametrize("expr", [None, "id > -30"])
def test_pages_of_a_query_join_to_the_whole(world: World, expr: str | None):
    whole = query(world, expr=expr)
    assert whole == [key for key in sorted(KEYS) if expr is None or key > -30]
    for limit in (1, 7, 50):
        by_offset = [
            query(world, expr=expr, limit=limit, offset=offset) for offset in range(0, len(whole) + limit, limit)
        ]
        assert list(chain(*by_offset)) == whole
        by_id: list[int] = []
        while page := query(world, expr=expr, limit=limit, after=by_id[-1] if by_id else None):
            by_id += page
        assert by_id == whole
    assert query(world, expr=expr, after=10, offset=3, limit=2) == [14, 15]


@pytest.mark.usefixtures("books")
def test_pages_of_one_version_do_not_see_what_is_written_meanwhile(world: World):
    before = sorted(KEYS)
    first = reply_to(world, QueryJob(collection="books", limit=30))
    pages = rows_of(first)[0]
    fill(world, range(1_000, 1_030), segments=1)
    delete(world.store, "books", before[::2])
    while page := query(world, version=first.version, after=pages[-1], limit=30):
        pages += page
    assert pages == before
    now = reply_to(world, QueryJob(collection="books", limit=200))
    assert (now.version, rows_of(now)[0]) == (first.version + 2, sorted([*before[1::2], *range(1_000, 1_030)]))


@pytest.mark.usefixtures("books")
def test_a_version_that_is_gone_is_expired(world: World):
    version = reply_to(world, QueryJob(collection="books", limit=1)).version
    assert version is not None
    for gone in (version + 1, 2**50):
        with pytest.raises(VersionExpired, match=f"version {gone} "):
            query(world, version=gone)
    assert query(world, version=version, limit=1) == [-40]


@pytest.mark.usefixtures("books")
def test_reads_wait_for_no_version_that_is_not_there(world: World):
    version = Catalog(world.store).snapshot("books").manifest.version
    assert count(world, min_version=version) == ROWS
    for job in (
        GetJob(collection="books", ids=[1], min_version=version + 1),
        QueryJob(collection="books", limit=1, min_version=version + 1),
        CountJob(collection="books", min_version=version + 1),
    ):
        with pytest.raises(VersionTimeout, match=f"at version {version}, min_version is {version + 1}") as caught:
            reply_to(world, job)
        assert caught.value.field == "min_version"
        assert caught.value.retryable


@pytest.mark.usefixtures("books")
def test_count_without_an_expression_opens_no_segment(world: World):
    fill(world, range(1_000, 1_010), partition="2024", segments=2)
    assert count(world) == ROWS + 10
    assert count(world, partition_names=["2024"]) == 10
    assert world.cache().misses == 0


def test_an_empty_collection_has_no_rows_to_read(world: World):
    create(world.client)
    assert count(world) == count(world, expr="year > 3") == 0
    assert query(world) == []
    assert get(world, [1, 2], output_fields=["*", "back"])[:2] == ([], {name: [] for name in FIELDS})
    assert get(world, []) == ([], {}, {})


@pytest.mark.usefixtures("books")
def test_integers_beyond_what_javascript_holds_are_strings_where_ids_are(world: World):
    names = ["year", "pages", "notes", "title"]
    job = GetJob(collection="books", ids=["-40", "1"], output_fields=names, id_format="string")
    result = reply_to(world, job).result
    places = [KEYS.index(-40), KEYS.index(1)]
    assert result == {
        "ids": ["-40", "1"],
        "fields": {
            "year": [str(YEARS[place]) for place in places],
            "pages": [[str(page) for page in PAGES[place]] for place in places],
            "notes": [NOTES[place] for place in places],
            "title": [TITLES[place] for place in places],
        },
    }
    page = QueryJob(collection="books", limit=2, after="-40", id_format="string", output_fields=["year"])
    assert reply_to(world, page).result == {
        "ids": ["-39", "-38"],
        "fields": {"year": [str(YEARS[KEYS.index(key)]) for key in (-39, -38)]},
    }
    search = SearchJob(
        collection="books", vectors=FRONTS[:1], field="front", limit=1, output_fields=["year"], id_format="string"
    )
    [hits] = reply_to(world, search).hits or []
    assert (list(hits.ids), hits.fields) == ([str(KEYS[0])], {"year": [str(YEARS[0])]})


@pytest.mark.usefixtures("books")
def test_more_bytes_of_fields_than_a_reply_may_have_are_refused(world: World):
    many = np.tile(FRONTS[:3], (100, 1))
    jobs: list[Job] = [
        GetJob(collection="books", ids=[3] * 16_384, output_fields=["*", "front", "back"]),
        SearchJob(collection="books", vectors=many, field="front", limit=ROWS, output_fields=["*"]),
    ]
    for job in jobs:
        with pytest.raises(LimitExceeded, match="bytes or more, allowed are at most 1048576") as caught:
            reply_to(world, job)
        assert caught.value.field == "output_fields"
    assert len(get(world, [3] * 16_384, output_fields=["back"])[2]["back"]) == 16_384


@pytest.mark.usefixtures("books")
def test_rows_that_are_older_than_a_field_have_null_in_it(world: World):
    assert get(world, [3], output_fields=["year"])[0] == [3]
    world.client.collection("books").search(FRONTS[:1], field="front")
    field = ScalarField(name="language", type="string", nullable=True)
    Catalog(world.store).add_fields("books", [field], job_id=new_job_id())
    assert get(world, [3], output_fields=["language"])[1] == {"language": [None]}
    assert query(world, expr="language is null") == sorted(KEYS)
    [hits] = world.client.collection("books").search(FRONTS[:1], field="front", output_fields=["*"], limit=1)
    assert hits.fields["language"] == [None]


@pytest.mark.usefixtures("books")
@pytest.mark.parametrize(
    ("job", "kind", "message", "field"),
    [
        (
            GetJob(collection="books", ids=["x"]),
            InvalidArgument,
            r"ids\[0\] is 'x', the primary keys are int64",
            "ids",
        ),
        (GetJob(collection="books", ids=["1"]), InvalidArgument, "the primary keys are int64", "ids"),
        (GetJob(collection="books", ids=[1], output_fields=["titel"]), FieldNotFound, "'title'", "output_fields"),
        (GetJob(collection="boks", ids=[1]), CollectionNotFound, "'boks'", "collection"),
        (GetJob(collection="books", ids=[2**63]), InvalidArgument, r"ids\[0\] is 9223372036854775808", "ids[0]"),
        (GetJob(collection="books", ids=[1] * 16_385), LimitExceeded, "16384", "ids"),
        (QueryJob(collection="books", limit=0), InvalidArgument, "limit is 0", "limit"),
        (QueryJob(collection="books", limit=16_385), LimitExceeded, "16384", "limit"),
        (QueryJob(collection="books", limit=1, after="x"), InvalidArgument, "after is 'x'", "after"),
        (QueryJob(collection="books", limit=1, expr="yeer > 1"), InvalidExpression, "'year'", "expr"),
        (QueryJob(collection="books", limit=1, output_fields=["bak"]), FieldNotFound, "'back'", "output_fields"),
        (CountJob(collection="books", expr="year >"), InvalidExpression, "expr ", "expr"),
        (CountJob(collection="books", partition_names=["x"]), PartitionNotFound, "'x'", "partition_names"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Job) else "",
)
def test_a_read_that_cannot_be_answered_says_what_is_wrong(
    world: World, job: Job, kind: type[NearmqError], message: str, field: str
):
    with pytest.raises(kind, match=message) as caught:
        world.reply_to(job)
    assert caught.value.field == field
