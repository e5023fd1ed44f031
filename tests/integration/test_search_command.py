"""`nearmq search`: a file of queries in, a table or JSON Lines out."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import nearmq
from nearmq.cli import run
from tests.world import embedded_world

VECTORS = np.random.default_rng(1).normal(size=(600, 4)).astype(np.float32)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a store that has collection `books`, and 500 of its rows as queries."""
    monkeypatch.chdir(tmp_path)
    with embedded_world("file:nearmq-data") as world:
        vector = nearmq.VectorFieldSpec(name="vector", dim=4, index="FLAT")
        year = nearmq.ScalarFieldSpec(name="year", type="int64")
        world.client.create_collection("books", schema=nearmq.Schema(vector_fields=[vector], scalar_fields=[year]))
        world.add("books", range(600), VECTORS, scalars={"year": list(range(600))})
    np.save("queries.npy", VECTORS[:500])
    return tmp_path


@pytest.mark.usefixtures("files")
def test_json_lines_hold_one_query_each_in_order(capsys: pytest.CaptureFixture[str]):
    assert run(["search", "books", "queries.npy", "-k", "2", "--job-queries", "7", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["query"] for line in lines] == list(range(500))
    assert [line["ids"][0] for line in lines] == list(range(500))
    assert {len(line["distances"]) for line in lines} == {2}


def test_a_file_takes_the_lines_and_a_filter_and_fields_go_along(files: Path):
    arguments = ["--expr", "year >= 300", "--output-field", "year", "--output", "hits.jsonl"]
    assert run(["search", "books", "queries.npy", "-k", "3", *arguments]) == 0
    lines = [json.loads(line) for line in (files / "hits.jsonl").read_text().splitlines()]
    assert len(lines) == 500
    assert all(line["fields"]["year"] == line["ids"] and min(line["ids"]) >= 300 for line in lines)


def test_a_parquet_file_takes_a_row_a_hit_with_the_metric_and_the_version(files: Path):
    arguments = ["--output-field", "*", "--expr", "year >= 1", "-o", "hits.parquet", "--job-queries", "99"]
    assert run(["search", "books", "queries.npy", "-k", "3", *arguments]) == 0
    table = pq.read_table(files / "hits.parquet")
    assert table.column_names == ["query_id", "rank", "id", "distance", "year"]
    assert table["query_id"].to_pylist() == [query for query in range(500) for _ in range(3)]
    assert table["rank"].to_pylist() == [1, 2, 3] * 500
    assert table["year"].equals(table["id"])
    assert table["id"].to_pylist()[3::3] == list(range(1, 500))
    assert json.loads(table.schema.metadata[b"nearmq"]) == {
        "collection": "books",
        "field": "vector",
        "metric_type": "L2",
        "version": 2,
        "queries": 500,
    }


def test_a_parquet_file_of_a_search_that_failed_is_not_there(files: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["search", "books", "queries.npy", "--expr", "yeer > 1", "-o", "hits.parquet"]) == 1
    assert run(["search", "boks", "queries.npy", "-o", "hits.parquet"]) == 1
    assert "did you mean 'books'" in capsys.readouterr().err
    assert not [path for path in files.iterdir() if "hits" in path.name]


@pytest.mark.usefixtures("files")
def test_a_table_is_for_people_and_queries_may_come_through_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    matrix = BytesIO()
    np.save(matrix, VECTORS[:1])
    matrix.seek(0)
    monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": matrix}))
    assert run(["search", "books", "-", "-k", "1", "--output-field", "*"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()[3:-1]] == [
        ["│", "0", "│", "1", "│", "0", "│", "0", "│", "0", "│"]
    ]


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["boks", "queries.npy"], 1, "did you mean 'books'"),
        (["books", "nothing.npy"], 2, "nothing.npy"),
        (["books", "queries.npy", "--param", "ef"], 2, "name=number"),
        (["books", "queries.npy", "--param", "ef=10"], 2, "FLAT"),
        (["books", "queries.npy", "--expr", "yeer > 1"], 1, "did you mean 'year'"),
        (["books", "queries.npy", "--url", "amqp://guest:guest@127.0.0.1:1/"], 3, "127.0.0.1:1"),
    ],
    ids=["collection", "file", "param", "index", "expr", "broker"],
)
def test_an_error_is_one_line_and_its_exit_code(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
):
    assert run(["search", *arguments]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
