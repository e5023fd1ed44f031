"""A store whose bytes are damaged: every read says so, and no library of indexes ever sees them."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import nearmq_worker.spool
from nearmq_index_store.blobs import open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.digest import read_blob
from nearmq_index_store.errors import IndexCorrupt
from nearmq_index_store.manifest import manifest_prefix
from nearmq_index_store.schema import IndexSpec, Schema, VectorField
from tests.world import delete, fill

MUTANTS = 200
DIM = 16


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A store with three versions of a collection: two segments, an HNSW index each, and a deleted row."""
    folder = tmp_path / "sound"
    store = open_store(f"file:{folder}")
    field = VectorField(name="vector", dim=DIM, metric="L2", index=IndexSpec(kind="HNSW"))
    Catalog(store).create("c", Schema(vector_fields=(field,)), job_id="create")
    vectors = np.random.default_rng(1).normal(size=(600, DIM)).astype(np.float32)
    fill(store, "c", range(600), vectors, segments=2)
    delete(store, "c", [7])
    return folder


def read_all(folder: Path) -> None:
    """Read the newest version as a worker does that has nothing in memory or in its spool."""
    store = open_store(f"file:{folder}")
    catalog = Catalog(store)
    snapshot = catalog.snapshot("c")
    opener = nearmq_worker.spool.Spool(store, None, 1 << 30)
    try:
        for entry in snapshot.segments:
            opener.open(entry, snapshot.manifest.schema, "vector")
            catalog.readers.deletes.deleted(entry)
            read_blob(store, entry.keys.blob)
    finally:
        opener.close()


def mutants(sound: Path, rng: random.Random) -> Iterator[tuple[str, Path, bytes]]:
    """What was done to which file, and its bytes after it: every kind of damage to every kind of file in turn."""
    snapshot = Catalog(open_store(f"file:{sound}")).snapshot("c")
    named = {page.blob for page in snapshot.manifest.pages} | {
        blob for entry in snapshot.segments for blob in entry.blobs()
    }
    blobs = sorted(sound / blob.key for blob in named)
    manifests = sorted((sound / manifest_prefix(snapshot.manifest.collection_id)).iterdir())
    for number in range(MUTANTS):
        path = rng.choice([manifests[-1], *blobs])
        data = bytearray(path.read_bytes())
        match number % 4:
            case 0:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
                yield "a flipped bit", path, bytes(data)
            case 1:
                yield "a cut", path, bytes(data[: rng.randrange(len(data))])
            case 2:
                yield "another blob", path, rng.choice([each for each in blobs if each != path]).read_bytes()
            case _:
                yield "an old manifest", manifests[-1], rng.choice(manifests[:-1]).read_bytes()


def test_damage_is_noticed_and_reaches_no_loader(sound: Path, seed: int, monkeypatch: pytest.MonkeyPatch):
    seen: set[bytes] = set()
    open_segment = nearmq_worker.spool.open_segment

    def watched(entry: object, field: object, rows: object, index_file: memoryview) -> object:
        seen.add(bytes(index_file))
        return open_segment(entry, field, rows, index_file)

    monkeypatch.setattr(nearmq_worker.spool, "open_segment", watched)
    read_all(sound)
    undamaged = set(seen)
    assert len(undamaged) == 2
    for kind, path, damaged in mutants(sound, random.Random(seed)):
        bytes_before = path.read_bytes()
        path.write_bytes(damaged)
        try:
            read_all(sound)
        except IndexCorrupt:
            pass
        else:
            pytest.fail(f"{kind} in {path.name} was not noticed")
        path.write_bytes(bytes_before)
    read_all(sound)
    assert seen == undamaged
