"""Bodies of format 1, written by hand from docs/wire.md: they decode for ever, as do the examples of that page."""

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from nearmq import errors
from nearmq.codec import decode_job, decode_reply
from nearmq.jobs import (
    JOB_TYPES,
    BuildJob,
    CancelJob,
    CompactJob,
    CountJob,
    CreateJob,
    DeleteJob,
    DescribeJob,
    DropJob,
    ErrorReply,
    GetJob,
    InsertJob,
    Job,
    ListJob,
    LoadJob,
    PingJob,
    QueryJob,
    ReleaseJob,
    RenameJob,
    RowWriteJob,
    ScalarFieldSpec,
    SearchJob,
    TimingMs,
    UpsertJob,
    VectorFieldSpec,
)
from nearmq.stored_rows import read_rows
from nearmq.topology import TYPES_WITHOUT_COLLECTION, routing_key
from nearmq_index_store.errors import StoreError
from nearmq_index_store.indexes.registry import INDEX_KINDS
from nearmq_index_store.schema import IndexSpec, VectorField

FOLDER = Path(__file__).parent / "wire_v1"
WIRE_PAGE = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()

JOB_ID = "0192f0c1-2b3c-7d4e-8f50-617283940a1b"
LIMIT = 10
MATRIX = np.array([[0.5, -1.25, 3.0], [0.0, 2.0, -0.125]], np.float32)

JOBS: dict[str, Job] = {
    "search.nested": SearchJob(collection="books", vectors=MATRIX, limit=10),
    "search.packed": SearchJob(collection="books", vectors=MATRIX, limit=10, encoding="base64"),
    "search.full": SearchJob(
        collection="books",
        vectors=MATRIX[:1],
        limit=10,
        offset=20,
        field="title",
        metric_type="COSINE",
        params={"nprobe": 16, "refine": 8.0},
        expr='year > 2020 and title like "A%"',
        partition_names=["2023", "2024"],
        output_fields=["year"],
        radius=0.5,
        range_filter=1.0,
        round_decimal=3,
        min_version=17,
        id_format="string",
        explain=True,
    ),
    "search.expr_params": SearchJob(
        collection="books",
        vectors=MATRIX,
        limit=10,
        expr="year in {years} and price < {most} and read == {read} and author == {who}",
        expr_params={"years": [1980, 1990], "most": 20.5, "read": True, "who": "Eco"},
    ),
    "search.ids": SearchJob(collection="books", ids=[7, -(2**63)], limit=5),
    "search.string_ids": SearchJob(collection="books", ids=["isbn-1", "é"], limit=5),
    "search.groups": SearchJob(collection="books", ids=[7], limit=5, group_by_field="year", group_size=2),
    "upsert.nested": UpsertJob(
        collection="books",
        ids=[7, -(2**63)],
        vectors=MATRIX,
        fields={"year": [1999, 2024], "tags": [["sea", "whales"], None], "notes": [{"a": [1, None]}, "x"]},
    ),
    "upsert.packed": UpsertJob(collection="books", ids=[7, 9], vectors=MATRIX),
    "insert.fields": InsertJob(
        collection="books",
        ids=["isbn-1", "é"],
        vectors={"title": MATRIX, "data": MATRIX},
        partition_name="2024",
    ),
    "delete.ids": DeleteJob(collection="books", ids=[7, 9]),
    "delete.expr": DeleteJob(
        collection="books", expr="year < {first}", expr_params={"first": 1900}, partition_name="2024"
    ),
    "get": GetJob(
        collection="books",
        ids=[9, 7],
        output_fields=["*", "title"],
        partition_names=["2024"],
        min_version=17,
        encoding="base64",
        id_format="string",
    ),
    "count": CountJob(
        collection="books",
        expr="year > {first}",
        expr_params={"first": 1990},
        partition_names=["2024"],
        min_version=17,
    ),
    "query.page": QueryJob(
        collection="books",
        limit=1000,
        expr="year > {first}",
        expr_params={"first": 1990},
        partition_names=["2024"],
        output_fields=["year"],
        version=17,
        after=12044,
    ),
    "query.offset": QueryJob(
        collection="books",
        limit=10,
        offset=20,
        after="isbn-1",
        min_version=3,
        encoding="base64",
        id_format="string",
    ),
    "compact": CompactJob(collection="books", partition_names=["2024"]),
    "build": BuildJob(collection="books"),
    "create.collection": CreateJob(
        collection="books",
        primary_key="string",
        vector_fields=[
            VectorFieldSpec(
                name="title",
                dim=256,
                metric_type="COSINE",
                index="HNSW",
                index_params={"M": 16, "efConstruction": 200},
            ),
            VectorFieldSpec(name="cover", dim=512, metric_type="L2", index="HNSW", index_params={}),
        ],
    ),
    "create.scalars": CreateJob(
        collection="books",
        vector_fields=[VectorFieldSpec(name="title", dim=256)],
        scalar_fields=[
            ScalarFieldSpec(name="year", type="int64"),
            ScalarFieldSpec(name="tags", type="array<string>", nullable=True),
        ],
    ),
    "create.fields": CreateJob(
        collection="books", scalar_fields=[ScalarFieldSpec(name="language", type="string", nullable=True)]
    ),
    "create.partition": CreateJob(collection="books", partition_name="2024"),
    "drop.collection": DropJob(collection="books"),
    "drop.partition": DropJob(collection="books", partition_name="2024"),
    "rename": RenameJob(collection="books", new_name="books-2024"),
    "list": ListJob(),
    "describe": DescribeJob(collection="books"),
    "load": LoadJob(collection="books", partition_names=["2024"], field="title"),
    "release": ReleaseJob(collection="books"),
    "cancel": CancelJob(job_ids=["0192f0c1-2b3c-7d4e-8f50-617283940a1b", "crawler-17"]),
    "ping": PingJob(),
    "ping.jobs": PingJob(jobs=True),
}


def test_every_stored_job_is_expected_and_every_type_is_stored():
    assert {path.name.removeprefix("job.").removesuffix(".json") for path in FOLDER.glob("job.*")} == set(JOBS)
    assert {name.partition(".")[0] for name in JOBS} == set(JOB_TYPES)


@pytest.mark.parametrize("name", JOBS)
def test_a_stored_job_of_format_1_decodes_to_what_it_meant(name: str):
    assert_same_job(decode((FOLDER / f"job.{name}.json").read_bytes(), name.partition(".")[0]), JOBS[name])


@pytest.mark.parametrize("name", ["hits", "packed_hits"])
def test_stored_hits_of_format_1_decode_in_both_encodings(name: str):
    reply = stored_reply(name)

    assert (reply.job_id, reply.status, reply.version) == (JOB_ID, "ok", 17)
    assert [hits.ids.tolist() for hits in reply.hits] == [[7, 3], [], [9]]
    assert [hits.distances.tolist() for hits in reply.hits] == [[0.125, 0.5], [], [2.25]]
    assert all(hits.ids.dtype == np.int64 and hits.distances.dtype == np.float32 for hits in reply.hits)


def test_a_stored_reply_of_format_1_keeps_all_its_keys():
    reply = stored_reply("hits")

    assert reply.timing_ms == TimingMs(queue=0.5, load=0.0, search=1.5, total=2.0)
    assert (reply.worker, reply.attempt) == ("search-7f9c", 2)
    assert [hits.fields for hits in reply.hits] == [{}, {}, {"year": [2024]}]


@pytest.mark.parametrize("name", ["string_ids", "packed_string_ids"])
def test_stored_string_ids_of_format_1_decode_to_str_objects(name: str):
    (hits,) = stored_reply(name).hits
    assert hits.ids.tolist() == ["isbn-1"]
    assert hits.distances.tolist() == [0.125]


def test_stored_progress_of_format_1_decodes():
    reply = stored_reply("progress")
    assert (reply.status, reply.worker, reply.result) == ("partial", "search-7f9c", {"progress": 0.5})


def test_a_stored_error_of_format_1_decodes():
    error = stored_reply("error").error
    assert error == ErrorReply(code="STORE_UNAVAILABLE", message="the store did not answer", retryable=True)


def test_keys_and_codes_of_a_newer_release_are_let_pass():
    reply = stored_reply("from_a_newer_release")
    assert reply.error == ErrorReply(code="BRAND_NEW", message="this release does not know me", field="limit")


def examples(kind: str) -> list[Any]:
    fences = re.findall(rf"^```json {kind} ?(\w*)\n(.*?)^```", WIRE_PAGE, re.MULTILINE | re.DOTALL)
    return [pytest.param(job_type, body.encode(), id=f"{job_type}-{n}") for n, (job_type, body) in enumerate(fences)]


def test_the_page_has_an_example_of_every_job_type():
    assert {example.values[0] for example in examples("job")} == set(JOB_TYPES)


@pytest.mark.parametrize(("job_type", "body"), examples("job"))
def test_an_example_job_of_the_page_decodes(job_type: str, body: bytes):
    assert type(decode(body, job_type)) is JOB_TYPES[job_type]


@pytest.mark.parametrize("body", [example.values[1] for example in examples("reply")])
def test_an_example_reply_of_the_page_decodes(body: bytes):
    reply = decode_reply(body)
    assert reply.job_id == JOB_ID
    assert (reply.hits, reply.result, reply.error) != (None, None, None)


def test_the_rows_of_the_page_are_those_that_it_wrote():
    results = [decode_reply(example.values[1]).result or {} for example in examples("reply")]
    nested, packed = [read_rows(result) for result in results if "ids" in result]
    for ids, _, vectors in (nested, packed):
        assert ids.tolist() == [9, 7]
        np.testing.assert_array_equal(vectors["title"], MATRIX[::-1])
    assert nested[1] == {"year": [2024, 1999], "tags": [None, ["sea", "whales"]]}


def test_the_page_lists_every_error_code_and_whether_it_is_retryable():
    table = dict(re.findall(r"^\| `([A-Z_]+)` \| .* \| (yes|no) \|$", WIRE_PAGE, re.MULTILINE))
    travelling = {code: kind for code, kind in errors.BY_CODE.items() if kind not in errors.CLIENT_ONLY}
    assert table == {code: "yes" if kind.retryable else "no" for code, kind in travelling.items()}


def test_the_page_lists_every_key_of_every_job():
    structs = [*JOB_TYPES.values(), VectorFieldSpec, ScalarFieldSpec]
    keys = {key for struct in structs for key in struct.__struct_fields__}
    assert keys <= set(re.findall(r"[`\"](\w+)[`\"]", WIRE_PAGE))


def ranges(key: str) -> list[tuple[str, int, int]]:
    """Return the parameters that the row of a key names with a range, and their ranges."""
    row, *_ = [line for line in WIRE_PAGE.splitlines() if line.startswith(f"| `{key}` |")]
    found = re.findall(r"`(\w+)` \(([\d,]+) to ([\d,]+)\)", row.replace("offset + limit", str(LIMIT)))
    return [(name, int(low.replace(",", "")), int(high.replace(",", ""))) for name, low, high in found]


def takes(kind: str, name: str, value: int, *, build: bool) -> bool:
    field = VectorField(name="v", dim=64, metric="L2", index=IndexSpec(kind=kind, params={"nlist": 128}))
    try:
        if build:
            INDEX_KINDS[kind].check_build_params({name: value}, field.dim)
        else:
            INDEX_KINDS[kind].resolve({name: value}, field, LIMIT)
    except StoreError:
        return False
    return True


@pytest.mark.parametrize(("name", "low", "high"), [*ranges("index_params"), *ranges("params")])
def test_the_page_tells_the_ranges_of_the_parameters_of_indexes(name: str, low: int, high: int):
    build = name in {"M", "efConstruction", "nlist", "nbits"}
    kinds = [kind for kind in INDEX_KINDS if takes(kind, name, low, build=build)]
    assert kinds
    for kind in kinds:
        assert takes(kind, name, high, build=build)
        assert not takes(kind, name, low - 1, build=build)
        assert not takes(kind, name, high + 1, build=build)


def decode(body: bytes, job_type: str) -> Job:
    collection = None if job_type in TYPES_WITHOUT_COLLECTION else "books"
    return decode_job(job_type, routing_key(job_type, collection), body)


def stored_reply(name: str) -> Any:
    return decode_reply((FOLDER / f"reply.{name}.json").read_bytes())


def assert_same_job(decoded: Job, expected: Job) -> None:
    assert type(decoded) is type(expected)
    if isinstance(decoded, SearchJob | RowWriteJob) and isinstance(expected, SearchJob | RowWriteJob):
        assert_same_vectors(decoded.vectors, expected.vectors)
        decoded = msgspec.structs.replace(decoded, vectors=None)
        expected = msgspec.structs.replace(expected, vectors=None)
    assert decoded == expected


def assert_same_vectors(decoded: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert list(decoded) == list(expected)
        for name, matrix in expected.items():
            np.testing.assert_array_equal(decoded[name], matrix)
    else:
        np.testing.assert_array_equal(decoded, expected)
