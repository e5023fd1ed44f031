"""The answers about rows, as a caller sees them."""

import numpy as np
import pytest

from nearmq.errors import Internal
from nearmq.jobs import ErrorReply, Reply
from nearmq.requests import final
from nearmq.row_results import Rows, WriteResult
from nearmq.stored_rows import write_rows


def rows() -> Rows:
    vectors = {"title": np.array([[0.5, 1], [2, 3], [4, 5]], np.float32)}
    result = write_rows([7, 9, 11], {"year": [1999, None, 2024]}, vectors, encoding="base64")
    return Rows.of(Reply(job_id="j", status="ok", version=17, result=result))


def test_rows_are_columns_and_dicts():
    assert (len(rows()), rows().version) == (3, 17)
    assert rows().ids.dtype == np.int64
    assert rows().fields == {"year": [1999, None, 2024]}
    assert {key: rows()[1][key] for key in ("id", "year")} == {"id": 9, "year": None}
    assert rows()[-1]["title"].tolist() == [4, 5]
    assert [row["id"] for row in rows()] == [row["id"] for row in rows()[:]] == [7, 9, 11]
    assert [row["id"] for row in rows()[::-2]] == [11, 7]
    with pytest.raises(IndexError):
        rows()[3]


def test_rows_show_what_they_have():
    assert repr(rows()) == "Rows(3 rows, fields=['year', 'title'], version=17)"


def test_no_rows_at_all_are_rows():
    none = Rows.of(Reply(job_id="j", status="ok", version=3, result={"ids": [], "fields": {"year": []}}))
    assert (len(none), list(none), none.ids.dtype) == (0, [], np.int64)


@pytest.mark.parametrize("result", [None, {}, {"ids": [1], "fields": {"year": []}}, {"ids": 7}])
def test_rows_that_cannot_be_read_are_an_internal_error(result: dict[str, object] | None):
    with pytest.raises(Internal, match="cannot be read"):
        Rows.of(Reply(job_id="j", status="ok", result=result))


def test_a_write_result_has_the_counts_of_its_job_and_none_else():
    reply = Reply(
        job_id="j", status="ok", version=17, result={"inserted": 3, "replaced": 2, "version": 17, "collection": "books"}
    )
    assert WriteResult.of(reply) == WriteResult(version=17, job_id="j", inserted=3, replaced=2)
    slow = Reply(job_id="j", status="ok", version=17, result={"deleted": 5, "slowdown_ms": 12.5})
    assert WriteResult.of(slow) == WriteResult(version=17, job_id="j", deleted=5, slowdown_ms=12.5)


def test_progress_is_told_and_awaits_the_final_reply():
    seen: list[float] = []
    assert final(Reply(job_id="j", status="partial", result={"progress": 0.5}), on_progress=seen.append) is None
    assert seen == [0.5]
    done = Reply(job_id="j", status="ok", result={"rows": 7})
    assert final(done, on_progress=seen.append) is done
    cut_short = Reply(job_id="j", status="partial", hits=[])
    assert final(cut_short) is cut_short
    with pytest.raises(Internal):
        final(Reply(job_id="j", status="error", error=ErrorReply(code="INTERNAL", message="no")))
