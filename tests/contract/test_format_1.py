"""A store as it was first written: read, searched, written to and compacted by this one.

`format_1` was made by commit 1841578, the first with all of a release: five collections of the same 120 rows, one
of each index kind, in two segments; `flat` has ten rows more in a partition `other`. `expected.json` is what its own
worker found.
"""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nearmq.errors import IndexCorrupt
from tests.world import World, embedded_world

FOLDER = Path(__file__).with_name("format_1")
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
QUERIES = np.array(EXPECTED["queries"], np.float32)
KINDS = sorted(EXPECTED["hits"])


@pytest.fixture
def released(tmp_path: Path) -> Iterator[World]:
    with tarfile.open(FOLDER / "store.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    with embedded_world(f"file:{tmp_path}") as world:
        yield world


def search(world: World, kind: str) -> list[dict[str, list[float]]]:
    params = {"ivf_pq": {"nprobe": 2}, "ivf_flat": {"nprobe": 4}, "ivf_sq8": {"nprobe": 4}}.get(kind, {})
    found = world.client.collection(kind).search(QUERIES, limit=5, params=params)
    return [{"ids": hits.ids.tolist(), "distances": hits.distances.tolist()} for hits in found]


#: Their files were changed before any release was made.
CHANGED = ("hnsw", "ivf_flat")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in CHANGED])
def test_what_the_first_version_stored_is_found_as_it_found_it(released: World, kind: str):
    assert search(released, kind) == EXPECTED["hits"][kind]


@pytest.mark.parametrize("kind", CHANGED)
def test_an_index_file_of_before_the_first_release_is_refused_until_it_is_built_again(released: World, kind: str):
    with pytest.raises(IndexCorrupt):
        search(released, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_first_version_stored_can_be_written_to_and_merged(released: World, kind: str):
    collection = released.client.collection(kind)
    rows = collection.count()
    nearest = EXPECTED["hits"][kind][0]["ids"][0]
    assert collection.delete([nearest]).deleted == 1
    assert collection.upsert([5_000], QUERIES[:1]).inserted == 1
    collection.compact(timeout_s=60)
    found = collection.search(QUERIES[:1], limit=2)[0]
    assert found.ids.tolist() == [5_000, EXPECTED["hits"][kind][0]["ids"][1]]
    assert collection.count() == rows
