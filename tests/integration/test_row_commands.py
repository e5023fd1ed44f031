"""`nearmq query | get | count | delete | compact`: stored rows from the command line."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nearmq
from nearmq.cli import run

VECTORS = np.random.default_rng(1).standard_normal((60, 4), dtype=np.float32)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a store that has collections `books`, with integer ids, and `films`, with strings."""
    monkeypatch.chdir(tmp_path)
    with nearmq.connect("local:nearmq-data") as client:
        for name, primary_key in (("books", "int64"), ("films", "string")):
            vector = nearmq.VectorFieldSpec(name="vector", dim=4, index="FLAT")
            year = nearmq.ScalarFieldSpec(name="year", type="int64")
            schema = nearmq.Schema(vector_fields=[vector], scalar_fields=[year], primary_key=primary_key)
            collection = client.create_collection(name, schema=schema)
            ids: Any = range(60) if name == "books" else [f"f{number:02}" for number in range(60)]
            collection.upsert(ids, VECTORS, {"year": range(1960, 2020)})
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> list[Any]:
    """Run a command with --json and return the lines that it printed."""
    assert run([*arguments, "--json"]) == code
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_query_prints_rows_as_json_lines(capsys: pytest.CaptureFixture[str]):
    lines = printed(capsys, "query", "books", "--expr", "year >= 2000", "--limit", "3", "--output-field", "year")
    assert lines == [{"id": 40, "year": 2000}, {"id": 41, "year": 2001}, {"id": 42, "year": 2002}]
    assert len(printed(capsys, "query", "books")) == 10
    assert len(printed(capsys, "query", "books", "--limit", "0")) == 60


def test_a_query_prints_a_table_for_people(capsys: pytest.CaptureFixture[str]):
    assert run(["query", "films", "-k", "2", "--output-field", "*"]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert table[1] == ["┃", "id", "┃", "year", "┃"]
    assert table[3:5] == [["│", "f00", "│", "1960", "│"], ["│", "f01", "│", "1961", "│"]]


def test_a_query_writes_a_file(store: Path):
    assert run(["query", "books", "--limit", "0", "--output-field", "vector", "--output", "rows.jsonl"]) == 0
    rows = [json.loads(line) for line in (store / "rows.jsonl").read_text().splitlines()]
    np.testing.assert_array_equal(np.array([row["vector"] for row in rows], np.float32), VECTORS)


def test_rows_are_got_by_id_from_arguments_and_stdin(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert printed(capsys, "get", "books", "7", "5") == [{"id": 7}, {"id": 5}]
    monkeypatch.setattr("sys.stdin", StringIO("f07\n\nf05\n"))
    lines = printed(capsys, "get", "films", "-", "f01", "--output-field", "year")
    assert lines == [{"id": "f07", "year": 1967}, {"id": "f05", "year": 1965}, {"id": "f01", "year": 1961}]


def test_ids_that_are_not_there_are_named_and_make_the_exit_code(capsys: pytest.CaptureFixture[str]):
    assert run(["get", "books", "7", "70", "71", "--json"]) == 4
    both = capsys.readouterr()
    assert (json.loads(both.out), both.err) == ({"id": 7}, "not found: 70, 71\n")
    assert run(["get", "books", "70"]) == 1


def test_rows_are_counted(capsys: pytest.CaptureFixture[str]):
    assert printed(capsys, "count", "books", "--expr", "year < 1970") == [{"collection": "books", "count": 10}]
    assert run(["count", "films"]) == 0
    assert capsys.readouterr().out == "60\n"


def test_a_dry_run_counts_what_would_be_deleted_and_deletes_nothing(capsys: pytest.CaptureFixture[str]):
    by_expr = printed(capsys, "delete", "books", "--expr", "year < 1970", "--dry-run")
    by_id = printed(capsys, "delete", "books", "1", "2", "70", "-n")
    assert [line["deleted"] for line in by_expr + by_id] == [10, 2]
    assert all(line["dry_run"] and line["version"] is None for line in by_expr + by_id)
    assert printed(capsys, "count", "books")[0]["count"] == 60


def test_deleting_asks_first_and_with_force_does_not(capsys: pytest.CaptureFixture[str]):
    assert run(["delete", "books", "1", "--no-input"]) == 2
    assert "to delete 1 rows of books needs --force" in capsys.readouterr().err
    (by_expr,) = printed(capsys, "delete", "books", "--expr", "year < 1970", "--force")
    assert (by_expr["deleted"], by_expr["dry_run"]) == (10, False)
    assert run(["delete", "films", "f01", "nobody", "--force"]) == 0
    assert capsys.readouterr().out == "deleted 1 rows of films\n"
    assert printed(capsys, "count", "books")[0]["count"] == 50


def test_a_collection_is_compacted_and_says_what_became_of_it(capsys: pytest.CaptureFixture[str]):
    with nearmq.connect("local:nearmq-data") as client:
        books = client.collection("books")
        for number in range(60, 63):
            books.upsert([number], VECTORS[:1], {"year": [2020]})
        books.delete([1])

    (done,) = printed(capsys, "compact", "books", "--build")

    assert (done["segments_before"], done["segments_after"], done["rows"], done["dropped"]) == (4, 1, 62, 1)
    assert run(["compact", "books"]) == 0
    assert capsys.readouterr().out == "books: 1 segments became 1, 0 rows written, 0 deleted ones dropped\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["query", "boks"], 1, "did you mean 'books'"),
        (["query", "books", "--expr", "yeer > 1"], 1, "did you mean 'year'"),
        (["query", "books", "--limit", "-1"], 2, "'--limit'"),
        (["count", "boks"], 1, "did you mean 'books'"),
        (["get", "books"], 2, "one or more ids"),
        (["get", "books", "f01"], 2, "'f01' is no integer"),
        (["delete", "books"], 2, "either ids or --expr"),
        (["delete", "books", "1", "--expr", "id == 1"], 2, "either ids or --expr"),
        (["delete", "boks", "1", "--force"], 1, "did you mean 'books'"),
        (["compact", "boks"], 1, "did you mean 'books'"),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
):
    assert run(arguments) == code
    both = capsys.readouterr()
    assert both.out == ""
    assert message in both.err
