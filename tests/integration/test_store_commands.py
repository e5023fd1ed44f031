"""`nearmq store …`, as a user types it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from nearmq.cli import run
from nearmq_index_store.blobs import open_store
from nearmq_index_store.catalog import Catalog


class Shell:
    """Runs commands in the test's folder, whose default store they share."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run a command that exits with this code, and return what it wrote: stdout, or stderr when it failed."""
        self._capfd.readouterr()
        found = run(["store", *arguments])
        output, errors = self._capfd.readouterr()
        assert found == code, errors
        return errors if code else output

    def json(self, *arguments: str) -> dict[str, Any]:
        return json.loads(self(*arguments, "--json"))


@pytest.fixture
def store(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.random.default_rng(1).standard_normal((500, 16), dtype=np.float32))
    return Shell(capfd)


def test_scalar_fields_are_declared_and_listed(store: Shell):
    scalars = ("--scalar", "year:int64", "--scalar", "tags:array<string>:nullable")
    created = store.json("create", "books", "--dim", "16", *scalars)
    assert created["scalar_fields"] == [
        {"name": "year", "type": "int64", "nullable": False},
        {"name": "tags", "type": "array<string>", "nullable": True},
    ]
    assert store.json("show", "books")["scalar_fields"] == created["scalar_fields"]
    shown = store("show", "books")
    assert "year int64\n" in shown
    assert "tags array<string> nullable\n" in shown
    for bad in ("year", "year:", "year:int64:null", "year:int64:nullable:x", "year:int64:"):
        error = store("create", "films", "--dim", "16", "--scalar", bad, code=2)
        assert f"--scalar {bad!r} is not NAME:TYPE[:nullable]" in error
    assert "must be one of bool, int64" in store("create", "films", "--dim", "16", "--scalar", "a:int32", code=2)


def test_small_segments_are_compacted_when_it_pays_and_all_of_them_with_build(store: Shell):
    store("create", "books", "--dim", "16")
    for number in range(8):
        store("import", "books", "x.npy", "--first-id", str(500 * number))
    planned = store.json("compact", "books", "--dry-run")
    assert planned == {"collection": "books", "dry_run": True, "version": 9, "segments": 8, "rows": 4_000}
    done = store.json("compact", "books")
    assert done.pop("seconds") > 0
    assert done == {
        "collection": "books",
        "dry_run": False,
        "version": 10,
        "segments_before": 8,
        "segments_after": 1,
        "rows": 4_000,
        "dropped": 0,
    }
    store("import", "books", "x.npy", "--first-id", "4000")
    assert "2 segments became 2, 0 rows written" in store("compact", "books")
    assert "2 segments became 1, 4,500 rows written, 0 deleted rows dropped" in store("compact", "books", "--build")
    assert store.json("verify")["problems"] == []
    assert store.json("show", "books")["rows"] == 4_500


def test_compacting_what_is_not_there_is_an_error_with_the_nearest_name(store: Shell):
    store("create", "books", "--dim", "16")
    assert "did you mean 'books'" in store("compact", "bokos", code=1)
    assert "no partition '2024'" in store("compact", "books", "--partition", "2024", code=1)


def test_a_collection_is_made_filled_shown_verified_renamed_and_dropped(store: Shell):
    created = store.json("create", "books", "--dim", "16", "--metric", "COSINE", "--index-param", "M=8")
    assert created["vector_fields"] == [
        {
            "name": "vector",
            "dim": 16,
            "metric_type": "COSINE",
            "index": "HNSW",
            "index_params": {"M": 8, "efConstruction": 200},
        }
    ]
    imported = store.json("import", "books", "x.npy", "--partition", "2024", "--create-partition")
    assert (imported["rows"], imported["segments"], imported["version"]) == (500, 1, 2)
    assert store.json("list") == {"collections": ["books"]}
    shown = store.json("show", "books")
    assert [(part["name"], part["rows"]) for part in shown["partitions"]] == [("2024", 500), ("_default", 0)]
    assert shown["bytes"] == imported["bytes"]
    verified = store.json("verify")
    assert (verified["rows"], verified["bytes"], verified["problems"]) == (500, imported["bytes"], [])
    assert store.json("rename", "books", "tomes") == {"collection": "tomes", "old_name": "books", "version": 3}
    assert store.json("drop", "tomes", "--force")["rows"] == 500
    assert store.json("list") == {"collections": []}


def test_people_get_sentences(store: Shell):
    assert store("list") == "no collections\n"
    assert "created books: vector 16 L2 FLAT" in store("create", "books", "--dim", "16", "--index", "FLAT")
    assert "imported 500 rows into books, partition _default: version 2, 1 segments" in store(
        "import", "books", "x.npy"
    )
    assert "500" in store("show", "books")
    assert "0 problems in 1 collections: 1 segments, 500 rows" in store("verify", "books")
    assert "renamed books to tomes" in store("rename", "books", "tomes")
    assert "dropped tomes: 500 rows in 1 segments" in store("drop", "tomes", "-f")


def test_several_fields_each_have_their_index(store: Shell):
    fields = ("--field", "title:8:COSINE:IVF_FLAT:nlist=16", "--field", "text:16", "--primary-key", "string")

    created = store.json("create", "books", *fields)

    assert created["primary_key"] == "string"
    assert [(field["name"], field["dim"], field["index"]) for field in created["vector_fields"]] == [
        ("title", 8, "IVF_FLAT"),
        ("text", 16, "HNSW"),
    ]
    assert created["vector_fields"][0]["index_params"] == {"nlist": 16}


def test_a_dry_run_checks_everything_and_changes_nothing(store: Shell):
    assert store.json("create", "books", "--dim", "16", "--dry-run")["version"] is None
    assert store.json("list") == {"collections": []}
    store("create", "books", "--dim", "16")

    assert store.json("import", "books", "x.npy", "--dry-run")["rows"] == 500
    assert store.json("show", "books")["version"] == 1
    store("import", "books", "x.npy")
    assert "row 0: field 'id'" in store("import", "books", "x.npy", "-n", code=1)
    assert store.json("drop", "books", "-n") | {"bytes": 0} == {
        "collection": "books",
        "dry_run": True,
        "version": 2,
        "rows": 500,
        "segments": 1,
        "bytes": 0,
    }
    assert store.json("list") == {"collections": ["books"]}


def test_drop_refuses_where_nobody_can_be_asked(store: Shell):
    store("create", "books", "--dim", "16")

    assert "dropping books: 0 rows in 0 segments, 0 bytes needs --force" in store("drop", "books", "--no-input", code=2)
    assert store.json("list") == {"collections": ["books"]}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("show", "boks"), 1, "no collection 'boks', did you mean 'books'"),
        (("verify", "boks"), 1, "no collection 'boks', did you mean 'books'"),
        (("drop", "boks", "-f"), 1, "no collection 'boks', did you mean 'books'"),
        (("import", "boks", "x.npy"), 1, "no collection 'boks', did you mean 'books'"),
        (("import", "books", "y.npy"), 2, "y.npy"),
        (("import", "books", "x.npy", "--partition", "a"), 1, "no partition 'a'"),
        (("import", "books", "x.npy", "--segment-size", "big"), 2, "'big' is no size"),
        (("import", "books", "x.npy", "--ids", "x.npy"), 2, "expected an array of 1 dimensions"),
        (("create", "books", "--dim", "16"), 1, "collection 'books' exists already"),
        (("create", "pens"), 2, "give either --dim or one or more --field"),
        (("create", "../pens", "--dim", "16"), 2, "collection name '../pens' does not match"),
        (("create", "pens", "--dim", "16", "--index", "HSNW"), 2, "no index kind 'HSNW', did you mean 'HNSW'"),
        (("create", "pens", "--dim", "16", "--index-param", "m=16"), 2, "no parameter 'm', did you mean 'M'"),
        (("create", "pens", "--dim", "16", "--index-param", "M"), 2, "'M' is not KEY=VALUE"),
        (("create", "pens", "--dim", "16", "--metric", "COS"), 2, "one of L2, IP, COSINE, got 'COS'"),
        (("create", "pens", "--field", "title"), 2, "'title' is not NAME:DIM"),
        (("gc", "boks"), 1, "no collection 'boks', did you mean 'books'"),
        (("gc", "--keep", "long"), 2, "'long' is no time"),
        (("rename", "books", "books"), 2, "the new name 'books' is the old one"),
        (("list", "--store", "ftp://host/x"), 2, "store url has scheme 'ftp'"),
        (("list", "--store", "redis://127.0.0.1:1/0"), 3, "127.0.0.1:1"),
        (("lst",), 2, "lst"),
    ],
)
def test_each_mistake_is_named_and_has_its_exit_code(store: Shell, arguments: tuple[str, ...], code: int, message: str):
    store("create", "books", "--dim", "16")

    assert message in store(*arguments, code=code)


def test_verify_lists_what_is_wrong_and_exits_1(store: Shell, capfd: pytest.CaptureFixture[str]):
    store("create", "books", "--dim", "16")
    store("import", "books", "x.npy", "--segment-size", "8KiB")
    blobs = open_store("file:./nearmq-data")
    entries = Catalog(blobs).snapshot("books").segments
    blobs.delete(entries[0].rows_blob.key)
    blobs.put(entries[1].indexes["vector"].blob.key, b"nothing")

    assert run(["store", "verify", "--json"]) == 1
    problems = json.loads(capfd.readouterr().out)["problems"]
    assert {problem["segment"] for problem in problems} == {entries[0].id, entries[1].id}
    assert any("is missing" in problem["message"] for problem in problems)
    assert any("index of field 'vector'" in problem["message"] for problem in problems)


def test_gc_removes_what_was_dropped_and_says_how_much(store: Shell):
    for name in ("books", "pens"):
        store("create", name, "--dim", "16")
        store("import", name, "x.npy")
    store("drop", "pens", "-f")
    assert store("gc", "--dry-run") == "would remove 0 versions and 0 blobs\n"

    found = store.json("gc", "--keep", "0s", "-n")
    assert {name: found[name] for name in ("dry_run", "versions", "problems")} == {
        "dry_run": True,
        "versions": 3,
        "problems": [],
    }
    removed = store.json("gc", "--keep", "0s", "--grace", "0")
    assert [(part["collection"], part["state"], part["versions"]) for part in removed["collections"]] == [
        (part["collection"], part["state"], part["versions"]) for part in found["collections"]
    ]
    assert sorted((part["collection"], part["state"]) for part in removed["collections"]) == [
        ("books", "live"),
        ("pens", "dropped"),
    ]
    assert removed["blobs"] == found["blobs"] > 3
    assert "removed 0 versions and 0 blobs" in store("gc", "--keep", "0s", "--grace", "0")
    assert store("gc", "books") == "books: 0 versions, 0 blobs\nremoved 0 versions and 0 blobs\n"
    assert store.json("verify")["rows"] == 500


def test_gc_leaves_alone_what_it_cannot_read_and_exits_1(store: Shell, capfd: pytest.CaptureFixture[str]):
    store("create", "books", "--dim", "16")
    store("import", "books", "x.npy")
    blobs = open_store("file:./nearmq-data")
    page = Catalog(blobs).snapshot("books").manifest.pages[0]
    blobs.delete(page.blob.key)

    assert run(["store", "gc", "--keep", "0s", "--json"]) == 1
    answer = json.loads(capfd.readouterr().out)
    assert (answer["versions"], answer["blobs"], len(answer["problems"])) == (0, 0, 1)
    assert "is missing" in answer["problems"][0]["message"]


def test_the_environment_names_the_store(store: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("NEARMQ_STORE", f"file:{tmp_path / 'other'}")
    store("create", "pens", "--dim", "16")

    assert store.json("list", "--store", "file:./nearmq-data") == {"collections": []}
    assert store.json("list") == {"collections": ["pens"]}


def test_redis_keeps_a_store(store: Shell, redis_url: str):
    store("create", "books", "--dim", "16", "--store", redis_url)
    store("import", "books", "x.npy", "--store", redis_url)

    assert store.json("verify", "--store", redis_url)["rows"] == 500


def test_the_installed_command_writes_data_on_stdout_and_all_else_on_stderr(tmp_path: Path, store: Shell):
    store("create", "books", "--dim", "16")
    nearmq = Path(sys.executable).with_name("nearmq")

    done = subprocess.run(
        [nearmq, "store", "import", "books", "x.npy", "--json"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
        text=True,
    )

    assert json.loads(done.stdout)["rows"] == 500
    assert "\x1b" not in done.stdout + done.stderr


def test_an_import_with_a_job_id_is_done_once_and_says_so(store: Shell):
    store("create", "books", "--dim", "16")

    assert store("import", "books", "x.npy", "--job-id", "nightly").startswith("imported 500 rows into books")
    again = store("import", "books", "x.npy", "--job-id", "nightly")

    assert again.strip() == ("imported 500 rows into books, partition _default before: version 2, nothing was changed")
    assert store.json("show", "books")["rows"] == 500


def test_a_matrix_takes_the_scalars_of_a_table(store: Shell):
    store("create", "books", "--dim", "16", "--scalar", "year:int64")
    Path("years.csv").write_text("year\n" + "".join(f"{number}\n" for number in range(500)))

    assert store("import", "books", "x.npy", "--fields", "years.csv", "--dry-run").startswith("would import 500 rows")
    store("import", "books", "x.npy", "--fields", "years.csv")

    assert store.json("show", "books")["rows"] == 500
    Path("years.csv").write_text("year\n1\n")
    assert "years.csv: expected 500 rows" in store("import", "books", "x.npy", "--fields", "years.csv", code=2)


def test_tune_measures_with_ones_own_queries_and_searches_go_by_it(store: Shell, tmp_path: Path):
    random = np.random.default_rng(1)
    centres = random.standard_normal((30, 16))
    vectors = (centres[random.integers(30, size=2_500)] + random.standard_normal((2_500, 16))).astype(np.float32)
    np.save("rows.npy", vectors)
    np.save("far.npy", (vectors[:300] + 4 * random.standard_normal((300, 16))).astype(np.float32))
    store("create", "books", "--dim", "16", "--index", "IVF_FLAT", "--index-param", "nlist=32")
    store("import", "books", "rows.npy")
    measured = store.json("tune", "books", "--dry-run")
    assert (measured["version"], measured["index"]) == (2, "IVF_FLAT")
    (segment,) = measured["segments"]
    points = segment["recalls"]["10"]
    assert [point["recall"] for point in points] == sorted(point["recall"] for point in points)
    (entry,) = Catalog(open_store("file:./nearmq-data")).snapshot("books").segments
    stored = [(point.width, point.recall) for point in entry.indexes["vector"].recalls[10]]
    assert stored == [(point["width"], point["recall"]) for point in points]

    assert "version 3 goes by this" in store("tune", "books", "--queries", "far.npy", "--plot", "recall.png")
    assert (tmp_path / "recall.png").read_bytes().startswith(b"\x89PNG")
    (tuned,) = Catalog(open_store("file:./nearmq-data")).snapshot("books").segments
    assert tuned == msgspec.structs.replace(entry, indexes=tuned.indexes)
    # Queries far from the rows visit more cells for the same recall.
    assert tuned.indexes["vector"].recalls[10][0].recall < stored[0][1]
    np.save("wide.npy", np.zeros((3, 17), np.float32))
    assert "field 'vector' has dim 16, the queries have 17" in store("tune", "books", "--queries", "wide.npy", code=1)
    assert "did you mean 'books'" in store("tune", "boks", code=1)


def test_tune_leaves_alone_what_has_no_index_to_measure(store: Shell):
    store("create", "books", "--dim", "16")
    store("import", "books", "x.npy")
    assert "nothing to measure" in store("tune", "books")
    assert store.json("tune", "books")["version"] == 2
