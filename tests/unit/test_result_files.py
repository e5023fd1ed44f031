"""The hits of a search as an Arrow table and a Parquet file."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nearmq.jobs import Reply
from nearmq.query_hits import Hits
from nearmq.result_files import ResultsFile
from nearmq.results import SearchResults


def results(*queries: tuple[list[Any], list[float], dict[str, list[Any]]], version: int = 7) -> SearchResults:
    text = any(isinstance(id_, str) for ids, _, _ in queries for id_ in ids)
    hits = Hits(
        [len(ids) for ids, _, _ in queries],
        np.array([id_ for ids, _, _ in queries for id_ in ids], object if text else np.int64),
        np.array([distance for _, found, _ in queries for distance in found], np.float32),
        [fields for _, _, fields in queries],
    )
    return SearchResults(Reply(job_id="job", status="ok", version=version, hits=hits))


FIELDS = [
    {"year": [1, None], "tags": [["a"], []], "facts": [{"n": 1}, "text"], "none": [None, None]},
    {"year": [3], "tags": [None], "facts": [None], "none": [None]},
]
FOUND = results(([5, 9], [0.5, 2.0], FIELDS[0]), ([], [], {}), ([7], [1.0], FIELDS[1]))


def test_each_hit_is_a_row_with_its_query_and_rank():
    table = FOUND.to_arrow(metric_type="L2")

    assert table.drop_columns(["year", "tags", "facts", "none"]).to_pydict() == {
        "query_id": [0, 0, 2],
        "rank": [1, 2, 1],
        "id": [5, 9, 7],
        "distance": [0.5, 2.0, 1.0],
    }
    assert table.schema.field("distance").type == pa.float32()
    assert table["year"].to_pylist() == [1, None, 3]
    assert table["tags"].to_pylist() == [["a"], [], None]
    assert table["facts"].to_pylist() == ['{"n":1}', '"text"', None]
    assert table["none"].to_pylist() == [None] * 3
    assert json.loads(table.schema.metadata[b"nearmq"]) == {"metric_type": "L2", "version": 7, "queries": 3}


def test_a_file_holds_what_the_table_holds(tmp_path: Path):
    FOUND.to_parquet(tmp_path / "hits.parquet")

    table = pq.read_table(tmp_path / "hits.parquet")

    assert table.equals(FOUND.to_arrow())
    assert json.loads(table.schema.metadata[b"nearmq"]) == {"version": 7, "queries": 3}
    assert pq.ParquetFile(tmp_path / "hits.parquet").metadata.row_group(0).column(0).compression == "ZSTD"
    assert [path.name for path in tmp_path.iterdir()] == ["hits.parquet"]


@pytest.mark.parametrize("found", [results(), results(([], [], {}))], ids=["no queries", "no hits"])
def test_nothing_found_is_an_empty_table(found: SearchResults):
    table = found.to_arrow()

    assert len(table) == 0
    assert table.column_names == ["query_id", "rank", "id", "distance"]


def test_string_ids_are_strings():
    assert results((["a", "b"], [0.0, 1.0], {})).to_arrow()["id"].to_pylist() == ["a", "b"]


def test_a_file_of_many_searches_is_written_in_groups_of_the_declared_types(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("nearmq.result_files._GROUP_ROWS", 3)
    path = tmp_path / "hits.parquet"
    types = {"price": "float64", "facts": "json", "tags": "array<string>"}

    with ResultsFile(path, {"collection": "books"}, types) as file:
        for query in range(5):
            fields = {"price": [None, query], "facts": [query, None], "tags": [[], None]}
            [hits] = results(([query, query + 1], [0.0, 1.0], fields))
            file.add(query, hits, version=query // 2 + 1)
        assert not path.exists()

    opened = pq.ParquetFile(path)
    table = opened.read()
    assert opened.num_row_groups == 3
    assert table["query_id"].to_pylist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert table["price"].to_pylist() == [None, 0.0, None, 1.0, None, 2.0, None, 3.0, None, 4.0]
    assert table["facts"].to_pylist()[:4] == ["0", None, "1", None]
    assert json.loads(table.schema.metadata[b"nearmq"]) == {
        "collection": "books",
        "version": 3,
        "versions": [1, 2, 3],
        "queries": 5,
    }


def test_a_file_that_is_not_finished_is_not_there(tmp_path: Path):
    def write() -> None:
        with ResultsFile(tmp_path / "hits.parquet", {}, {}) as file:
            file.add(0, FOUND[0], 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()

    assert list(tmp_path.iterdir()) == []


def test_without_pyarrow_the_error_says_what_to_install():
    program = """
import sys
sys.modules["pyarrow"] = None
from nearmq.jobs import Reply
from nearmq.results import SearchResults
SearchResults(Reply(job_id="job", status="ok", version=1, hits=None)).to_arrow()
"""
    failed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert "InvalidArgument: tables and Parquet need pyarrow: pip install 'nearmq[parquet]'" in failed.stderr
