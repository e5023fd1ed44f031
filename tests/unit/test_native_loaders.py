"""No byte from a store or a stranger reaches code that runs it, or a native library's own loader of files."""

import ast
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nearmq.cli import run

ROOT = Path(__file__).parents[2]
MODULES = [
    path for part in ("producer", "index_store", "worker") for path in sorted((ROOT / part).rglob("nearmq*/**/*.py"))
]

#: Modules that run what they read.
RUNNING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle"}
#: Loaders of hnswlib and faiss that believe their file, one of which opens the path that the file names.
LOADERS = {
    "load_index",
    "read_index",
    "read_index_binary",
    "deserialize_index",
    "read_ProductQuantizer",
    "read_VectorTransform",
}


def offences(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        at = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
            yield from (f"{at} imports {name}" for name in names if name.partition(".")[0] in RUNNING)
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in {"eval", "exec"} or name.rpartition(".")[2] in LOADERS:
                yield f"{at} calls {name}"
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if name in {"np.load", "numpy.load"} and keywords.get("allow_pickle") != "False":
                yield f"{at} loads pickles"


def test_no_module_unpickles_or_lets_a_library_load_a_file():
    assert len(MODULES) > 150
    assert [offence for path in MODULES for offence in offences(path)] == []


def test_what_must_not_be_there_is_found_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    module = tmp_path / "bad.py"
    module.write_text("import pickle\nfrom dill import loads\nfaiss.read_index(p)\nnp.load(p)\neval(p)\n")
    assert [offence.split()[0] for offence in offences(module)] == [f"bad.py:{line}" for line in (1, 2, 3, 4, 5)]


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("the bomb went off",))


def test_a_pickle_in_a_file_of_vectors_is_refused_and_not_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    np.save("bomb.npy", np.array([[Bomb()]], dtype=object), allow_pickle=True)
    Path("plain.npy").write_bytes(pickle.dumps(Bomb()))
    assert run(["store", "create", "books", "--dim", "1"]) == 0
    for file in ("bomb.npy", "plain.npy"):
        assert run(["store", "import", "books", file]) == 2
        assert run(["search", "books", file]) == 2
    printed = capfd.readouterr()
    assert "the bomb went off" not in printed.out + printed.err
