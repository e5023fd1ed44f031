"""Searches whose text was written or read before are what they are when written or read as a whole."""

import base64
import contextlib
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from nearmq import codec
from nearmq.bounds import DEFAULT_BOUNDS
from nearmq.codec import decode_job, encode_job
from nearmq.errors import InvalidArgument, LimitExceeded, NearmqError
from nearmq.jobs import SearchJob
from nearmq.search_texts import Known, cut

DIM = 4


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    forget()
    yield
    forget()


def forget() -> None:
    codec._written._made.clear()
    codec._read._made.clear()


def vectors(seed: int, rows: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, DIM)).astype(np.float32)


def read(body: bytes, **options: Any) -> SearchJob:
    job = decode_job("search", "search.books", body, **options)
    assert isinstance(job, SearchJob)
    return job


def plain(job: SearchJob) -> SearchJob:
    return msgspec.structs.replace(job, vectors=None)


def body_of(data: str, **changes: Any) -> bytes:
    tree = {"format": 1, "collection": "books", "limit": 3, "vectors": {"data": data, "shape": [1, DIM]}} | changes
    return json.dumps(tree, separators=(",", ":")).encode()


def packed(values: np.ndarray) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def test_each_job_is_the_same_from_a_known_text_as_from_the_whole():
    chance = random.Random(3)
    options: list[dict[str, Any]] = [
        {},
        {"params": {"ef": 32}},
        {"params": {"ef": 32.0}},
        {"params": {"ef": 33}},
        {"limit": 1},
        {"limit": np.int64(1)},
        {"expr": 'a == "\\"vectors\\":{\\"data\\":\\"AA"'},
        {"expr": "year > {y}", "expr_params": {"y": 3}},
        {"expr": "year > {y}", "expr_params": {"y": True}},
        {"expr": "year > {y}", "expr_params": {"data": '"vectors":{"data":"'}},
        {"expr_params": {"vectors": [1, 2]}},
        {"partition_names": ["vectors", "data"]},
        {"output_fields": ["data"]},
        {"explain": True, "round_decimal": 2},
    ]
    for number in range(300):
        job = SearchJob(
            **{"collection": "books", "limit": 3, "encoding": "base64"} | chance.choice(options),
            vectors=vectors(number, chance.choice([1, 1, 2])),
        )
        body = encode_job(job)
        again = read(body)
        known = len(codec._read._made)
        forget()
        assert encode_job(job) == body
        whole = read(body)
        assert plain(again) == plain(whole)
        assert np.array_equal(again.vectors, job.vectors)
        assert again.vectors.dtype == np.float32
        forget() if chance.random() < 0.05 else None
        assert known >= 1


def test_a_text_is_read_once_and_its_jobs_differ_in_their_vectors_only():
    jobs = [read(encode_job(SearchJob(collection="books", limit=3, vectors=vectors(seed)))) for seed in range(5)]
    assert len(codec._read._made) == len(codec._written._made) == 1
    for seed, job in enumerate(jobs):
        assert np.array_equal(job.vectors, vectors(seed))
        assert plain(job) == SearchJob(collection="books", limit=3)


@pytest.mark.parametrize(
    "data",
    [
        "",
        "A",
        packed(vectors(1))[:-4],
        packed(vectors(1)) + "AAAA",
        packed(vectors(1))[:-1] + "*",
        packed(vectors(1))[:-1] + "\\",
        packed(vectors(1)[:, :3]),
        packed(np.array([1, 2, np.nan, 3])),
        packed(np.array([1, 2, np.inf, 3])),
        packed(vectors(1))[:5] + "é" + packed(vectors(1))[6:],
    ],
)
def test_data_that_are_refused_in_the_whole_are_refused_alike_behind_a_known_text(data: str):
    body = body_of(data)
    with pytest.raises(InvalidArgument) as whole:
        read(body)
    read(body_of(packed(vectors(1))))
    assert codec._read._made
    with pytest.raises(InvalidArgument) as known:
        read(body)
    assert (known.value.message, known.value.field) == (whole.value.message, whole.value.field)


@pytest.mark.parametrize(
    "body",
    [
        body_of(packed(vectors(1))).replace(b'"data":"', b'"data": "'),
        body_of(packed(vectors(1)), limit=0),
        body_of(packed(vectors(1)), unknown=1),
        b'{"format":1,"collection":"books","limit":3,"vectors":{"shape":[1,4],"data":"'
        + packed(vectors(1)).encode()
        + b'"}}',
    ],
)
def test_what_is_no_valid_text_is_not_kept(body: bytes):
    with contextlib.suppress(NearmqError):
        read(body)
    assert not codec._read._made


def test_a_text_is_known_for_the_properties_it_came_with():
    body = body_of(packed(vectors(1)))
    read(body)
    with pytest.raises(InvalidArgument, match="content_type"):
        read(body, content_type="text/plain")
    with pytest.raises(InvalidArgument, match="routing key"):
        decode_job("search", "search.other", body)
    with pytest.raises(InvalidArgument):
        decode_job("upsert", "upsert.books", body)
    with pytest.raises(LimitExceeded, match="bytes"):
        read(body, bounds=replace(DEFAULT_BOUNDS, body_bytes=60))


def test_a_bytes_expression_is_no_text_that_reads_like_it():
    search = {"collection": "books", "limit": 3, "vectors": vectors(1)}
    encode_job(SearchJob(**search, expr="YQ=="))
    with pytest.raises(InvalidArgument):
        encode_job(SearchJob(**search, expr=b"a"))


def test_long_texts_and_old_ones_are_not_kept():
    assert cut(body_of(packed(vectors(1)), expr="a" * 2_000)) is None
    known: Known[int] = Known()
    for number in range(1_000):
        known.put(number, number)
        assert known.get(number) == number
    assert len(known._made) <= 256
