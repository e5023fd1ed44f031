"""What strangers get wrong in a job, one line each: the code, the field at fault, and what the message has to name."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pybase64
import pytest

from nearmq.bounds import DEFAULT_BOUNDS, Bounds
from nearmq.codec import decode_job, encode_job
from nearmq.errors import InvalidArgument, LimitExceeded, NearmqError
from nearmq.jobs import SearchJob, UpsertJob

ONE = pybase64.b64encode_as_string(np.ones(3, "<f4").tobytes())
NOT_FINITE = pybase64.b64encode_as_string(np.array([1, np.nan, 1], "<f4").tobytes())
SMALL = Bounds(
    body_bytes=4096,
    depth=4,
    items=40,
    dim=4,
    queries=3,
    limit=100,
    hits=150,
    id_bytes=4,
    expr_bytes=8,
    names=2,
    vector_fields=1,
    params=2,
)


def search(**changes: Any) -> dict[str, Any]:
    body = {"collection": "books", "vectors": [[1, 2, 3]], "limit": 10} | changes
    return {key: value for key, value in body.items() if value is not ...}


def literal(key: str, text: str) -> bytes:
    """Return a search whose `key` is this text, which need be no JSON."""
    return json.dumps(search(**{key: "@"})).replace('"@"', text).encode()


# body, field at fault, what the message has to name
INVALID = {
    "no UTF-8": (b'{"collection": "\xff"}', "body", "byte 16"),
    "UTF-8 of a surrogate": (b'{"collection": "\xed\xa0\x80"}', "body", "not UTF-8"),
    "byte order mark": (b"\xef\xbb\xbf{}", "body", "not JSON"),
    "empty": (b"", "body", "not JSON"),
    "no JSON": (b"hello", "body", "not JSON"),
    "cut off": (b'{"collection": "books", "limit": 1', "body", "not JSON"),
    "two documents": (b"{}{}", "body", "not JSON"),
    "trailing comma": (b'{"limit": 1,}', "body", "not JSON"),
    "no object": (b"[1]", "body", "list"),
    "null": (b"null", "body", "expected an object"),
    "lone surrogate": (literal("expr", '"\\ud800"'), "body", "surrogate"),
    "NaN": (literal("vectors", "[[1, NaN, 3]]"), "body", "not JSON"),
    "Infinity": (literal("radius", "Infinity"), "body", "not JSON"),
    "beyond float64": (literal("vectors", "[[1, 1e999, 3]]"), "body", "infinity"),
    "beyond float32": (search(vectors=[[0, 0, 0], [1, 1e300, 3]]), "vectors[1]", "inf"),
    "duplicate key": (b'{"collection": "books", "limit": 1, "limit": 2, "ids": [1]}', "limit", "twice"),
    "duplicate key, escaped": (b'{"collection": "books", "limit": 1, "l\\u0069mit": 2, "ids": [1]}', "limit", "twice"),
    "duplicate nested key": (literal("params", '{"ef": 1, "nprobe": 2, "ef": 3}'), "ef", "twice"),
    "duplicate key beside colons and quotes": (
        b'{"collection": "a", "expr": "\\":\\\\", "expr": ":", "ids": [1], "limit": 1}',
        "expr",
        "twice",
    ),
    "unknown key": (search(limt=1), "limt", "did you mean 'limit'"),
    "unknown key, nothing near": (search(zzzzzz=1), "zzzzzz", "known are collection"),
    "format of the future": (search(format=2), "format", "2, allowed is 1"),
    "no collection": (search(collection=...), "collection", "missing"),
    "no limit": (search(limit=...), "limit", "missing"),
    "limit null": (search(limit=None), "limit", "None, expected an integer"),
    "limit true": (search(limit=True), "limit", "True, expected an integer"),
    "limit with a point": (literal("limit", "10.0"), "limit", "10.0, expected an integer"),
    "limit as text": (search(limit="10"), "limit", "'10', expected an integer"),
    "limit 0": (search(limit=0), "limit", "0, allowed are 1 to 1048576"),
    "limit negative": (search(limit=-1), "limit", "-1, allowed are 1 to 1048576"),
    "offset negative": (search(offset=-1), "offset", "-1, allowed is 0 or more"),
    "name with a dot": (search(collection="a.b"), "collection", "'a.b'"),
    "name with a slash": (search(collection="../etc"), "collection", "^[A-Za-z0-9_]"),
    "name with a newline": (search(collection="books\n"), "collection", "\\n"),
    "name that begins with a dash": (search(collection="-a"), "collection", "'-a'"),
    "name empty": (search(collection=""), "collection", "''"),
    "name too long": (search(collection="a" * 129), "collection", "{0,127}"),
    "field's name": (search(field="a b"), "field", "'a b'"),
    "metric": (search(metric_type="l2"), "metric_type", "'l2', expected one of 'L2', 'IP', 'COSINE'"),
    "encoding": (search(encoding="gzip"), "encoding", "'gzip', expected one of 'json', 'base64'"),
    "id_format": (search(id_format="uuid"), "id_format", "'uuid', expected one of 'int', 'string'"),
    "params as text": (search(params="ef=1"), "params", "'ef=1', expected an object"),
    "param true": (search(params={"nprobe": 1, "ef": True}), "params.ef", "True, expected a number"),
    "param as text": (search(params={"ef": "64"}), "params.ef", "'64', expected a number"),
    "param huge": (search(params={"ef": 2**63}), "params.ef", "9223372036854775808, allowed are numbers below 2^63"),
    "expr_params as a list": (search(expr_params=[1]), "expr_params", "[1], expected an object"),
    "expr_params of an object": (search(expr_params={"a": {}}), "expr_params.a", "{}, expected"),
    "expr_params with null": (search(expr_params={"a": None}), "expr_params.a", "None, expected"),
    "partition as text": (search(partition_names="2024"), "partition_names", "'2024', expected a list"),
    "partition names, none": (search(partition_names=[]), "partition_names", "empty"),
    "partition's name": (search(partition_names=["a", "b*"]), "partition_names[1]", "'b*'"),
    "partition a number": (search(partition_names=["a", 7]), "partition_names[1]", "7, expected a string"),
    "output field's name": (search(output_fields=["*", "year*"]), "output_fields[1]", "'year*'"),
    "round_decimal": (search(round_decimal=7), "round_decimal", "7, allowed are -1 to 6"),
    "min_version": (search(min_version=-1), "min_version", "-1, allowed are 0 to"),
    "radius": (search(radius="1"), "radius", "'1', expected a number"),
    "explain": (search(explain=1), "explain", "1, expected true or false"),
    "neither vectors nor ids": (search(vectors=...), "vectors", "neither"),
    "both vectors and ids": (search(ids=[1]), "vectors", "both"),
    "id with a point": (search(vectors=..., ids=[1, 2.5]), "ids[1]", "2.5"),
    "id true": (search(vectors=..., ids=[True]), "ids[0]", "True"),
    "ids of two types": (search(vectors=..., ids=[1, "1"]), "ids", "integers and strings"),
    "id beyond int64": (search(vectors=..., ids=[2**63]), "ids[0]", "2^63 - 1"),
    "vectors text": (search(vectors="[[1]]"), "vectors", "expected lists of numbers"),
    "one vector, not in a list": (search(vectors=[1.0, 2.0]), "vectors[0]", "float, expected a list"),
    "ragged rows": (search(vectors=[[1, 2], [3, 4], [5]]), "vectors[2]", "1 dimensions, vectors[0] has 2"),
    "row too deep": (search(vectors=[[1, 2], [3, [4]]]), "vectors[1]", "[4], allowed are numbers"),
    "row of texts": (search(vectors=[["1", "2"]]), "vectors[0]", "'1', allowed are numbers"),
    "row of booleans": (search(vectors=[[1, True]]), "vectors[0]", "True, allowed are numbers"),
    "row with null": (search(vectors=[[1, None]]), "vectors[0]", "None, allowed are numbers"),
    "row empty": (search(vectors=[[]]), "vectors", "1 to 32768"),
    "packed: no shape": (search(vectors={"data": ONE}), "vectors", "expected 'data' and 'shape'"),
    "packed: a key more": (search(vectors={"data": ONE, "shape": [1, 3], "dtype": "f4"}), "vectors", "'dtype'"),
    "packed: data a list": (search(vectors={"data": [1], "shape": [1, 1]}), "vectors.data", "list"),
    "packed: shape of one axis": (search(vectors={"data": ONE, "shape": [3]}), "vectors.shape", "[3]"),
    "packed: shape with true": (search(vectors={"data": ONE, "shape": [True, 3]}), "vectors.shape", "True"),
    "packed: shape negative": (search(vectors={"data": ONE, "shape": [-1, -3]}), "vectors.shape", "[-1, -3]"),
    "packed: dim 0": (search(vectors={"data": "", "shape": [1, 0]}), "vectors.shape", "1 to 32768"),
    "packed: too short": (search(vectors={"data": ONE, "shape": [2, 3]}), "vectors.data", "32 (24 bytes)"),
    "packed: too long": (search(vectors={"data": ONE, "shape": [1, 2]}), "vectors.data", "12 (8 bytes)"),
    "packed: same length, one value less": (search(vectors={"data": "AAAAAAA=", "shape": [1, 1]}), "vectors.data", "5"),
    "packed: junk": (search(vectors={"data": "*" + ONE[1:], "shape": [1, 3]}), "vectors.data", "base64"),
    "packed: line break": (search(vectors={"data": ONE[:-1] + "\n", "shape": [1, 3]}), "vectors.data", "base64"),
    "packed: not ASCII": (search(vectors={"data": ONE[:-1] + "é", "shape": [1, 3]}), "vectors.data", ""),
    "packed: URL alphabet": (search(vectors={"data": "__9_" + ONE[4:], "shape": [1, 3]}), "vectors.data", "base64"),
    "packed: NaN": (search(vectors={"data": NOT_FINITE, "shape": [1, 3]}), "vectors[0]", "nan"),
}
EXCEEDED = {
    "body": (b" " * 4096 + b"{}", "body", "4098 bytes, allowed are at most 4096"),
    "depth": (search(vectors=[[[[[1]]]]]), "body", "6 levels deep, allowed are 4"),
    "depth, cut off": (b"[" * 40, "body", "40 levels"),
    "lists": (search(vectors=[[]] * 40), "body", "42 lists and objects, allowed are at most 40"),
    "strings": (search(ids=[""] * 40), "body", "45 strings, allowed are at most 40"),
    "queries": (search(vectors=[[1]] * 4), "vectors", "4 queries, allowed are at most 3"),
    "packed queries": (search(vectors={"data": "", "shape": [2**40, 3]}), "vectors.shape", "allowed are at most 3"),
    "dimensions": (search(vectors=[[1] * 5]), "vectors", "5 dimensions, allowed are at most 4"),
    "packed dimensions": (search(vectors={"data": "", "shape": [1, 5]}), "vectors.shape", "5 dimensions"),
    "limit": (search(limit=101), "limit", "101, allowed are at most 100"),
    "offset + limit": (search(limit=1, offset=100), "offset", "101, allowed are at most 100"),
    "hits": (search(limit=51, vectors=[[1]] * 3), "limit", "153 hits, allowed are at most 150"),
    "ids": (search(vectors=..., ids=[1] * 4), "ids", "4 ids, allowed are at most 3"),
    "a string id": (search(vectors=..., ids=["a", "ééé"]), "ids[1]", "6 bytes, allowed are at most 4"),
    "expr": (search(expr="x" * 9), "expr", "9 bytes, allowed are at most 8"),
    "partition names": (search(partition_names=["a"] * 3), "partition_names", "3 names, allowed are at most 2"),
    "output fields": (search(output_fields=["a"] * 3), "output_fields", "3 names"),
    "expr_params": (search(expr_params={"a": 1, "b": 2, "c": 3}), "expr_params", "3 values, allowed are at most 2"),
    "params": (search(params={"a": 1, "b": 2, "c": 3}), "params", "3 parameters, allowed are at most 2"),
}


@pytest.mark.parametrize("case", INVALID)
def test_a_wrong_search_is_an_invalid_argument_that_names_field_and_value(case: str):
    body, field, named = INVALID[case]
    assert_refused(InvalidArgument, field, named, body)


@pytest.mark.parametrize("case", EXCEEDED)
def test_too_much_exceeds_a_limit_that_is_named(case: str):
    body, field, named = EXCEEDED[case]
    assert_refused(LimitExceeded, field, named, body, bounds=SMALL)


FIELD = {"name": "title", "dim": 8}
SCALAR = {"name": "year", "type": "int64"}
OTHERS = {
    "type unknown": ("serch", "serch.books", search(), "type", "did you mean 'search'"),
    "type empty": ("", "search.books", search(), "type", "known are build, cancel, compact"),
    "create: neither": ("create", "create.books", {"collection": "books"}, "vector_fields", "none given"),
    "create: both": (
        "create",
        "create.books",
        {"collection": "books", "vector_fields": [FIELD], "partition_name": "p"},
        "vector_fields",
        "both",
    ),
    "create: dim 0": (
        "create",
        "create.books",
        {"vector_fields": [FIELD | {"dim": 0}]},
        "vector_fields[0].dim",
        "1 to 32768",
    ),
    "create: dim text": (
        "create",
        "create.books",
        {"vector_fields": [FIELD | {"dim": "8"}]},
        "vector_fields[0].dim",
        "'8'",
    ),
    "create: no dim": ("create", "create.books", {"vector_fields": [{"name": "a"}]}, "vector_fields[0].dim", "missing"),
    "create: name": (
        "create",
        "create.books",
        {"vector_fields": [FIELD | {"name": "a.b"}]},
        "vector_fields[0].name",
        "'a.b'",
    ),
    "create: name twice": (
        "create",
        "create.books",
        {"vector_fields": [FIELD, FIELD]},
        "vector_fields",
        "'title' is there 2 times",
    ),
    "create: metric": (
        "create",
        "create.books",
        {"vector_fields": [FIELD, FIELD | {"metric_type": "l2"}]},
        "vector_fields[1].metric_type",
        "'l2', expected one of 'L2'",
    ),
    "create: unknown key": (
        "create",
        "create.books",
        {"vector_fields": [FIELD | {"metric": "L2"}]},
        "vector_fields[0].metric",
        "did you mean 'metric_type'",
    ),
    "create: index param": (
        "create",
        "create.books",
        {"vector_fields": [FIELD | {"index_params": {"M": 1.5}}]},
        "vector_fields[0].index_params.M",
        "1.5, expected an integer",
    ),
    "create: primary key": (
        "create",
        "create.books",
        {"vector_fields": [FIELD], "primary_key": "uuid"},
        "primary_key",
        "'uuid', expected one of 'int64', 'string'",
    ),
    "create: scalars of a partition": (
        "create",
        "create.books",
        {"scalar_fields": [SCALAR], "partition_name": "p"},
        "scalar_fields",
        "not of a partition",
    ),
    "create: scalar's type": (
        "create",
        "create.books",
        {"vector_fields": [FIELD], "scalar_fields": [SCALAR | {"type": "int32"}]},
        "scalar_fields[0].type",
        "'int32', expected one of 'bool', 'int64'",
    ),
    "create: no type": (
        "create",
        "create.books",
        {"vector_fields": [FIELD], "scalar_fields": [{"name": "year"}]},
        "scalar_fields[0].type",
        "missing",
    ),
    "create: nullable": (
        "create",
        "create.books",
        {"vector_fields": [FIELD], "scalar_fields": [SCALAR, SCALAR | {"nullable": 1}]},
        "scalar_fields[1].nullable",
        "1, expected true or false",
    ),
    "create: scalar's name": (
        "create",
        "create.books",
        {"vector_fields": [FIELD], "scalar_fields": [SCALAR | {"name": "*"}]},
        "scalar_fields[0].name",
        "'*'",
    ),
    "create: scalar named as a vector": (
        "create",
        "create.books",
        {"vector_fields": [FIELD], "scalar_fields": [SCALAR | {"name": "title"}]},
        "vector_fields",
        "'title' is there 2 times",
    ),
    "create: scalar twice": (
        "create",
        "create.books",
        {"vector_fields": [FIELD], "scalar_fields": [SCALAR, SCALAR]},
        "scalar_fields",
        "'year' is there 2 times",
    ),
    "create: unknown key of a scalar": (
        "create",
        "create.books",
        {"vector_fields": [FIELD], "scalar_fields": [SCALAR | {"null": True}]},
        "scalar_fields[0].null",
        "did you mean 'nullable'",
    ),
    "create: scalar fields an object": (
        "create",
        "create.books",
        {"vector_fields": [FIELD], "scalar_fields": {"year": "int64"}},
        "scalar_fields",
        "expected a list",
    ),
    "drop: partition's name": ("drop", "drop.books", {"partition_name": ""}, "partition_name", "''"),
    "rename: no new name": ("rename", "rename.books", {}, "new_name", "missing"),
    "rename: new name": ("rename", "rename.books", {"new_name": "a/b"}, "new_name", "'a/b'"),
    "load: field's name": ("load", "load.books", {"field": "*"}, "field", "'*'"),
    "release: unknown key": ("release", "release.books", {"field": "a"}, "field", "known are collection"),
    "routing key of another type": ("search", "create.books", search(), "routing_key", "'search.books'"),
    "routing key of another collection": ("search", "search.films", search(), "routing_key", "'search.films'"),
    "routing key without a collection": ("search", "search", search(), "routing_key", "'search.books'"),
    "routing key with four words": ("search", "search.books.s1.s2", search(), "routing_key", "'search.books'"),
    "routing key with an empty slot": ("search", "search.books.", search(), "routing_key", "'search.books'"),
    "list of a collection": ("list", "list.books", None, "routing_key", "'list'"),
    "ping with a key": ("ping", "ping", {}, "collection", "known are format"),
}


def rows(**changes: Any) -> dict[str, Any]:
    body = {
        "collection": "books",
        "ids": [7, 9],
        "vectors": [[1, 2], [3, 4]],
        "fields": {"year": [1999, 2024]},
    } | changes
    return {key: value for key, value in body.items() if value is not ...}


TWO = pybase64.b64encode_as_string(np.ones(4, "<f4").tobytes())
#: job type, body, field at fault, what the message has to name
ROW_JOBS = {
    "no ids": ("upsert", rows(ids=...), "ids", "missing"),
    "no vectors": ("upsert", rows(vectors=...), "vectors", "missing"),
    "vectors null": ("upsert", rows(vectors=None), "vectors", "NoneType, expected lists of numbers"),
    "ids an object": ("insert", rows(ids={"data": TWO, "shape": [2]}), "ids", "expected a list"),
    "ids of two types": ("upsert", rows(ids=[7, "7"]), "ids", "integers and strings"),
    "id beyond int64": ("upsert", rows(ids=[7, 2**63]), "ids[1]", "9223372036854775808, allowed are -2^63"),
    "id below int64": ("insert", rows(ids=[-(2**63) - 1, 7]), "ids[0]", "expected an integer"),
    "id with a point": ("upsert", rows(ids=[7, 9.0]), "ids[1]", "9.0, expected an integer or a string"),
    "id true": ("upsert", rows(ids=[True, 7]), "ids[0]", "True"),
    "id null": ("upsert", rows(ids=[None, 7]), "ids[0]", "None"),
    "id twice": ("upsert", rows(ids=[7, 7]), "ids[1]", "ids[0] and ids[1] are both 7"),
    "string id twice": ("insert", rows(ids=["a", "a"]), "ids[1]", "ids[0] and ids[1] are both 'a'"),
    "too few vectors": ("upsert", rows(vectors=[[1, 2]]), "vectors", "vectors has 1 rows, ids has 2"),
    "too many vectors": ("upsert", rows(ids=[7]), "vectors", "vectors has 2 rows, ids has 1"),
    "too few values": ("upsert", rows(fields={"year": [1999]}), "fields.year", "fields.year has 1 rows, ids has 2"),
    "fields a list": ("upsert", rows(fields=[{"year": 1999}]), "fields", "expected an object"),
    "a column that is one value": ("upsert", rows(fields={"a": [1, 2], "year": 1999}), "fields.year", "1999"),
    "a column's name": ("upsert", rows(fields={"a b": [1, 2]}), "fields", "'a b'"),
    "vectors of no field": ("upsert", rows(vectors={}), "vectors", "names no field"),
    "a vector field's name": ("upsert", rows(vectors={"a.b": [[1], [2]]}), "vectors", "'a.b'"),
    "a field's vectors too few": ("upsert", rows(vectors={"v": [[1]]}), "vectors.v", "vectors.v has 1 rows, ids has 2"),
    "a field's vectors ragged": ("upsert", rows(vectors={"v": [[1, 2], [3]]}), "vectors.v[1]", "vectors.v[0] has 2"),
    "a field's vectors null": ("upsert", rows(vectors={"v": None}), "vectors.v", "NoneType"),
    "a field's vector infinite": ("upsert", rows(vectors={"v": [[1], [1e300]]}), "vectors.v[1]", "inf"),
    "packed without shape": ("upsert", rows(vectors={"data": TWO}), "vectors", "expected 'data' and 'shape'"),
    "packed of another shape": ("upsert", rows(vectors={"data": TWO, "shape": [4, 1]}), "vectors", "4 rows, ids has 2"),
    "packed within a field": (
        "upsert",
        rows(vectors={"v": {"data": TWO, "shape": [2]}}),
        "vectors.v.shape",
        "[rows, dim]",
    ),
    "a field that is named data": ("upsert", rows(vectors={"data": [1], "shape": [1]}), "vectors.data[0]", "int"),
    "partition's name": ("upsert", rows(partition_name="a/b"), "partition_name", "'a/b'"),
    "partition names": ("upsert", rows(partition_names=["a"]), "partition_names", "did you mean 'partition_name'"),
    "field instead of fields": ("upsert", rows(field={}), "field", "did you mean 'fields'"),
    "a key of a value twice": (
        "upsert",
        b'{"collection": "books", "ids": [1, 2], "vectors": [[1], [1]], "fields": {"j": [null, {"a": 1, "a": 2}]}}',
        "a",
        "twice",
    ),
    "a value not JSON": (
        "upsert",
        b'{"collection": "books", "ids": [1], "vectors": [[1]], "fields": {"price": [NaN]}}',
        "body",
        "not JSON",
    ),
    "delete of nothing": ("delete", {}, "ids", "either ids or expr, neither given"),
    "delete by both": ("delete", {"ids": [1], "expr": "a > 1"}, "ids", "both given"),
    "delete of a partition list": ("delete", {"ids": [1], "partition_name": ["a"]}, "partition_name", "['a']"),
    "get without ids": ("get", {}, "ids", "missing"),
    "get by expr": ("get", {"ids": [1], "expr": "a > 1"}, "expr", "known are"),
    "get of a bad version": ("get", {"ids": [1], "min_version": -1}, "min_version", "-1"),
    "get of a bad field": ("get", {"ids": [1], "output_fields": ["a b"]}, "output_fields[0]", "'a b'"),
    "get of no field": ("get", {"ids": [1], "output_fields": []}, "output_fields", "empty"),
    "count with a limit": ("count", {"limit": 1}, "limit", "known are"),
    "count of no partition": ("count", {"partition_names": []}, "partition_names", "empty"),
    "query without limit": ("query", {}, "limit", "missing"),
    "query of nothing": ("query", {"limit": 0}, "limit", "0, allowed are 1 to 16384"),
    "query offset": ("query", {"limit": 1, "offset": -1}, "offset", "-1, allowed is 0 or more"),
    "query after": ("query", {"limit": 1, "after": 1.5}, "after", "1.5, expected an integer or a string"),
    "query after an id beyond int64": ("query", {"limit": 1, "after": 2**63}, "after", "allowed are -2^63"),
    "query of a bad version": ("query", {"limit": 1, "version": -1}, "version", "-1"),
    "compact of no partition": ("compact", {"partition_names": []}, "partition_names", "empty"),
    "build of a partition's name": ("build", {"partition_names": ["a b"]}, "partition_names[0]", "'a b'"),
    "group_by_field": ("search", search(group_by_field="*"), "group_by_field", "'*'"),
    "group_size": ("search", search(group_by_field="year", group_size=0), "group_size", "0, allowed are 1 to"),
    "group_size alone": ("search", search(group_size=2), "group_size", "give group_by_field too"),
    "added field not nullable": (
        "create",
        {"scalar_fields": [SCALAR | {"nullable": True}, {"name": "a", "type": "bool"}]},
        "scalar_fields[1].nullable",
        "'a' is added to rows that have no value of it",
    ),
}
SMALL_ROWS = replace(DEFAULT_BOUNDS, rows=2, limit=100, json_depth=2, row_lists=10, row_strings=20, scalar_fields=2)
TOO_MANY_ROWS = {
    "rows": ("upsert", rows(ids=[1, 2, 3]), "ids", "3 ids, allowed are at most 2"),
    "rows, packed": (
        "insert",
        rows(vectors={"data": "", "shape": [3, 2]}),
        "vectors.shape",
        "3 rows, allowed are at most 2",
    ),
    "rows of a field": ("upsert", rows(vectors={"v": [[1]] * 3}), "vectors.v", "3 rows, allowed are at most 2"),
    "dimensions": ("upsert", rows(vectors={"data": "", "shape": [2, 32769]}), "vectors.shape", "32769 dimensions"),
    "fields": ("upsert", rows(fields={name: [1, 2] for name in "abc"}), "fields", "3 fields, allowed are at most 2"),
    "lists in values": ("upsert", rows(fields={"a": [[], [[], [], [], [], []]]}), "body", "14 lists and objects"),
    "strings in values": (
        "upsert",
        rows(fields={"a": ["x", ["x"] * 20]}),
        "body",
        "27 strings, allowed are at most 20",
    ),
    "depth of a value": ("upsert", rows(fields={"a": [1, [[[1]]]]}), "body", "6 levels deep, allowed are 5"),
    "a string id": ("upsert", rows(ids=["a", "é" * 513]), "ids[1]", "1026 bytes, allowed are at most 1024"),
    "ids of a delete": ("delete", {"ids": [1, 2, 3]}, "ids", "3 ids, allowed are at most 2"),
    "expr of a delete": ("delete", {"expr": "x" * 65_537}, "expr", "65537 bytes"),
    "ids of a get": ("get", {"ids": [1, 2, 3]}, "ids", "3 ids, allowed are at most 2"),
    "limit of a query": ("query", {"limit": 3}, "limit", "3, allowed are at most 2"),
    "window of a query": ("query", {"limit": 2, "offset": 99}, "offset", "101, allowed are at most 100: page by after"),
    "id of a query": ("query", {"limit": 2, "after": "a" * 1_025}, "after", "1025 bytes"),
    "groups": ("search", search(group_by_field="a", group_size=11), "group_size", "110, allowed are at most 100"),
}


@pytest.mark.parametrize("case", ROW_JOBS)
def test_a_wrong_job_about_rows_is_an_invalid_argument_that_names_field_and_value(case: str):
    job_type, body, field, named = ROW_JOBS[case]
    assert_refused_rows(InvalidArgument, job_type, body, field, named)


@pytest.mark.parametrize("case", TOO_MANY_ROWS)
def test_too_many_rows_exceed_a_limit_that_is_named(case: str):
    job_type, body, field, named = TOO_MANY_ROWS[case]
    assert_refused_rows(LimitExceeded, job_type, body, field, named, bounds=SMALL_ROWS)


def test_as_many_rows_as_allowed_may_have_many_columns_of_text_and_json():
    count = DEFAULT_BOUNDS.rows
    body = {
        "collection": "books",
        "ids": [f"isbn-{number}" for number in range(count)],
        "vectors": [[1.0]] * count,
        "fields": {f"text{n}": ["word"] * count for n in range(10)}
        | {f"tags{n}": [["a", "b"]] * count for n in range(5)}
        | {"notes": [{"a": {"b": ["c", 1, None]}}] * count},
    }
    assert len(decode_job("upsert", "upsert.books", json.dumps(body).encode()).ids) == count


def test_a_value_of_json_may_be_nested_as_deep_as_the_store_keeps_it():
    deep: Any = 1
    for _ in range(DEFAULT_BOUNDS.json_depth):
        deep = [deep]
    assert decode_rows(fields={"notes": [deep, None]}).fields["notes"] == [deep, None]
    with pytest.raises(LimitExceeded, match="68 levels deep, allowed are 67"):
        decode_rows(fields={"notes": [[deep], None]})


def test_objects_behind_plain_values_are_no_keys_that_stand_twice():
    values = [None, {"a": [1, {"b": {}}], "c": "{:"}]
    assert decode_rows(fields={"notes": values}).fields == {"notes": values}


@pytest.mark.parametrize("case", OTHERS)
def test_any_other_wrong_job_is_an_invalid_argument_too(case: str):
    job_type, key, body, field, named = OTHERS[case]
    body = {} if body is None else {"collection": "books"} | body
    assert_refused(InvalidArgument, field, named, body, job_type=job_type, key=key)


def test_a_cancel_names_one_or_more_ids_and_no_collection():
    for job_ids, field, named in (
        ([], "job_ids", "at least one"),
        (["a", ""], "job_ids[1]", "1 to 128"),
        ([7], "job_ids[0]", "expected"),
    ):
        assert_refused(InvalidArgument, field, named, {"job_ids": job_ids}, job_type="cancel", key="cancel")
    assert_refused(LimitExceeded, "job_ids", "1024", {"job_ids": ["a"] * 1_025}, job_type="cancel", key="cancel")
    one = {"job_ids": ["a"]}
    assert_refused(InvalidArgument, "routing_key", "'cancel'", one, job_type="cancel", key="cancel.books")


def test_too_many_scalar_fields_exceed_a_limit():
    body = {"collection": "books", "vector_fields": [FIELD]}
    body["scalar_fields"] = [{"name": f"f{number}", "type": "bool"} for number in range(65)]
    named = "scalar_fields has 65 fields, allowed are at most 64"
    assert_refused(LimitExceeded, "scalar_fields", named, body, job_type="create", key="create.books")


@pytest.mark.parametrize(
    ("properties", "field"),
    [
        ({"content_encoding": "gzip"}, "content_encoding"),
        ({"content_type": "application/octet-stream"}, "content_type"),
        ({"content_type": "application/json; charset=latin-1"}, "content_type"),
    ],
)
def test_a_body_that_is_declared_to_be_no_plain_json_is_refused(properties: Any, field: str):
    assert_refused(InvalidArgument, field, repr(properties[field]), search(), **properties)


@pytest.mark.parametrize(
    "properties",
    [{"content_type": "application/json; charset=UTF-8", "content_encoding": "utf-8"}, {"content_encoding": ""}],
)
def test_a_body_that_is_declared_to_be_utf_8_json_is_read(properties: Any):
    assert decode_job("search", "search.books", json.dumps(search()).encode(), **properties).limit == 10


def test_a_slot_in_the_routing_key_is_let_pass():
    assert decode_job("search", "search.books.s017", json.dumps(search()).encode()).limit == 10


def test_colons_quotes_and_brackets_inside_of_strings_confuse_no_check():
    expr = 'a["{[:\\"] == "\\\\" and {x: "y"} in [[[[[[[[[1]]]]]]]]]'
    assert decode_search(expr=expr).expr == expr


def test_huge_integers_are_refused_and_not_computed_with():
    assert_refused(InvalidArgument, "limit", "expected an integer", literal("limit", "9" * 300))
    assert_refused(InvalidArgument, "body", "infinity", literal("limit", "9" * 5_000))
    twice = literal("limit", "9" * 300 + ', "limit": 1')
    assert_refused(InvalidArgument, "limit", "twice", twice)


def test_the_client_refuses_what_the_worker_would():
    wrong = SearchJob(collection="books", vectors=np.full((2, 3), np.inf, np.float32), limit=10)
    with pytest.raises(InvalidArgument, match="inf") as caught:
        encode_job(wrong)
    assert caught.value.field == "vectors[0]"

    with pytest.raises(InvalidArgument, match="limit is '10', expected an integer"):
        encode_job(SearchJob(collection="books", ids=[1], limit="10"))


@pytest.mark.parametrize(
    ("column", "field", "value"),
    [
        ([0.5, np.nan], "fields.price[1]", "nan"),
        (np.array([np.inf, 1], np.float32), "fields.price[0]", "inf"),
        ([None, {"a": [1, {"b": -np.inf}]}], "fields.price[1]", "-inf"),
        ([[0.5], [1, np.nan]], "fields.price[1]", "nan"),
    ],
)
def test_the_client_refuses_numbers_that_json_would_turn_into_null(column: Any, field: str, value: str):
    job = UpsertJob(collection="books", ids=[1, 2], vectors=np.ones((2, 1)), fields={"price": column})
    with pytest.raises(InvalidArgument, match=f"{value}.*, allowed are finite numbers") as caught:
        encode_job(job)
    assert caught.value.field == field


def test_a_job_too_long_to_send_says_what_to_do():
    job = SearchJob(collection="books", vectors=np.zeros((3, 4), np.float32), limit=1)
    with pytest.raises(LimitExceeded, match="at most 60: split the queries or rows"):
        encode_job(job, bounds=replace(DEFAULT_BOUNDS, body_bytes=60))


def decode_search(**changes: Any) -> Any:
    return decode_job("search", "search.books", json.dumps(search(**changes)).encode())


def decode_rows(**changes: Any) -> Any:
    return decode_job("upsert", "upsert.books", json.dumps(rows(**changes)).encode())


def assert_refused_rows(
    kind: type[NearmqError], job_type: str, body: Any, field: str, named: str, **options: Any
) -> None:
    body = body if isinstance(body, bytes) else {"collection": "books"} | body
    assert_refused(kind, field, named, body, job_type=job_type, key=f"{job_type}.books", **options)


def assert_refused(
    kind: type[NearmqError],
    field: str,
    named: str,
    body: Any,
    *,
    job_type: str = "search",
    key: str | None = None,
    **options: Any,
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(kind) as caught:
        decode_job(job_type, key or "search.books", data, **options)
    assert caught.value.field == field
    assert named in caught.value.message
