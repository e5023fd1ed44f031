"""The collections of a store: all that a worker or the command line asks of them, by name."""

from collections.abc import Callable, Sequence

import msgspec

from nearmq_index_store import intents
from nearmq_index_store.blobs.protocol import BlobStore
from nearmq_index_store.commit import Intent, commit
from nearmq_index_store.errors import CollectionNotFound, InvalidArgument
from nearmq_index_store.head import Heads
from nearmq_index_store.indexes import index_kind
from nearmq_index_store.manifest import Manifest, SegmentEntry, Snapshot
from nearmq_index_store.names import Names
from nearmq_index_store.pages import Segments
from nearmq_index_store.recent import Recent
from nearmq_index_store.schema import (
    ID_COLUMN,
    MAX_DIM,
    MAX_SCALAR_FIELDS,
    MAX_VECTOR_FIELDS,
    METRICS,
    SCALAR_TYPES,
    IndexSpec,
    Schema,
    VectorField,
    check_name,
)

NAMES_KEPT = 1_024


def check_schema(schema: Schema) -> Schema:
    """Return the schema of a new collection with the defaults of its indexes filled in.

    Raises:
        InvalidArgument: a name, number or parameter is unknown or out of range.
    """
    fields = schema.vector_fields
    if not 1 <= len(fields) <= MAX_VECTOR_FIELDS:
        raise InvalidArgument(
            f"a collection has 1 to {MAX_VECTOR_FIELDS} vector fields, got {len(fields)}", field="vector_fields"
        )
    scalars = schema.scalar_fields
    if len(scalars) > MAX_SCALAR_FIELDS:
        raise InvalidArgument(
            f"a collection has at most {MAX_SCALAR_FIELDS} scalar fields, got {len(scalars)}", field="scalar_fields"
        )
    names = [ID_COLUMN, *schema.field_names()]
    for place, name in enumerate(names[1:]):
        if check_name("field", name) in names[: place + 1]:
            argument = "vector_fields" if place < len(fields) else "scalar_fields"
            raise InvalidArgument(f"field name {name!r} is taken", field=argument)
    for scalar in scalars:
        if scalar.type not in SCALAR_TYPES:
            raise InvalidArgument(
                f"type of field {scalar.name!r} must be one of {', '.join(SCALAR_TYPES)}, got {scalar.type!r}",
                field="type",
            )
    return msgspec.structs.replace(schema, vector_fields=tuple(_check_field(field) for field in fields))


class Catalog:
    """The collections of one store; may be used by any number of threads.

    Every write takes the id of its job: the same id again gives what the first gave, whatever happened since. Every
    method may raise StoreUnavailable, after which the outcome of a write is unknown until its job is tried again.
    """

    def __init__(self, store: BlobStore) -> None:
        self.store = store
        self._heads = Heads(store)
        self._names = Names(self._heads)
        self._ids: Recent[str, str] = Recent(NAMES_KEPT)

    def create(self, name: str, schema: Schema, *, job_id: str) -> Manifest:
        """Make an empty collection and return its first version.

        Raises:
            AlreadyExists: a collection has this name.
            InvalidArgument: the schema is not one.
        """
        return self._names.create(name, check_schema(schema), job_id=job_id)

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
        if snapshot is not None:
            return snapshot
        holder = self._names.resolve(name)
        snapshot = self._live(holder.collection_id, name) if holder is not None else None
        if snapshot is None:
            raise _no_collection(name)
        self._ids.put(name, snapshot.manifest.collection_id)
        return snapshot

    def _live(self, collection_id: str, name: str) -> Snapshot | None:
        snapshot = self._heads.snapshot(collection_id)
        if snapshot is None or snapshot.manifest.state != "live" or snapshot.manifest.name != name:
            return None
        return snapshot

    def _commit(self, name: str, intent: Intent, *, job_id: str) -> Manifest:
        """Commit to the collection that has the name, unless the job was taken in by one that had it before."""
        holder = self._names.resolve(name)
        # Read after: what made the name free may have come after this very job, run by another worker.
        for collection_id in self._names.holders(name):
            head = self._heads.head(collection_id)
            if head is not None and head.ledger.find(job_id) is not None:
                return commit(self._heads, collection_id, intent, job_id=job_id)
        if holder is None:
            raise _no_collection(name)
        return commit(self._heads, holder.collection_id, intent, job_id=job_id)


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
