"""The rows that get and query are answered with, written and read again."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nearmq.codec import decode_reply, encode_reply
from nearmq.jobs import Reply
from nearmq.stored_rows import read_rows, write_rows

ENCODINGS = st.sampled_from(["json", "base64"])
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
JSON = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5) | st.lists(st.text(max_size=3))
)


def sent(result: dict[str, Any]) -> dict[str, Any]:
    return decode_reply(encode_reply(Reply(job_id="j", status="ok", result=result))).result or {}


@settings(deadline=None)
@given(st.data(), st.integers(0, 5), ENCODINGS, st.booleans())
def test_rows_are_read_as_they_were_written(data: st.DataObject, rows: int, encoding: Any, has_strings: bool):
    keys = st.text(max_size=5) if has_strings else st.integers(-(2**63), 2**63 - 1)
    ids = data.draw(st.lists(keys, min_size=rows, max_size=rows))
    fields = data.draw(st.dictionaries(st.text(max_size=3), st.lists(JSON, min_size=rows, max_size=rows), max_size=2))
    matrix = data.draw(hnp.arrays(np.float32, (rows, 3), elements=FLOATS))

    read_ids, read_fields, read_vectors = read_rows(sent(write_rows(ids, fields, {"v": matrix}, encoding=encoding)))

    assert read_ids.tolist() == ids
    assert read_fields == fields
    np.testing.assert_array_equal(read_vectors["v"].reshape(-1), matrix.reshape(-1))


def test_integer_ids_are_written_as_strings_where_that_is_asked_for():
    for encoding in ("json", "base64"):
        tree = write_rows(np.array([2**63 - 1, -7]), {}, {}, encoding=encoding, id_format="string")
        assert tree == {"ids": ["9223372036854775807", "-7"], "fields": {}}


def test_vectors_that_were_not_asked_for_are_not_there():
    assert "vectors" not in write_rows([1], {"year": [1999]}, {})


@pytest.mark.parametrize(
    "tree", [{}, {"ids": [1], "fields": {"a": []}}, {"ids": [1], "vectors": {"v": {"data": "", "shape": [0, 3]}}}]
)
def test_rows_that_do_not_fit_together_are_refused(tree: dict[str, Any]):
    with pytest.raises((KeyError, ValueError)):
        read_rows(tree)
