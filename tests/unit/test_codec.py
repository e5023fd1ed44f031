"""Jobs and replies to bytes and back, and whatever comes of bodies that were mutated."""

import json
import random
import string
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nearmq.codec import decode_job, decode_reply, encode_job, encode_reply
from nearmq.errors import Internal, InvalidArgument, NearmqError
from nearmq.jobs import (
    TYPE_OF,
    BuildJob,
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
    Reply,
    RowWriteJob,
    ScalarFieldSpec,
    ScalarType,
    SearchJob,
    TimingMs,
    UpsertJob,
    VectorFieldSpec,
)
from nearmq.query_hits import Hits
from nearmq.topology import routing_key

WORDS = string.ascii_letters + string.digits + "_"
NAMES = st.builds(str.__add__, st.sampled_from(WORDS), st.text(WORDS + "-", max_size=127))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(
    allow_nan=False, allow_infinity=False, min_value=-1e18, max_value=1e18
)
INT64 = st.integers(-(2**63), 2**63 - 1)
MATRICES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 5), st.integers(1, 8)),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


def searches(**either: st.SearchStrategy[Any]) -> st.SearchStrategy[SearchJob]:
    return st.builds(
        SearchJob,
        collection=NAMES,
        limit=st.integers(1, 1000),
        offset=st.integers(0, 1000),
        field=maybe(NAMES),
        metric_type=st.sampled_from([None, "L2", "IP", "COSINE"]),
        params=st.dictionaries(NAMES, NUMBERS, max_size=3),
        expr=maybe(TEXTS),
        expr_params=st.dictionaries(
            TEXTS, st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXTS | st.lists(TEXTS, max_size=2), max_size=3
        ),
        partition_names=maybe(st.lists(NAMES, min_size=1, max_size=3)),
        output_fields=maybe(st.lists(NAMES, min_size=1, max_size=3)),
        radius=maybe(st.floats(allow_nan=False, allow_infinity=False)),
        range_filter=maybe(st.floats(allow_nan=False, allow_infinity=False)),
        round_decimal=st.integers(-1, 6),
        group_by_field=maybe(NAMES),
        min_version=maybe(st.integers(0, 2**63 - 1)),
        encoding=st.sampled_from(["json", "base64"]),
        id_format=st.sampled_from(["int", "string"]),
        explain=st.booleans(),
        **either,
    )


VECTOR_FIELDS = st.lists(
    st.builds(
        VectorFieldSpec,
        name=NAMES,
        dim=st.integers(1, 32_768),
        metric_type=st.sampled_from(["L2", "IP", "COSINE"]),
        index=st.sampled_from(["FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8", "IVF_PQ"]),
        index_params=st.dictionaries(NAMES, st.integers(0, 2**31), max_size=3),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda spec: spec.name,
)
SCALAR_FIELDS = st.lists(
    st.builds(
        ScalarFieldSpec,
        name=NAMES,
        type=st.sampled_from(get_args(ScalarType)),
        nullable=st.booleans(),
    ),
    max_size=3,
    unique_by=lambda spec: spec.name,
)
IDS = st.lists(INT64, max_size=5, unique=True) | st.lists(TEXTS, max_size=5, unique=True)
ADDED_FIELDS = st.lists(
    st.builds(ScalarFieldSpec, name=NAMES, type=st.sampled_from(get_args(ScalarType)), nullable=st.just(True)),
    min_size=1,
    max_size=3,
    unique_by=lambda spec: spec.name,
)
EXPR_PARAMS = st.dictionaries(TEXTS, st.booleans() | INT64 | TEXTS | st.lists(TEXTS, max_size=2), max_size=3)
FIELD_NAMES = maybe(st.lists(NAMES | st.just("*"), min_size=1, max_size=3))
READS = {
    "partition_names": maybe(st.lists(NAMES, min_size=1, max_size=3)),
    "min_version": maybe(st.integers(0, 2**63 - 1)),
}
FORMS = {"encoding": st.sampled_from(["json", "base64"]), "id_format": st.sampled_from(["int", "string"])}
OTHER_JOBS = st.one_of(
    searches(ids=st.lists(INT64, max_size=5) | st.lists(TEXTS, max_size=5)),
    st.builds(
        CreateJob,
        collection=NAMES,
        vector_fields=VECTOR_FIELDS,
        scalar_fields=SCALAR_FIELDS,
        primary_key=st.sampled_from(["int64", "string"]),
    ).filter(lambda job: {spec.name for spec in job.vector_fields}.isdisjoint(spec.name for spec in job.scalar_fields)),
    st.builds(CreateJob, collection=NAMES, partition_name=NAMES),
    st.builds(DropJob, collection=NAMES, partition_name=maybe(NAMES)),
    st.builds(RenameJob, collection=NAMES, new_name=NAMES),
    st.builds(ListJob),
    st.builds(DescribeJob, collection=NAMES),
    st.builds(LoadJob, collection=NAMES, partition_names=maybe(st.lists(NAMES, min_size=1)), field=maybe(NAMES)),
    st.builds(ReleaseJob, collection=NAMES, partition_names=maybe(st.lists(NAMES, min_size=1))),
    st.builds(PingJob),
    st.builds(CreateJob, collection=NAMES, scalar_fields=ADDED_FIELDS),
    st.builds(DeleteJob, collection=NAMES, ids=IDS, partition_name=maybe(NAMES)),
    st.builds(DeleteJob, collection=NAMES, expr=TEXTS, expr_params=EXPR_PARAMS),
    st.builds(GetJob, collection=NAMES, ids=IDS, output_fields=FIELD_NAMES, **READS, **FORMS),
    st.builds(CountJob, collection=NAMES, expr=maybe(TEXTS), expr_params=EXPR_PARAMS, **READS),
    st.builds(
        QueryJob,
        collection=NAMES,
        limit=st.integers(1, 16_384),
        offset=st.integers(0, 1_000),
        expr=maybe(TEXTS),
        expr_params=EXPR_PARAMS,
        output_fields=FIELD_NAMES,
        version=maybe(st.integers(0, 2**63 - 1)),
        after=maybe(INT64 | TEXTS),
        **READS,
        **FORMS,
    ),
    st.builds(CompactJob, collection=NAMES, partition_names=maybe(st.lists(NAMES, min_size=1))),
    st.builds(BuildJob, collection=NAMES, partition_names=maybe(st.lists(NAMES, min_size=1))),
)

#: What a scalar field may hold, as JSON.
VALUES = st.recursive(
    st.none() | st.booleans() | INT64 | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def row_writes(draw: st.DrawFn) -> RowWriteJob:
    ids = draw(IDS)
    matrices = hnp.arrays(
        np.float32,
        st.tuples(st.just(len(ids)), st.integers(1, 4)),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
    return draw(st.sampled_from([UpsertJob, InsertJob]))(
        collection=draw(NAMES),
        ids=ids,
        vectors=draw(matrices | st.dictionaries(NAMES, matrices, min_size=1, max_size=2)),
        fields=draw(st.dictionaries(NAMES, st.lists(VALUES, min_size=len(ids), max_size=len(ids)), max_size=3)),
        partition_name=draw(maybe(NAMES)),
    )


@settings(deadline=None)
@given(row_writes(), st.booleans())
def test_a_row_write_decodes_to_what_was_encoded(job: RowWriteJob, packed: bool):
    decoded = decoded_again(job, packed=packed)

    assert type(decoded) is type(job)
    assert msgspec.structs.replace(decoded, vectors=None) == msgspec.structs.replace(job, vectors=None)
    sent, read = by_field(job.vectors), by_field(decoded.vectors)
    assert list(read) == list(sent)
    for name, matrix in sent.items():
        assert read[name].dtype == np.float32
        assert read[name].flags.c_contiguous
        np.testing.assert_array_equal(read[name].ravel(), matrix.ravel())


def by_field(vectors: Any) -> dict[str, Any]:
    return vectors if isinstance(vectors, dict) else {"": vectors}


@settings(deadline=None)
@given(searches(vectors=MATRICES), st.booleans())
def test_a_search_decodes_to_what_was_encoded(job: SearchJob, packed: bool):
    decoded = decoded_again(job, packed=packed)

    assert decoded.vectors.dtype == np.float32
    assert decoded.vectors.flags.c_contiguous
    assert len(decoded.vectors) == len(job.vectors)
    np.testing.assert_array_equal(decoded.vectors.ravel(), job.vectors.ravel())
    assert msgspec.structs.replace(decoded, vectors=None) == msgspec.structs.replace(job, vectors=None)


@settings(deadline=None)
@given(OTHER_JOBS)
def test_any_other_job_decodes_to_what_was_encoded(job: Job):
    assert decoded_again(job) == job


ROWS = st.integers(0, 6).flatmap(
    lambda size: st.tuples(
        hnp.arrays(np.int64, size),
        hnp.arrays(np.float32, size, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
    )
)


@settings(deadline=None)
@given(st.lists(ROWS, max_size=4), st.sampled_from(["json", "base64"]), st.sampled_from(["int", "string"]))
def test_hits_decode_to_what_was_encoded(rows: list[Any], encoding: Any, id_format: Any):
    hits = Hits(
        [len(ids) for ids, _ in rows],
        np.concatenate([np.empty(0, np.int64), *(ids for ids, _ in rows)]),
        np.concatenate([np.empty(0, np.float32), *(distances for _, distances in rows)]),
    )
    reply = decode_reply(
        encode_reply(Reply(job_id="j", status="ok", hits=hits), encoding=encoding, id_format=id_format)
    )

    as_written = str if id_format == "string" else int
    assert [row.ids.tolist() for row in reply.hits] == [list(map(as_written, ids.tolist())) for ids, _ in rows]
    for row, (_, distances) in zip(reply.hits, rows, strict=True):
        np.testing.assert_array_equal(row.distances, distances)


@settings(deadline=None)
@given(st.lists(st.lists(TEXTS, max_size=3), max_size=3), st.sampled_from(["json", "base64"]))
def test_string_ids_decode_to_what_was_encoded(rows: list[list[str]], encoding: Any):
    ids = [id_ for row in rows for id_ in row]
    hits = Hits(
        list(map(len, rows)), np.array(ids, object), np.zeros(len(ids), np.float32), [{"n": row} for row in rows]
    )
    reply = decode_reply(encode_reply(Reply(job_id="j", status="ok", hits=hits), encoding=encoding))

    assert [row.ids.tolist() for row in reply.hits] == rows
    assert [row.fields for row in reply.hits] == [{"n": row} for row in rows]


@settings(deadline=None)
@given(
    st.builds(
        Reply,
        job_id=TEXTS,
        status=st.sampled_from(["ok", "partial", "error"]),
        version=maybe(st.integers(0, 2**63 - 1)),
        result=maybe(st.dictionaries(TEXTS, TEXTS | st.integers(0, 2**53) | st.lists(TEXTS), max_size=3)),
        error=maybe(st.builds(ErrorReply, code=TEXTS, message=TEXTS, field=maybe(TEXTS), retryable=st.booleans())),
        timing_ms=maybe(st.builds(TimingMs, queue=st.floats(0, 1e9), total=st.floats(0, 1e9))),
        worker=maybe(TEXTS),
        attempt=st.integers(1, 100),
    )
)
def test_a_reply_without_hits_decodes_to_what_was_encoded(reply: Reply):
    assert decode_reply(encode_reply(reply)) == reply


def test_numpy_scalars_of_a_caller_are_written_as_numbers():
    job = SearchJob(collection="books", ids=[1], limit=np.int64(3), params={"ef": np.int32(64), "r": np.float32(0.5)})
    assert decoded_again(job) == SearchJob(collection="books", ids=[1], limit=3, params={"ef": 64, "r": 0.5})


@pytest.mark.parametrize("vectors", [[], {"data": "", "shape": [0, 3]}, {"data": "", "shape": [0, 0]}])
def test_no_query_at_all_is_a_job(vectors: Any):
    body = json.dumps({"collection": "books", "vectors": vectors, "limit": 10}).encode()
    assert len(decode_job("search", "search.books", body).vectors) == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"job_id": "j"}',
        b'{"job_id": "j", "status": "ok", "format": 2}',
        b'{"job_id": "j", "status": "ok", "hits": [{"ids": [1, 2], "distances": [0.5]}]}',
        b'{"job_id": "j", "status": "ok", "hits": {"counts": [2], "ids": [], "distances": {"data": "", "shape": [0]}}}',
        b'{"job_id": "j", "status": "ok", "hits": {"counts": [1], "ids": {"data": "junk"}}}',
        (
            b'{"job_id": "j", "status": "ok", "hits": {"counts": [1], "ids": [1], '
            b'"distances": {"data": "AAAAAA==", "shape": [2]}}}'
        ),
        b'{"job_id": "j", "status": "ok", "hits": 7}',
    ],
)
def test_a_reply_that_cannot_be_read_raises_internal(body: bytes):
    with pytest.raises(Internal):
        decode_reply(body)


@pytest.mark.parametrize(("counts", "fields"), [("[2, -2]", "[]"), ("[0.0]", "[]"), ("[0]", "[{}, {}]"), ("{}", "[]")])
def test_packed_hits_whose_counts_are_none_or_do_not_fit_raise_internal(counts: str, fields: str):
    hits = f'{{"counts": {counts}, "ids": [], "distances": {{"data": "", "shape": [0]}}, "fields": {fields}}}'
    with pytest.raises(Internal):
        decode_reply(f'{{"job_id": "j", "status": "ok", "hits": {hits}}}'.encode())


def test_hits_of_many_queries_are_read_by_number_slice_or_one_after_the_other():
    hits = Hits([2, 0, 1], np.array([7, 3, 9]), np.array([1, 2, 4], np.float32))

    expected = [[7, 3], [], [9]]
    assert [found.ids.tolist() for found in hits] == expected
    assert [hits[query].ids.tolist() for query in range(3)] == expected
    assert [found.ids.tolist() for found in hits[1:]] == expected[1:]
    assert hits[-1].distances.tolist() == [4.0]
    with pytest.raises(IndexError):
        hits[3]


BODIES = [
    (
        "search",
        b'{"collection": "a", "limit": 9, "vectors": [[1, 2]], "params": {"ef": 6}, "expr": "x == \\"y\\\\\\""}',
    ),
    (
        "search",
        b'{"collection": "a", "limit": 9, "vectors": {"data": "AACAPwAAgD8=", "shape": [1, 2]}, "field": "v"}',
    ),
    ("search", b'{"collection": "a", "limit": 9, "ids": [1, 2, 3], "radius": 0.5, "partition_names": ["p"]}'),
    (
        "upsert",
        b'{"collection": "a", "ids": [1], "vectors": {"v": {"data": "AACAPw==", "shape":[1, 1]}},"fields":{"n":[0]}}',
    ),
    ("query", b'{"collection": "a", "limit": 9, "expr": "a > 1", "version": 7, "after": -1, "output_fields": ["*"]}'),
    ("create", b'{"collection": "a", "vector_fields": [{"name": "v", "dim": 2, "index_params": {"M": 16}}]}'),
]


def test_mutated_bodies_are_decoded_or_refused_but_never_raise_anything_else():
    chance = random.Random(20)
    refused = 0
    for _ in range(2_000):
        job_type, body = chance.choice(BODIES)
        try:
            decode_job(job_type, f"{job_type}.a", mutated(body, chance))
        except NearmqError:
            refused += 1
    assert 1_000 < refused < 2_000


def mutated(body: bytes, chance: random.Random) -> bytes:
    fragments = [
        b"null",
        b"true",
        b"-1",
        b"1e308",
        b"[]",
        b"{}",
        b'"',
        b"\\",
        b"[[[",
        b"\xff",
        b"0.5",
        b'"":0,',
        b"9" * 30,
    ]
    for _ in range(chance.randint(1, 3)):
        start = chance.randrange(len(body) + 1)
        end = start + chance.choice([0, 1, 1, 2, 8])
        body = body[:start] + chance.choice([b"", bytes([chance.randrange(256)]), *fragments]) + body[end:]
    return body


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | NUMBERS | TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
        max_leaves=10,
    ),
    st.sampled_from([*SearchJob.__struct_fields__, "vector_fields"]),
)
def test_any_json_value_in_any_place_is_decoded_or_refused(value: Any, key: str):
    job_type = "create" if key == "vector_fields" else "search"
    body = json.dumps({"collection": "books", "ids": [1], "limit": 10, key: value}).encode()
    message = ""
    try:
        decode_job(job_type, f"{job_type}.books", body)
    except NearmqError as error:
        message = error.message
    assert not message.endswith(".")


def test_the_place_of_a_wrong_value_is_found_behind_right_ones():
    body = b'{"collection": "books", "ids": [1], "limit": 10, "expr_params": {"a": [1], "b": [1, null]}}'
    with pytest.raises(InvalidArgument, match=r"expr_params.b\[1\] is None") as caught:
        decode_job("search", "search.books", body)
    assert caught.value.field == "expr_params.b[1]"


def decoded_again(job: Job, *, packed: bool = True) -> Any:
    job_type = TYPE_OF[type(job)]
    key = routing_key(job_type, getattr(job, "collection", None))
    return decode_job(job_type, key, encode_job(job, packed=packed))
