"""What must hold when a run is over: of each version that there ever was, and of each answer that was given."""

from collections.abc import Iterator, Mapping, Sequence

from nearmq_index_store import ledger
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.commit import Outcome
from nearmq_index_store.digest import read_blob
from nearmq_index_store.head import Heads
from nearmq_index_store.manifest import LedgerEntry, Manifest, Snapshot, manifest_key, manifest_prefix
from tests.exploring.history import History
from tests.exploring.jobs import Job, Model
from tests.exploring.quick_segments import parse_rows

#: Live rows: partition and first number of the vector by key.
Rowset = dict[int, tuple[str, float]]


def check(
    store: History,
    collection_id: str,
    *,
    jobs: Sequence[Job],
    answers: Mapping[str, Sequence[Outcome]],
    reads: Sequence[tuple[int, Rowset]],
    problems: Sequence[str],
) -> None:
    """Raise AssertionError where a run went wrong.

    Args:
        answers: by job id, all that workers gave.
        reads: versions and the rows that readers found in them.
        problems: what workers met that none should.
    """
    assert not problems, problems
    head = Heads(store).head(collection_id)
    assert head is not None
    whole = Catalog(store.undeleted())
    _check_retained(store, whole, head)
    taken = _replay(whole, head, {ledger._hash_job(job.id): job for job in jobs})
    for version, rows in reads:
        manifest = whole.readers.heads.manifest(collection_id, version)
        assert rows == (rows_at(whole, whole.readers.heads.open(manifest)) if manifest.state == "live" else {})
    for job_id, given in answers.items():
        entry = taken.get(job_id)
        assert entry is not None, f"{job_id} was answered {given[0]}, and no version took it in"
        for outcome in given:
            kind = outcome.error and type(outcome.error).__name__
            assert (outcome.version, outcome.counts, kind) == (entry.version, entry.counts, _kind(entry)), (
                f"{job_id} was answered {outcome}, and the ledger says {entry}"
            )


def _check_retained(store: History, whole: Catalog, head: Manifest) -> None:
    """The versions from the floor to the head are there without a gap, as first put, and whole."""
    floor = max(Heads(store).floor(head.collection_id), 1)
    prefix = manifest_prefix(head.collection_id)
    last = max(int(key.removeprefix(prefix)) for key in store.list(prefix))
    assert floor <= head.version == last, f"floor {floor}, head {head.version}, last {last}"
    for version in range(floor, last + 1):
        key = manifest_key(head.collection_id, version)
        assert store.exists(key), f"version {version} is gone, the floor is {floor}"
        assert store.get(key) == store.ever[key], f"version {version} was replaced"
        missing = [blob for blob in _named(whole, version, head.collection_id) if not store.exists(blob)]
        assert not missing, f"version {version} misses {missing}"


def _named(whole: Catalog, version: int, collection_id: str) -> Iterator[str]:
    heads = whole.readers.heads
    manifest = heads.manifest(collection_id, version)
    yield from (old.blob.key for old in manifest.ledger.older)
    if manifest.state == "live":
        yield from (ref.blob.key for ref in manifest.pages)
        for entry in heads.open(manifest).segments:
            yield from (blob.key for blob in entry.blobs())


def _replay(whole: Catalog, head: Manifest, jobs: Mapping[str, Job]) -> dict[str, LedgerEntry]:
    """Apply to a model what each version says that it took in, and return the entries by job id."""
    model = Model()
    taken: dict[str, LedgerEntry] = {}
    seen: set[str] = set()
    for version in range(1, head.version + 1):
        manifest = whole.readers.heads.manifest(head.collection_id, version)
        for entry in manifest.ledger.recent:
            if entry.version != version:
                continue
            job = jobs.get(entry.job)
            assert entry.job not in seen, f"{job and job.id} was taken in twice"
            seen.add(entry.job)
            if job is None:
                continue
            taken[job.id] = entry
            expected = job.apply(model)
            assert expected == (entry.counts, _kind(entry)), f"version {version}, {job.id}: {entry}, not {expected}"
        assert set(manifest.partitions) == model.partitions
        if manifest.state == "live":
            assert rows_at(whole, whole.readers.heads.open(manifest)) == model.rows, (
                f"version {version} after {list(taken)}"
            )
    return taken


def rows_at(catalog: Catalog, snapshot: Snapshot) -> Rowset:
    """The live rows of a version."""
    found: Rowset = {}
    for entry in snapshot.segments:
        rows = parse_rows(read_blob(catalog.store, entry.rows_blob))
        deleted = catalog.readers.deletes.deleted(entry)
        values = rows.vectors("vector")[:, 0].tolist()
        for row, key in enumerate(rows.keys.to_pylist()):
            if row not in deleted:
                assert key not in found, f"version {snapshot.manifest.version} has {key} twice"
                found[key] = entry.partition, values[row]
    return found


def _kind(entry: LedgerEntry) -> str | None:
    return entry.error and entry.error.kind
