"""What to compact next, and how much waits, as pure functions of the segments that a version names."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import inf
from typing import get_args

from nearmq_index_store.compaction.limits import CompactionLimits
from nearmq_index_store.compaction.tiers import Partition, Reason, Sized, Step, sized
from nearmq_index_store.manifest import SegmentEntry
from nearmq_index_store.schema import Schema
from nearmq_index_store.sources.protocol import row_bytes

_ORDER: tuple[Reason, ...] = get_args(Reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Debt:
    """What waits for compaction; partitions at rest, with their few small segments, count nothing.

    Attributes:
        segments: that wait to be merged or rewritten.
        unindexed_rows, unindexed_bytes: of those, the live rows that have no index yet, and their vectors' bytes.
        ratio: to what may wait; above 1, writes should slow down.
    """

    segments: int
    unindexed_rows: int
    unindexed_bytes: int
    ratio: float


def plan_compaction(
    segments: Iterable[SegmentEntry],
    schema: Schema,
    limits: CompactionLimits,
    *,
    partition_names: Collection[str] | None = None,
    force: bool = False,
    now_s: float | None = None,
) -> Step | None:
    """Choose the next step; None when nothing is due. As long as nobody writes, there is an end of steps.

    Args:
        segments: of a version; each has a live row, since a commit removes those that it leaves without.
        partition_names: the partitions to look at; None is all.
        force: until every index is built, and no two small segments of a partition are left that fit into one.
        now_s: in seconds since 1970; the partitions at leisure then are forced too. None for no partition.
    """
    due = [
        step
        for part in _partitions(segments, schema, limits, partition_names)
        for step in (part.forced_step() if force or part.is_at_leisure(now_s) else part.step(),)
        if step is not None
    ]
    return min(due, key=lambda step: (_ORDER.index(step.reason), -len(step.inputs)), default=None)


def leisure_at(segments: Iterable[SegmentEntry], schema: Schema, limits: CompactionLimits) -> float | None:
    """Return when a step falls due at leisure if nothing is written, in seconds since 1970; None for never."""
    first = min((part.leisure_at() for part in _partitions(segments, schema, limits, None)), default=inf)
    return None if first == inf else first


def rows_due(segments: Iterable[SegmentEntry], schema: Schema, limits: CompactionLimits, *, force: bool = False) -> int:
    """Return the rows of the segments that steps are due for now."""
    parts = _partitions(segments, schema, limits, None)
    return sum(each.entry.live_rows for part in parts for each in (part.forced() if force else part.waiting()))


def debt(segments: Iterable[SegmentEntry], schema: Schema, limits: CompactionLimits) -> Debt:
    """Return what waits for compaction."""
    waiting = [each for part in _partitions(segments, schema, limits, None) for each in part.waiting()]
    unindexed_rows = sum(each.entry.live_rows for each in waiting if each.is_unindexed)
    unindexed_bytes = unindexed_rows * row_bytes(schema)
    return Debt(
        segments=len(waiting),
        unindexed_rows=unindexed_rows,
        unindexed_bytes=unindexed_bytes,
        ratio=max(unindexed_bytes / limits.waiting_bytes, len(waiting) / limits.waiting_segments),
    )


def _partitions(
    segments: Iterable[SegmentEntry], schema: Schema, limits: CompactionLimits, names: Collection[str] | None
) -> list[Partition]:
    by_name: dict[str, list[Sized]] = defaultdict(list)
    for entry in segments:
        if names is None or entry.partition in names:
            by_name[entry.partition].append(sized(entry, schema, limits))
    return [Partition(name, entries, limits) for name, entries in sorted(by_name.items())]
