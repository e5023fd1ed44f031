"""What a caller may give for ids, vectors and columns, and what the jobs hold then."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nearmq.arguments import as_columns, as_ids, as_matrices
from nearmq.client import Client
from nearmq.codec import decode_job, encode_job
from nearmq.collection import Collection
from nearmq.errors import InvalidArgument
from nearmq.jobs import SearchJob, UpsertJob
from nearmq.row_arguments import row_write_job
from nearmq.search_arguments import SearchOptions, search_job
from nearmq_worker.config import WorkerConfig
from nearmq_worker.embedded import EmbeddedTransport


@pytest.mark.parametrize(
    "ids",
    [[7, 9], (7, 9), np.array([7, 9], np.uint8), pa.array([7, 9]), pa.chunked_array([[7], [9]]), range(7, 11, 2)],
    ids=["list", "tuple", "numpy", "arrow", "arrow chunks", "range"],
)
def test_ids_may_stand_in_any_sequence(ids: Any):
    assert as_ids(ids) == [7, 9]


@pytest.mark.parametrize("ids", [7, "isbn-1", b"isbn", {"a": 1}, None, np.int64(3), np.array(3)])
def test_a_single_id_is_no_list_of_ids(ids: Any):
    with pytest.raises(InvalidArgument, match="expected a list of ids") as caught:
        as_ids(ids)
    assert caught.value.field == "ids"


def test_columns_of_any_library_become_the_values_of_json():
    columns = as_columns(
        {
            "year": np.array([1999, 2024], np.int32),
            "price": pa.array([0.5, None]),
            "tags": np.array([["a", "b"], ["c", "d"]]),
            "notes": [{"a": (1, 2)}, None],
            "read": (value for value in (True, False)),
        }
    )
    job = UpsertJob(collection="books", ids=[1, 2], vectors=np.ones((2, 3)), fields=columns)
    decoded = decode_job("upsert", "upsert.books", encode_job(job))
    assert decoded.fields == {
        "year": [1999, 2024],
        "price": [0.5, None],
        "tags": [["a", "b"], ["c", "d"]],
        "notes": [{"a": [1, 2]}, None],
        "read": [True, False],
    }


def test_numpy_scalars_within_lists_become_numbers():
    job = row_write_job(
        UpsertJob,
        "books",
        ids=[np.int64(7)],
        vectors=[np.zeros(3)],
        fields={"price": [np.float32(0.5)], "notes": [{"n": np.int8(3), "v": np.arange(2)}]},
        options={},
    )
    decoded = decode_job("upsert", "upsert.books", encode_job(job))
    assert (decoded.ids, decoded.fields) == ([7], {"price": [0.5], "notes": [{"n": 3, "v": [0, 1]}]})


@pytest.mark.parametrize("column", ["word", 7, None, {"a": 1}])
def test_a_single_value_is_no_column(column: Any):
    with pytest.raises(InvalidArgument, match="expected a list of values") as caught:
        as_columns({"year": column})
    assert caught.value.field == "fields.year"


def test_vectors_are_given_for_the_only_field_or_by_the_names_of_fields():
    assert as_matrices([1, 2, 3]).shape == (1, 3)
    by_field = as_matrices({"title": [[1, 2]], "cover": np.zeros((1, 4), np.float64, order="F")})
    assert {name: (matrix.shape, matrix.dtype) for name, matrix in by_field.items()} == {
        "title": ((1, 2), np.float32),
        "cover": ((1, 4), np.float32),
    }
    with pytest.raises(InvalidArgument, match=r"vectors.cover have 3 axes") as caught:
        as_matrices({"title": [[1]], "cover": np.zeros((1, 1, 1))})
    assert caught.value.field == "vectors.cover"


@pytest.mark.parametrize("value", [b"bytes", object(), 10**30, {"a": {1: 2}}])
def test_what_json_has_no_word_for_is_refused(value: Any):
    job = UpsertJob(collection="books", ids=[1], vectors=np.ones((1, 3)), fields={"notes": [value]})
    with pytest.raises(InvalidArgument):
        encode_job(job)


VECTORS = np.ones((1, 3), np.float32)


def test_a_search_holds_the_arguments_that_are_given_and_the_defaults_of_the_others():
    job = search_job(
        "books", VECTORS, {"params": {"ef": 7}, "output_fields": ("year",), "expr_params": None, "timeout_s": 3}
    )
    assert (job.params, job.output_fields, job.expr_params) == ({"ef": 7}, ["year"], {})
    assert (job.limit, job.offset, job.round_decimal, job.encoding) == (10, 0, -1, "base64")
    by_ids = search_job("books", None, {"ids": range(2), "limit": 5, "param": {"metric_type": "L2"}})
    assert (by_ids.vectors, by_ids.ids, by_ids.limit, by_ids.metric_type) == (None, [0, 1], 5, "L2")


def test_every_argument_of_a_search_is_the_jobs_or_one_that_is_known():
    elsewhere = {"param", "timeout_s"}
    assert set(SearchOptions.__annotations__) - elsewhere <= set(SearchJob.__struct_fields__)


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        (lambda books: books.search(VECTORS, limt=5), "'limt', did you mean 'limit'"),
        (lambda books: books.submit(VECTORS, filter="year > 1990"), "'filter', did you mean"),
        (lambda books: books.upsert([1], VECTORS, partition_names="2024"), "did you mean 'partition_name'"),
        (lambda books: books.delete([1], partition="2024"), "did you mean 'partition_name'"),
        (lambda books: books.get([1], fields=["year"]), "'fields', did you mean 'output_fields'"),
        (lambda books: books.query("year > 1990", top_k=3), "'top_k', known are"),
        (lambda books: next(books.iterate(offset=3)), "'offset'"),
    ],
)
def test_a_keyword_that_a_call_does_not_have_is_refused_by_name(call: Callable[[Collection], Any], wrong: str):
    with pytest.raises(TypeError, match=wrong):
        call(Collection(Client(EmbeddedTransport(WorkerConfig(store="memory:"))), "books"))
