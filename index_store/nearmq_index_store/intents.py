"""What a job may do to a collection, as pure functions of the version that `commit` finds newest.

Each function makes the intent of one job; the intent raises a StoreError where the version forbids the job.
"""

import difflib
from collections.abc import Callable

import msgspec

from nearmq_index_store.commit import Base, Change, Intent
from nearmq_index_store.errors import AlreadyExists, CollectionNotFound, InvalidArgument, PartitionNotFound
from nearmq_index_store.manifest import DEFAULT_PARTITION, MAX_PARTITIONS, Manifest
from nearmq_index_store.pages import Segments
from nearmq_index_store.schema import check_name


def append(
    segments: Segments, *, check_keys: Callable[[Segments], None] | None = None, create_partitions: bool = False
) -> Intent:
    """Add segments, each to its partition.

    Args:
        check_keys: given the segments of the base, raises AlreadyExists where one has a key of the new rows; left out
            when the caller knows that none has.
        create_partitions: make the partitions that are missing instead of refusing.
    """
    wanted = {segment.partition for segment in segments}

    def intent(base: Base) -> Change:
        manifest = base.manifest
        for partition in sorted(wanted - set(manifest.partitions)):
            if not create_partitions:
                raise no_partition(manifest, partition)
            manifest = _with_partition(manifest, partition)
        if check_keys is not None:
            check_keys(base.segments())
        rows = sum(segment.rows for segment in segments)
        return Change(manifest=manifest, segments=(*base.segments(), *segments), counts={"rows": rows})

    return intent


def create_partition(partition: str) -> Intent:
    """Add an empty partition."""
    check_name("partition", partition)

    def intent(base: Base) -> Change:
        if partition in base.manifest.partitions:
            raise AlreadyExists(
                f"collection {base.manifest.name!r} has a partition {partition!r} already", field="partition_name"
            )
        return Change(manifest=_with_partition(base.manifest, partition))

    return intent


def drop_partition(partition: str) -> Intent:
    """Remove a partition and its rows; the default one stays."""
    if partition == DEFAULT_PARTITION:
        raise InvalidArgument(f"partition {DEFAULT_PARTITION!r} cannot be dropped", field="partition_name")

    def intent(base: Base) -> Change:
        manifest = base.manifest
        if partition not in manifest.partitions:
            raise no_partition(manifest, partition)
        segments = base.segments()
        rows = sum(segment.rows for segment in segments if segment.partition == partition)
        return Change(
            manifest=msgspec.structs.replace(
                manifest, partitions=tuple(name for name in manifest.partitions if name != partition)
            ),
            segments=tuple(segment for segment in segments if segment.partition != partition),
            counts={"rows": rows},
        )

    return intent


def rename(name: str, new_name: str) -> Intent:
    """Give the collection that is called `name` a new name."""

    def intent(base: Base) -> Change:
        _check_is_called(base, name)
        return Change(manifest=msgspec.structs.replace(base.manifest, name=new_name))

    return intent


def drop(name: str) -> Intent:
    """End the collection that is called `name`."""

    def intent(base: Base) -> Change:
        _check_is_called(base, name)
        return Change(manifest=msgspec.structs.replace(base.manifest, state="dropped"))

    return intent


def no_partition(manifest: Manifest, partition: str) -> PartitionNotFound:
    """The error of a partition that is not there, with the nearest that is."""
    nearest = difflib.get_close_matches(partition, manifest.partitions, n=1)
    hint = f", did you mean {nearest[0]!r}" if nearest else ""
    return PartitionNotFound(
        f"collection {manifest.name!r} has no partition {partition!r}{hint}", field="partition_name"
    )


def _check_is_called(base: Base, name: str) -> None:
    if base.manifest.name != name:
        raise CollectionNotFound(f"collection {name!r} is called {base.manifest.name!r} now", field="collection")


def _with_partition(manifest: Manifest, partition: str) -> Manifest:
    if len(manifest.partitions) == MAX_PARTITIONS:
        raise InvalidArgument(
            f"collection {manifest.name!r} has {MAX_PARTITIONS} partitions, the most it may", field="partition_name"
        )
    return msgspec.structs.replace(manifest, partitions=tuple(sorted([*manifest.partitions, partition])))
