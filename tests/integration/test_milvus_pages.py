"""The Python snippets of the two Milvus pages that the project started from run as they stand, after a prelude."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nearmq.errors import InvalidArgument
from nearmq.milvus import Collection, Milvus, connections
from tests.world import embedded_world

SEEDS = Path(__file__).resolve().parents[3] / "shared" / "seeds"

PRELUDE_1X = """
import random
from nearmq.milvus import Milvus
milvus = Milvus(uri=URI)
"""

PRELUDE_2X = """
import random
from nearmq.milvus import Collection, connections
connections.connect(uri=URI)
collection = Collection("test01")
field_name, partition_name = "vector", "tag01"
vectors = [[random.random() for _ in range(256)] for _ in range(8)]
"""


def snippets(page: str) -> list[str]:
    """The lines that a reader would type, in order."""
    text = next(SEEDS.glob(f"{page}_*.txt")).read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return [line.strip()[4:] for block in blocks for line in block.splitlines() if line.strip().startswith(">>> ")]


def run(prelude: str, lines: list[str], uri: str) -> dict[str, object]:
    names: dict[str, object] = {"URI": uri}
    exec(prelude, names)
    for line in lines:
        exec(compile(line, line, "single"), names)
    return names


@pytest.fixture
def uri(tmp_path: Path) -> Iterator[str]:
    with embedded_world(f"file:{tmp_path}") as world:
        world.client.create_collection("test01", dim=256, index="IVF_FLAT", index_params={"nlist": 32})
        vectors = np.random.default_rng(1).random((500, 256), dtype=np.float32)
        world.add("test01", range(400), vectors[:400])
        world.add("test01", range(400, 500), vectors[400:], partition="tag01")
    yield f"local:{tmp_path}"
    connections.disconnect("default")


@pytest.mark.shared_data
@pytest.mark.skipif(not SEEDS.exists(), reason="the pages are not here")
def test_the_snippets_of_milvus_1_run_with_nothing_but_a_prelude(uri: str):
    lines = snippets("000")
    assert len(lines) == 5
    names = run(PRELUDE_1X, lines, uri)
    milvus = names["milvus"]
    assert isinstance(milvus, Milvus)
    found = milvus.search(
        collection_name="test01",
        query_records=names["q_records"],
        top_k=1,
        partition_tags=["tag01"],
        params={"nprobe": 16},
    )
    assert [len(hits) for hits in found] == [1] * 5
    assert all(hits[0].id >= 400 for hits in found)
    milvus.close()


@pytest.mark.shared_data
@pytest.mark.skipif(not SEEDS.exists(), reason="the pages are not here")
def test_the_snippets_of_milvus_2_run_with_nothing_but_a_prelude(uri: str, capsys: pytest.CaptureFixture[str]):
    lines = snippets("001")
    assert len(lines) == 7
    names = run(PRELUDE_2X, lines, uri)
    results = names["results"]
    assert [len(hits) for hits in results] == [10] * 5
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == str(results[0].ids)
    assert printed[1] == str(results[0].distances)
    assert results[0].distances == sorted(results[0].distances)


def test_milvus_2_searches_asynchronously_too(uri: str):
    connections.connect(uri=uri)
    collection = Collection("test01")
    vectors = np.zeros((2, 256))
    seen = []
    future = collection.search(vectors, "vector", limit=3, _async=True, _callback=seen.append)
    assert [len(hits) for hits in future.result(30)] == [3, 3]
    assert future.done()
    with pytest.raises(InvalidArgument, match="Strong"):
        collection.search(vectors, consistency_level="Weak")
