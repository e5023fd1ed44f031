"""What the store says of the writes to `moving`: which took effect in which version, and the rows in the end."""

from collections.abc import Iterator, Sequence

import numpy as np
from blake3 import blake3

import nearmq
from nearmq_index_store.blobs import BlobStore, open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.manifest import manifest_prefix, read_manifest
from nearmq_index_store.schema import IndexSpec, Schema, VectorField
from tests.chaos.history import History

MOST_ROWS = 1_000
_COUNTS = {"inserted", "replaced", "deleted"}


def make_moving(store: BlobStore) -> None:
    field = VectorField(name="vector", dim=2, metric="L2", index=IndexSpec(kind="FLAT"))
    Catalog(store).create("moving", Schema(vector_fields=(field,)), job_id="create moving")


def row(value: int) -> np.ndarray:
    """The vector of a row of `moving`: its squared distance from the origin tells the value."""
    return np.array([value, value], np.float32)


def rows_of(ids: Sequence[int], distances: Sequence[float]) -> dict[int, int]:
    """What a search from the origin found, by key."""
    values = np.rint(np.sqrt(np.asarray(distances) / 2)).astype(int).tolist()
    return dict(zip(map(int, ids), values, strict=True))


def write_down_effects(history: History, store_url: str, job_ids: Sequence[str]) -> None:
    """Append the commits of the writes, as each version's ledger has them, and the rows as a search finds them."""
    by_hash = {blake3(job_id.encode()).hexdigest(length=16): job_id for job_id in job_ids}
    for version, job in _commits(open_store(store_url)):
        history.add("commit", "committed", job_id=by_hash.get(job, job), version=version)
    with nearmq.connect(f"local:{store_url}") as client:
        [hits] = client.collection("moving").search(row(0)[None], limit=MOST_ROWS)
    assert len(set(hits.ids.tolist())) == len(hits), "a key is there twice"
    history.add("rows", "final", effect=rows_of(hits.ids, hits.distances))


def _commits(store: BlobStore) -> Iterator[tuple[int, str]]:
    """Each version with the hashes of the jobs that it took in."""
    collection_id = Catalog(store).snapshot("moving").manifest.collection_id
    for key in sorted(store.list(manifest_prefix(collection_id))):
        manifest = read_manifest(store, collection_id, int(key.rpartition("/")[2]))
        for entry in manifest.ledger.recent:
            is_write = entry.error is not None or not _COUNTS.isdisjoint(entry.counts)
            if entry.version == manifest.version and is_write:
                yield manifest.version, entry.job
