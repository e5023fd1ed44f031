"""The ledger: which write jobs a collection has taken in, and what each was answered.

The newest entries stand in the manifest's root. When they are many, they go into a blob, and blobs of similar size are
merged, so that there are few of them. An entry is kept for the window, within which a job's redelivery gets the same
answer and has no second effect.

A job id that is a UUIDv7 says when the job was made. It is looked for only in blobs whose jobs were made around then,
so a fresh job, the usual case, needs none. The time is only compared with what the very same id said before: no clocks
have to agree.

A blob is an Arrow IPC file with the columns `job` (the 16 bytes of the id's BLAKE3, sorted) and `entry` (JSON).
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec
import pyarrow as pa
from blake3 import blake3

from nearmq_index_store.blobs.protocol import BlobStore
from nearmq_index_store.digest import put_blob, read_blob
from nearmq_index_store.errors import IndexCorrupt
from nearmq_index_store.manifest import Ledger, LedgerEntry, OldJobs, RecordedError
from nearmq_index_store.recent import Recent

#: How long a redelivery of a job is recognised by its id.
WINDOW_S = 7 * 24 * 3600

#: Entries in the root, some 100 bytes each; the half of them goes into a blob when there are more.
MAX_RECENT_JOBS = 512

#: Blobs are merged up to so many entries, some 100 bytes each.
MAX_OLD_JOBS = 1 << 18

#: Old entries that are remembered.
_BLOBS_KEPT_BYTES = 64 << 20

_UUID_VERSION = 7
_SCHEMA = pa.schema([("job", pa.binary(16)), ("entry", pa.string())])

_read_entry = msgspec.json.Decoder(LedgerEntry).decode  # made here for the reason that `sealed.Reader` has


def job_time_ms(job_id: str) -> int | None:
    """When a job was made, in milliseconds since 1970, as its id says; None where it is no UUIDv7."""
    try:
        uuid = UUID(job_id)
    except ValueError:
        return None
    return uuid.int >> 80 if uuid.version == _UUID_VERSION and str(uuid) == job_id.lower() else None


def made_entry(job_id: str, version: int, counts: dict[str, int], error: RecordedError | None) -> LedgerEntry:
    """Return the entry of a job that the version takes in."""
    return LedgerEntry(job=_hash_job(job_id), version=version, made_ms=job_time_ms(job_id), counts=counts, error=error)


class _Span(NamedTuple):
    """What `OldJobs` says of its jobs' times."""

    first_ms: int
    last_ms: int
    has_undated: bool
    committed_ms: int


class LedgerStore:
    """The ledgers of a store's collections; may be used by any number of threads."""

    def __init__(self, store: BlobStore, *, now_s: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now_s = now_s
        self._blobs: Recent[str, pa.RecordBatch] = Recent(_BLOBS_KEPT_BYTES, lambda jobs: jobs.nbytes)

    def find(self, ledger: Ledger, job_ids: Sequence[str]) -> dict[str, LedgerEntry]:
        """Return by job id the entries of those jobs that have been taken in.

        Raises:
            IndexCorrupt: a blob of the ledger is missing, or fails its digest.
        """
        recent = {entry.job: entry for entry in ledger.recent}
        found = {}
        for job_id in job_ids:
            entry = recent.get(_hash_job(job_id)) or self._find_old(ledger, job_id)
            if entry is not None:
                found[job_id] = entry
        return found

    def record(self, collection_id: str, ledger: Ledger, taken: Sequence[LedgerEntry], *, not_before: str) -> Ledger:
        """Return the ledger with more jobs, and without those that were taken in before the window.

        Args:
            not_before: as for `put_blob`.
        """
        recent = (*ledger.recent, *taken)
        oldest_ms = self._now_ms() - WINDOW_S * 1_000
        older = tuple(old for old in ledger.older if max(old.committed_ms, old.last_ms) >= oldest_ms)
        if len(recent) > MAX_RECENT_JOBS:
            spilled, recent = recent[: -MAX_RECENT_JOBS // 2], recent[-MAX_RECENT_JOBS // 2 :]
            put = _Putter(self._store, collection_id, not_before)
            older = self._merged((*older, put(_table(spilled), _span(spilled, self._now_ms()))), put)
        return Ledger(recent=recent, older=older)

    def _now_ms(self) -> int:
        return int(self._now_s() * 1_000)

    def _find_old(self, ledger: Ledger, job_id: str) -> LedgerEntry | None:
        made_ms = job_time_ms(job_id)
        for old in reversed(ledger.older):
            if old.has_undated if made_ms is None else old.first_ms <= made_ms <= old.last_ms:
                entry = _look_up(self._jobs_of(old), _hash_job(job_id))
                if entry is not None:
                    return entry
        return None

    def _jobs_of(self, old: OldJobs) -> pa.RecordBatch:
        jobs = self._blobs.get(old.blob.key)
        if jobs is None:
            jobs = _decode(read_blob(self._store, old.blob), old)
            self._blobs.put(old.blob.key, jobs)
        return jobs

    def _merged(self, older: tuple[OldJobs, ...], put: "_Putter") -> tuple[OldJobs, ...]:
        """Merge the last two blobs as long as they are of similar size: their number grows with the logarithm."""
        while len(older) > 1:
            left, right = older[-2:]
            if left.jobs > 2 * right.jobs or left.jobs + right.jobs > MAX_OLD_JOBS:
                break
            table = pa.Table.from_batches([self._jobs_of(left), self._jobs_of(right)])
            older = (*older[:-2], put(table, _joined(left, right)))
        return older


class _Putter:
    """Puts blobs of entries for one commit."""

    def __init__(self, store: BlobStore, collection_id: str, not_before: str) -> None:
        self._store = store
        self._collection_id = collection_id
        self._not_before = not_before

    def __call__(self, jobs: pa.Table, span: _Span) -> OldJobs:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, _SCHEMA) as writer:
            writer.write_table(jobs.sort_by("job").combine_chunks())
        blob = put_blob(self._store, self._collection_id, memoryview(sink.getvalue()), not_before=self._not_before)
        return OldJobs(blob=blob, jobs=len(jobs), **span._asdict())


def _hash_job(job_id: str) -> str:
    return blake3(job_id.encode()).hexdigest(length=16)


def _table(entries: Sequence[LedgerEntry]) -> pa.Table:
    columns = [
        [bytes.fromhex(entry.job) for entry in entries],
        [msgspec.json.encode(entry).decode() for entry in entries],
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, _SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=_SCHEMA)


def _span(entries: Sequence[LedgerEntry], now_ms: int) -> _Span:
    made = [entry.made_ms for entry in entries if entry.made_ms is not None]
    # Without any dated job the span is empty: no time lies in it.
    return _Span(min(made, default=1), max(made, default=0), len(made) < len(entries), now_ms)


def _joined(left: OldJobs, right: OldJobs) -> _Span:
    return _Span(
        min(left.first_ms, right.first_ms),
        max(left.last_ms, right.last_ms),
        left.has_undated or right.has_undated,
        max(left.committed_ms, right.committed_ms),
    )


def _decode(data: bytes, old: OldJobs) -> pa.RecordBatch:
    try:
        jobs = pa.ipc.open_file(pa.py_buffer(data)).get_batch(0)
        jobs.validate()
    except pa.ArrowException as error:
        raise IndexCorrupt(f"ledger blob {old.blob.key!r} cannot be read: {error}") from error
    if jobs.schema != _SCHEMA or jobs.num_rows != old.jobs:
        raise IndexCorrupt(f"ledger blob {old.blob.key!r} has {jobs.num_rows} jobs of {jobs.schema.types}")
    return jobs


def _look_up(jobs: pa.RecordBatch, job: str) -> LedgerEntry | None:
    column, wanted = jobs.column("job"), bytes.fromhex(job)
    place = bisect_left(range(len(column)), wanted, key=lambda row: column[row].as_py())
    if place == len(column) or column[place].as_py() != wanted:
        return None
    return _read_entry(jobs.column("entry")[place].as_py())
