"""The commit of a step: one segment in the place of several, as an intent."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from nearmq_index_store.compaction.tiers import Step
from nearmq_index_store.deletes import DeletedRows
from nearmq_index_store.draft import Draft, Readers
from nearmq_index_store.errors import IndexCorrupt
from nearmq_index_store.intents import Counts, Intent
from nearmq_index_store.keys import read_keys
from nearmq_index_store.manifest import SegmentEntry


class InputsGone(Exception):
    """A segment that was merged is not in the newest version any more; not a StoreError, so no version records it."""


def replace(readers: Readers, step: Step, deleted: Mapping[str, DeletedRows], output: SegmentEntry) -> Intent:
    """Put the output in the place of a step's inputs.

    What was deleted from the inputs since is deleted from the output, found by its keys: the output's rows may be in
    another order.

    Args:
        deleted: by segment id, the rows of the inputs that the output was made without.
        output: the stored segment.

    Raises:
        InputsGone: by the intent, when the draft does not have an input.
    """

    def intent(draft: Draft) -> Counts:
        if any(entry.id not in draft.segments() for entry in step.inputs):
            raise InputsGone
        carried = _deleted_since(readers, draft, step, deleted)
        rows = _rows_of(readers, draft, output, carried)
        draft.remove([entry.id for entry in step.inputs])
        draft.add([output])
        draft.delete(output.id, rows)
        return {
            "segments_before": len(step.inputs),
            "segments_after": 1,
            "rows": output.rows - len(rows),
            "dropped": sum(map(len, deleted.values())),
        }

    return intent


def _deleted_since(readers: Readers, draft: Draft, step: Step, deleted: Mapping[str, DeletedRows]) -> pa.Array:
    """Return the keys of the rows of the inputs that were live when they were read and are not now."""
    primary_key = draft.base.schema.primary_key
    parts = []
    for entry in step.inputs:
        now = draft.deleted(draft.segments()[entry.id])
        if now != deleted[entry.id]:
            keys, rows = read_keys(readers.heads.store, entry, primary_key)
            since = np.setdiff1d(now.numbers(), deleted[entry.id].numbers(), assume_unique=True)
            parts.append(keys.filter(pa.array(np.isin(rows, since))))
    return pa.concat_arrays(parts) if parts else pa.array([], pa.int64() if primary_key == "int64" else pa.string())


def _rows_of(readers: Readers, draft: Draft, output: SegmentEntry, keys: pa.Array) -> list[int]:
    if not len(keys):
        return []
    _, rows = readers.keys.keys(output, draft.base.schema.primary_key).find(keys)
    if len(rows) != len(keys):
        raise IndexCorrupt(f"segment {output.id} has {len(rows)} of {len(keys)} keys that its inputs have")
    found: list[int] = rows.tolist()
    return found
