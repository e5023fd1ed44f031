"""The collections of a store: all that a worker or the command line asks of them, by name."""

from collections.abc import Callable, Sequence

from nearmq_index_store import intents
from nearmq_index_store.blobs.protocol import BlobStore
from nearmq_index_store.commit import Intent, commit
from nearmq_index_store.errors import CollectionNotFound
from nearmq_index_store.head import Heads
from nearmq_index_store.manifest import Manifest, SegmentEntry, Snapshot
from nearmq_index_store.names import Names
from nearmq_index_store.pages import Segments
from nearmq_index_store.recent import Recent
from nearmq_index_store.schema import Schema

NAMES_KEPT = 1_024


class Catalog:
    """The collections of one store; may be used by any number of threads.

    Every write takes the id of its job: the same id again gives what the first gave, whatever happened since. Every
    method may raise StoreUnavailable, after which the outcome of a write is unknown until its job is tried again.
    """

    def __init__(self, store: BlobStore) -> None:
        self._heads = Heads(store)
        self._names = Names(self._heads)
        self._ids: Recent[str, str] = Recent(NAMES_KEPT)

    def create(self, name: str, schema: Schema, *, job_id: str) -> Manifest:
        """Make an empty collection and return its first version.

        Raises:
            AlreadyExists: a collection has this name.
            InvalidArgument: the schema is not one.
        """
        return self._names.create(name, schema, job_id=job_id)

    def drop(self, name: str, *, job_id: str) -> Manifest:
        """End a collection and return its last version, which is `dropped`.

        Raises:
            CollectionNotFound: no collection has this name.
        """
        return self._names.drop(name, job_id=job_id)

    def rename(self, name: str, new_name: str, *, job_id: str) -> Manifest:
        """Give a collection another name and return the version that has it first.

        Raises:
            CollectionNotFound: no collection has the old name.
            AlreadyExists: a collection has the new name.
        """
        return self._names.rename(name, new_name, job_id=job_id)

    def create_partition(self, name: str, partition: str, *, job_id: str) -> Manifest:
        """Add an empty partition.

        Raises:
            CollectionNotFound: no collection has this name.
            AlreadyExists: it has the partition.
        """
        return self._commit(name, intents.create_partition(partition), job_id=job_id)

    def drop_partition(self, name: str, partition: str, *, job_id: str) -> Manifest:
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
    ) -> Manifest:
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
        return commit(self._heads, collection_id, intent, job_id=job_id)

    def list(self) -> list[str]:
        """The names of all collections, sorted."""
        return [manifest.name for manifest in self._names.collections()]

    def snapshot(self, name: str) -> Snapshot:
        """Read the newest version of a collection whole; it has every commit that was made before the call.

        Raises:
            CollectionNotFound: no collection has this name.
            IndexCorrupt: a manifest or page is missing or fails its digest.
        """
        known = self._ids.get(name)
        snapshot = self._live(known, name) if known is not None else None
        if snapshot is None:
            collection_id = self._names.resolve(name).collection_id
            snapshot = self._live(collection_id, name)
            self._ids.put(name, collection_id)
        if snapshot is None:
            raise CollectionNotFound(f"no collection {name!r}", field="collection")
        return snapshot

    def _live(self, collection_id: str, name: str) -> Snapshot | None:
        snapshot = self._heads.snapshot(collection_id)
        if snapshot is None or snapshot.manifest.state != "live" or snapshot.manifest.name != name:
            return None
        return snapshot

    def _commit(self, name: str, intent: Intent, *, job_id: str) -> Manifest:
        """Commit to the collection that has the name, unless the job was taken in by one that had it before."""
        for collection_id in self._names.holders(name):
            head = self._heads.head(collection_id)
            if head is not None and head.ledger.find(job_id) is not None:
                return commit(self._heads, collection_id, intent, job_id=job_id)
        collection_id = self._names.resolve(name).collection_id
        return commit(self._heads, collection_id, intent, job_id=job_id)
