"""What a job may do to a collection, as functions that change a draft of the version after the one `commit` finds.

Each function makes the intent of one job; the intent returns the counts that the job is answered with, or raises a
StoreError where the version forbids the job, before it has changed anything. It may run several times, each time on the
draft of a newer base.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence

import msgspec

from nearmq_index_store.draft import Draft
from nearmq_index_store.errors import AlreadyExists, CollectionNotFound, InvalidArgument, PartitionNotFound
from nearmq_index_store.given_rows import GivenRows, key_array
from nearmq_index_store.manifest import DEFAULT_PARTITION, MAX_PARTITIONS, Manifest
from nearmq_index_store.pages import Segments
from nearmq_index_store.schema import ScalarField, check_fields, check_name
from nearmq_index_store.search import read_expr

#: What a job did, as its answer counts it.
Counts = dict[str, int]

Intent = Callable[[Draft], Counts]


def upsert(rows: GivenRows, partition: str = DEFAULT_PARTITION) -> Intent:
    """Add rows, each in the place of the row of its key, which may be in another partition."""

    def intent(draft: Draft) -> Counts:
        _check_partition(draft.manifest, partition)
        batch = rows.fit(draft.manifest.schema)
        replaced = _delete_keys(draft, rows.ids)
        draft.rows.put(batch, partition, rows)
        return {"inserted": len(rows.ids) - replaced, "replaced": replaced}

    return intent


def insert(rows: GivenRows, partition: str = DEFAULT_PARTITION) -> Intent:
    """Add rows whose keys no row has."""

    def intent(draft: Draft) -> Counts:
        _check_partition(draft.manifest, partition)
        batch = rows.fit(draft.manifest.schema)
        taken = draft.rows.has_any(rows.ids) | draft.locate(batch.ids).keys()
        if taken:
            row = next(row for row, key in enumerate(rows.ids) if key in taken)
            name, key = draft.manifest.name, rows.ids[row]
            raise AlreadyExists(f"ids[{row}] is {key!r:.200}, which collection {name!r} has already", field="ids")
        draft.rows.put(batch, partition, rows)
        return {"inserted": len(rows.ids)}

    return intent


def delete(ids: Sequence[int | str], partition: str | None = None) -> Intent:
    """Delete the rows of some keys, in a partition or in all; keys that no row has are passed over."""

    def intent(draft: Draft) -> Counts:
        if partition is not None:
            _check_partition(draft.manifest, partition)
        return {"deleted": _delete_keys(draft, ids, partition)}

    return intent


def delete_where(expr: str, values: Mapping[str, object], partition: str | None = None) -> Intent:
    """Delete the rows that an expression allows, in a partition or in all."""

    def intent(draft: Draft) -> Counts:
        if partition is not None:
            _check_partition(draft.manifest, partition)
        schema = draft.manifest.schema
        condition = read_expr(schema, expr, values)
        allowed = {}
        for entry in draft.segments().values():
            if partition in {None, entry.partition}:
                with draft.use_rows(entry) as rows:
                    mask = condition.mask(rows.filtered_column, len(rows))
                allowed[entry.id] = (mask & ~draft.deleted(entry).mask(entry.rows)).nonzero()[0].tolist()
        for segment_id, numbers in allowed.items():
            draft.delete(segment_id, numbers)
        return {"deleted": sum(map(len, allowed.values())) + draft.rows.delete_where(condition, partition)}

    return intent


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

    def intent(draft: Draft) -> Counts:
        manifest = draft.manifest
        for partition in sorted(wanted - set(manifest.partitions)):
            if not create_partitions:
                raise no_partition(manifest, partition)
            manifest = _with_partition(manifest, partition)
        if check_keys is not None:
            check_keys(tuple(draft.segments().values()))
        draft.manifest = manifest
        draft.add(segments)
        return {"rows": sum(segment.rows for segment in segments)}

    return intent


def add_fields(fields: Sequence[ScalarField]) -> Intent:
    """Add nullable scalar fields, in which the rows that are there have null."""

    def intent(draft: Draft) -> Counts:
        for field in fields:
            if not field.nullable:
                raise InvalidArgument(
                    f"field {field.name!r} must be nullable, since the rows that are there have no value in it",
                    field="scalar_fields",
                )
        schema = draft.manifest.schema
        taken = sorted({field.name for field in fields}.intersection(schema.field_names()))
        if taken:
            raise AlreadyExists(
                f"collection {draft.manifest.name!r} has a field {taken[0]!r} already", field="scalar_fields"
            )
        schema = msgspec.structs.replace(schema, scalar_fields=(*schema.scalar_fields, *fields))
        check_fields(schema)
        draft.manifest = msgspec.structs.replace(draft.manifest, schema=schema)
        return {}

    return intent


def create_partition(partition: str) -> Intent:
    """Add an empty partition."""
    check_name("partition", partition)

    def intent(draft: Draft) -> Counts:
        if partition in draft.manifest.partitions:
            raise AlreadyExists(
                f"collection {draft.manifest.name!r} has a partition {partition!r} already", field="partition_name"
            )
        draft.manifest = _with_partition(draft.manifest, partition)
        return {}

    return intent


def drop_partition(partition: str) -> Intent:
    """Remove a partition and its rows; the default one stays."""
    if partition == DEFAULT_PARTITION:
        raise InvalidArgument(f"partition {DEFAULT_PARTITION!r} cannot be dropped", field="partition_name")

    def intent(draft: Draft) -> Counts:
        manifest = draft.manifest
        _check_partition(manifest, partition)
        dropped = [entry for entry in draft.segments().values() if entry.partition == partition]
        rows = sum(entry.rows - len(draft.deleted(entry)) for entry in dropped)
        draft.remove([entry.id for entry in dropped])
        draft.manifest = msgspec.structs.replace(
            manifest, partitions=tuple(name for name in manifest.partitions if name != partition)
        )
        return {"rows": rows + draft.rows.drop_partition(partition)}

    return intent


def rename(name: str, new_name: str) -> Intent:
    """Give the collection that is called `name` a new name."""

    def intent(draft: Draft) -> Counts:
        _check_is_called(draft.manifest, name)
        draft.manifest = msgspec.structs.replace(draft.manifest, name=new_name)
        return {}

    return intent


def drop(name: str) -> Intent:
    """End the collection that is called `name`."""

    def intent(draft: Draft) -> Counts:
        _check_is_called(draft.manifest, name)
        draft.manifest = msgspec.structs.replace(draft.manifest, state="dropped")
        return {}

    return intent


def no_partition(manifest: Manifest, partition: str) -> PartitionNotFound:
    """The error of a partition that is not there, with the nearest that is."""
    nearest = difflib.get_close_matches(partition, manifest.partitions, n=1)
    hint = f", did you mean {nearest[0]!r}" if nearest else ""
    return PartitionNotFound(
        f"collection {manifest.name!r} has no partition {partition!r}{hint}", field="partition_name"
    )


def _delete_keys(draft: Draft, ids: Sequence[int | str], partition: str | None = None) -> int:
    """Delete the rows of some keys, and return how many there were; a key has one row at the most."""
    places = list(draft.locate(key_array(ids, draft.manifest.schema.primary_key)).values())
    if partition is not None:
        places = [place for place in places if draft.segments()[place.segment].partition == partition]
    for place in places:
        draft.delete(place.segment, (place.row,))
    return len(places) + draft.rows.delete(ids, partition)


def _check_partition(manifest: Manifest, partition: str) -> None:
    if partition not in manifest.partitions:
        raise no_partition(manifest, partition)


def _check_is_called(manifest: Manifest, name: str) -> None:
    if manifest.name != name:
        raise CollectionNotFound(f"collection {name!r} is called {manifest.name!r} now", field="collection")


def _with_partition(manifest: Manifest, partition: str) -> Manifest:
    if len(manifest.partitions) == MAX_PARTITIONS:
        raise InvalidArgument(
            f"collection {manifest.name!r} has {MAX_PARTITIONS} partitions, the most it may", field="partition_name"
        )
    return msgspec.structs.replace(manifest, partitions=tuple(sorted([*manifest.partitions, partition])))
