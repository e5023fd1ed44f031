"""The collections of a store: all that a worker or the command line asks of them, by name."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from nearmq_index_store import intents
from nearmq_index_store.blobs.protocol import BlobStore
from nearmq_index_store.commit import Committer, Outcome, Write
from nearmq_index_store.deletes import DeletesReader
from nearmq_index_store.draft import Readers, UseRows
from nearmq_index_store.errors import CollectionNotFound, InvalidArgument
from nearmq_index_store.head import Heads
from nearmq_index_store.indexes import index_kind
from nearmq_index_store.intents import Intent
from nearmq_index_store.keys import KeysReader
from nearmq_index_store.manifest import Manifest, SegmentEntry, Snapshot
from nearmq_index_store.names import Names
from nearmq_index_store.pages import Segments
from nearmq_index_store.recent import Recent
from nearmq_index_store.row_files import RowFiles
from nearmq_index_store.schema import (
    MAX_DIM,
    METRICS,
    IndexSpec,
    ScalarField,
    Schema,
    VectorField,
    check_fields,
)

NAMES_KEPT = 1_024


def check_schema(schema: Schema) -> Schema:
    """Return the schema of a new collection with the defaults of its indexes filled in.

    Raises:
        InvalidArgument: a name, number or parameter is unknown or out of range.
    """
    check_fields(schema)
    return msgspec.structs.replace(schema, vector_fields=tuple(_check_field(field) for field in schema.vector_fields))


class Catalog:
    """The collections of one store; may be used by any number of threads.

    Args:
        folder: where rows are on their way into or out of the store; None for the system's temporary folder.
        use_rows: gives the rows of a segment to deletes by an expression; None fetches them.
        on_snapshot: given each version that `snapshot` reads.

    Every write takes the id of its job: the same id again gives what the first gave, whatever happened since. Every
    method may raise StoreUnavailable, after which the outcome of a write is unknown until its job is tried again.
    """

    def __init__(
        self,
        store: BlobStore,
        *,
        folder: Path | None = None,
        use_rows: UseRows | None = None,
        on_snapshot: Callable[[Snapshot], object] = lambda _: None,
    ) -> None:
        self.store = store
        self._on_snapshot = on_snapshot
        folder = folder or Path(tempfile.gettempdir())
        self.readers = Readers(
            heads=Heads(store),
            keys=KeysReader(store),
            deletes=DeletesReader(store),
            use_rows=use_rows or RowFiles(store, folder).use,
        )
        self._heads = self.readers.heads
        self._committer = Committer(self.readers, folder)
        self._names = Names(self._heads, self._committer)
        self._ids: Recent[str, str] = Recent(NAMES_KEPT)

    def create(self, name: str, schema: Schema, *, job_id: str) -> Outcome:
        """Make an empty collection.

        Raises:
            AlreadyExists: a collection has this name.
            InvalidArgument: the schema is not one.
        """
        return self._names.create(name, check_schema(schema), job_id=job_id)

    def drop(self, name: str, *, job_id: str) -> Outcome:
        """End a collection; its last version is `dropped`.

        Raises:
            CollectionNotFound: no collection has this name.
        """
        return self._names.drop(name, job_id=job_id)

    def rename(self, name: str, new_name: str, *, job_id: str) -> Outcome:
        """Give a collection another name.

        Raises:
            CollectionNotFound: no collection has the old name.
            AlreadyExists: a collection has the new name.
        """
        return self._names.rename(name, new_name, job_id=job_id)

    def create_partition(self, name: str, partition: str, *, job_id: str) -> Outcome:
        """Add an empty partition.

        Raises:
            CollectionNotFound: no collection has this name.
            AlreadyExists: it has the partition.
        """
        return self._commit(name, intents.create_partition(partition), job_id=job_id)

    def add_fields(self, name: str, fields: Sequence[ScalarField], *, job_id: str) -> Outcome:
        """Add nullable scalar fields, in which the rows that are there have null; nothing is rewritten.

        Raises:
            CollectionNotFound: no collection has this name.
            AlreadyExists: it has a field of one of the names.
            InvalidArgument: a field is not nullable, or none.
        """
        return self._commit(name, intents.add_fields(fields), job_id=job_id)

    def drop_partition(self, name: str, partition: str, *, job_id: str) -> Outcome:
        """Remove a partition with its rows.

        Raises:
            CollectionNotFound: no collection has this name.
            PartitionNotFound: it has no such partition.
            InvalidArgument: the default partition stays.
        """
        return self._commit(name, intents.drop_partition(partition), job_id=job_id)

    def append(
        self,
        collection_id: str,
        segments: Sequence[SegmentEntry],
        *,
        job_id: str,
        check_keys: Callable[[Segments], None] | None = None,
        create_partitions: bool = False,
    ) -> Outcome:
        """Make stored segments part of a collection, all in one version.

        Args:
            check_keys: given all segments of the version to append to, raises AlreadyExists where one holds a key of
                the new rows; it may be called several times. None when the caller knows that none does.
            create_partitions: make the segments' partitions where they are missing.

        Raises:
            CollectionNotFound: the collection is dropped.
            PartitionNotFound: a segment's partition is missing.
        """
        intent = intents.append(tuple(segments), check_keys=check_keys, create_partitions=create_partitions)
        return self.commit(collection_id, intent, job_id=job_id)

    def commit(self, collection_id: str, intent: Intent, *, job_id: str) -> Outcome:
        """Change a collection, given by its id, once for this job id; raises what the intent raises."""
        return self._committer.commit(collection_id, intent, job_id=job_id)

    def taken(self, collection_id: str, job_id: str) -> Outcome | None:
        """Return what became of a job if a collection, given by its id, has taken it in."""
        return self._committer.taken(collection_id, [job_id]).get(job_id)

    def recorded(self, name: str, job_ids: Sequence[str]) -> dict[str, Outcome]:
        """Return by job id what became of those jobs that were taken in by whatever has, or had, the name."""
        return self._taken_before(name, None, job_ids)

    def write(self, name: str, writes: Sequence[Write]) -> list[Outcome]:
        """Apply jobs to a collection in their order, those that are new in one version; a bad one fails alone.

        Returns:
            What became of each, in the order of the jobs; the error of a refused one stands in its outcome.

        Raises:
            CollectionNotFound: no collection has this name, and not all of the jobs were taken in before.
            StoreUnavailable, IndexCorrupt: as `Committer.commit_all`.
        """
        holder = self._names.resolve(name)
        # Read after: what made the name free may have come after these very jobs, run by another worker.
        taken = self._taken_before(name, holder, [write.job_id for write in writes])
        left = [write for write in writes if write.job_id not in taken]
        if left and holder is None:
            raise _no_collection(name)
        if left and holder is not None:
            outcomes = self._committer.commit_all(holder.collection_id, left)
            taken |= {write.job_id: outcome for write, outcome in zip(left, outcomes, strict=True)}
        return [taken[write.job_id] for write in writes]

    def list(self) -> list[str]:
        """The names of all collections, sorted."""
        return [manifest.name for manifest in self._names.collections()]

    def collection_id(self, name: str) -> str:
        """Return the id of the collection that has this name.

        Raises:
            CollectionNotFound: no collection has it.
        """
        holder = self._names.resolve(name)
        if holder is None:
            raise _no_collection(name)
        return holder.collection_id

    def every_id(self) -> set[str]:
        """The ids of all collections, the dropped ones too."""
        return self._names.every_id()

    def snapshot(self, name: str) -> Snapshot:
        """Read the newest version of a collection whole; it has every commit that was made before the call.

        Raises:
            CollectionNotFound: no collection has this name.
            IndexCorrupt: a manifest or page is missing or fails its digest.
        """
        snapshot = self._read_newest(name)
        self._on_snapshot(snapshot)
        return snapshot

    def _read_newest(self, name: str) -> Snapshot:
        known = self._ids.get(name)
        snapshot = self._live(known, name) if known is not None else None
        if snapshot is not None:
            return snapshot
        holder = self._names.resolve(name)
        snapshot = self._live(holder.collection_id, name, holder) if holder is not None else None
        if snapshot is None:
            raise _no_collection(name)
        self._ids.put(name, snapshot.manifest.collection_id)
        return snapshot

    def version(self, newest: Manifest, version: int) -> Snapshot:
        """Read a version of a collection whole, given its newest.

        Raises:
            VersionExpired: the version has been removed, or never was.
            IndexCorrupt: a page is missing or fails its digest, which a version that is being removed may do too.
        """
        return self._heads.open(self._heads.manifest(newest.collection_id, version))

    def _live(self, collection_id: str, name: str, head: Manifest | None = None) -> Snapshot | None:
        snapshot = self._heads.snapshot(collection_id, head)
        if snapshot is None or snapshot.manifest.state != "live" or snapshot.manifest.name != name:
            return None
        return snapshot

    def _commit(self, name: str, intent: Intent, *, job_id: str) -> Outcome:
        [outcome] = self.write(name, [Write(job_id=job_id, intent=intent)])
        if outcome.error is not None:
            raise outcome.error
        return outcome

    def _taken_before(self, name: str, holder: Manifest | None, job_ids: Sequence[str]) -> dict[str, Outcome]:
        """Return by job id what became of jobs that a collection took in which had the name before."""
        taken: dict[str, Outcome] = {}
        for collection_id in self._names.holders(name):
            if holder is None or collection_id != holder.collection_id:
                taken |= self._committer.taken(collection_id, job_ids)
        return taken


def _no_collection(name: str) -> CollectionNotFound:
    return CollectionNotFound(f"no collection {name!r}", field="collection")


def _check_field(field: VectorField) -> VectorField:
    if not 1 <= field.dim <= MAX_DIM:
        raise InvalidArgument(f"dim of field {field.name!r} must be 1 to {MAX_DIM}, got {field.dim}", field="dim")
    if field.metric not in METRICS:
        raise InvalidArgument(
            f"metric of field {field.name!r} must be one of {', '.join(METRICS)}, got {field.metric!r}", field="metric"
        )
    params = index_kind(field.index.kind).check_build_params(field.index.params, field.dim)
    return msgspec.structs.replace(field, index=IndexSpec(kind=field.index.kind, params=params))
