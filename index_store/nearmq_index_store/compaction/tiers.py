"""What is due in one partition, by the sizes of its segments.

A segment is full from a third of `segment_bytes` on, and left alone unless it lost a fifth of its rows or
has no index yet. The small segments of a partition are merged, smallest first and as many as fit, when there are
`min_inputs` of them, or when those without an index have become slow to scan. An input that has an index is merged only
where the result is 1 + 1 / ratio times as large as it, or full. So with ratio 0.5 a row's segment triples with every
rewrite but the last. Simulated with commits of 1.5 MB into segments of 256 MiB: compaction writes a row 2.3 times, and
a partition has 5.5 small segments on average, 11 at most; with commits of 150 KB 3.7 times, 7.5 and 15.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

from ulid import ULID

from nearmq_index_store.compaction.limits import CompactionLimits
from nearmq_index_store.manifest import SegmentEntry
from nearmq_index_store.schema import Schema
from nearmq_index_store.sources.protocol import row_bytes

#: Why a step is due: small segments to merge, an index to build, a fifth deleted. In the order in which steps come.
Reason = Literal["small", "unindexed", "deleted"]

#: Arrow's offsets into the texts of a column have 32 bits.
MOST_OTHER_BYTES = 1 << 30

#: Of `segment_bytes`: three segments below it always fit into one.
_FULL = 1 / 3

#: Of `segment_bytes`, vectors without an index beside which a partition does not rest: 16 MiB, some 3 ms to scan.
_SLOW_TO_SCAN = 1 / 16

#: Of `segment_bytes`, the least of deleted vectors for which a small segment is rewritten: 1 MiB. So a few rows that
#: are upserted over and over do not make a compaction of every other commit.
_WORTH_DROPPING = 1 / 256

#: A partition is at leisure when it had no new segment for ten seconds, and for one a megabyte that a step would write:
#: so what is written now and then costs a third of a core at the most.
_LEISURE_S = 10.0
_LEISURE_BYTES_A_S = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Segments of one partition, to put one in the place of with their live rows."""

    reason: Reason
    partition: str
    inputs: tuple[SegmentEntry, ...]

    @property
    def rows(self) -> int:
        """The live rows."""
        return sum(entry.live_rows for entry in self.inputs)


@dataclass(frozen=True, slots=True)
class Sized:
    """A segment with what decides about it.

    Attributes:
        fill: its live rows' share of what a segment may hold, of vectors or of other columns, whichever is more.
        dead: the same of its deleted rows.
        is_unindexed: a field's declared index was not tried to be built yet.
    """

    entry: SegmentEntry
    fill: float
    dead: float
    is_unindexed: bool

    @property
    def is_small(self) -> bool:
        """Whether it is to be merged with others."""
        return self.fill < _FULL

    def has_lost(self, share: float) -> bool:
        """Whether so many of its rows are deleted."""
        return self.entry.rows - self.entry.live_rows >= share * self.entry.rows


class Partition:
    """The segments of one partition, smallest first."""

    def __init__(self, name: str, sized: Iterable[Sized], limits: CompactionLimits) -> None:
        self._name = name
        self._limits = limits
        in_order = sorted(sized, key=lambda each: (each.fill, each.entry.id))
        self._small = [each for each in in_order if each.is_small]
        self._full = [each for each in in_order if not each.is_small]

    def step(self) -> Step | None:
        """The step that is due now."""
        merged = self._tier()
        if merged:
            return self._step_of("small", merged)
        due = self._due(self._full) or self._due(self._worth_dropping())
        return None if due is None else self._rewrite(due)

    def forced_step(self) -> Step | None:
        """The next of the steps that leave one small segment at the most, and every index built."""
        fitting = _fitting(self._small, 1)
        if len(fitting) > 1:
            return self._step_of("small", fitting)
        due = self._due([*self._full, *self._small])
        return None if due is None else self._rewrite(due)

    def leisure_at(self) -> float:
        """When it is at leisure if no segment comes, in seconds since 1970; infinite without anything to do."""
        forced = self.forced()
        if not forced:
            return inf
        newest_s = max(ULID.from_str(each.entry.id).timestamp for each in [*self._small, *self._full])
        forced_bytes = sum(each.fill for each in forced) * self._limits.segment_bytes
        return newest_s + max(_LEISURE_S, forced_bytes / _LEISURE_BYTES_A_S)

    def is_at_leisure(self, now_s: float | None) -> bool:
        """Whether it has been for so long without a new segment that it may be forced."""
        return now_s is not None and now_s >= self.leisure_at()

    def waiting(self) -> list[Sized]:
        """The segments that steps are due for."""
        small = self._small if self._tier() else self._worth_dropping()
        return [*small, *(each for each in self._full if self._due([each]))]

    def forced(self) -> list[Sized]:
        """The segments that forced steps are due for."""
        small, rest = (self._small, self._full) if len(self._small) > 1 else ([], [*self._full, *self._small])
        return [*small, *(each for each in rest if self._due([each]))]

    def _tier(self) -> list[Sized]:
        """The small segments to merge now, none when there are too few."""
        fitting = _fitting(self._small, 1)
        if len(fitting) < len(self._small):
            return fitting
        merged, total, unindexed = 0, 0.0, 0.0
        for count, each in enumerate(fitting, 1):
            unindexed += each.fill if each.is_unindexed else 0
            is_enough = count >= self._limits.min_inputs or unindexed >= _SLOW_TO_SCAN
            if is_enough and (each.is_unindexed or each.fill <= self._limits.ratio * total):
                merged = count
            total += each.fill
        return fitting[:merged]

    def _worth_dropping(self) -> list[Sized]:
        """The small segments with many deleted rows."""
        share = self._limits.deleted_share
        return [each for each in self._small if each.dead >= _WORTH_DROPPING and each.has_lost(share)]

    def _due(self, among: Sequence[Sized]) -> Sized | None:
        """The first that has no index yet or lost many rows."""
        unindexed = (each for each in among if each.is_unindexed)
        return next(unindexed, None) or next(
            (each for each in among if each.has_lost(self._limits.deleted_share)), None
        )

    def _rewrite(self, due: Sized) -> Step:
        """Rewrite a segment, with the smaller ones that fit beside it: they are spared a merge of their own."""
        smaller = [each for each in self._small if each.fill <= due.fill and each is not due]
        inputs = [*_fitting(smaller, 1 - due.fill), due]
        return self._step_of("unindexed" if due.is_unindexed else "deleted", inputs)

    def _step_of(self, reason: Reason, inputs: Iterable[Sized]) -> Step:
        entries = sorted((each.entry for each in inputs), key=lambda entry: entry.id)
        return Step(reason=reason, partition=self._name, inputs=tuple(entries))


def sized(entry: SegmentEntry, schema: Schema, limits: CompactionLimits) -> Sized:
    """Measure a segment."""
    vector_bytes = row_bytes(schema) * entry.rows
    other_bytes = max(0, entry.rows_blob.bytes - vector_bytes)
    most_other_bytes = min(limits.segment_bytes, MOST_OTHER_BYTES)
    whole = max(vector_bytes / limits.segment_bytes, other_bytes / most_other_bytes)
    dead = whole * (entry.rows - entry.live_rows) / entry.rows
    return Sized(entry, whole * entry.live_rows / entry.rows, dead, _is_unindexed(entry, schema))


def _is_unindexed(entry: SegmentEntry, schema: Schema) -> bool:
    indexes = ((entry.indexes[field.name], field.index.kind) for field in schema.vector_fields)
    return any(index.kind != declared and not index.unbuildable for index, declared in indexes)


def _fitting(sized: Sequence[Sized], room: float) -> list[Sized]:
    """The first, so many as fit."""
    fitting: list[Sized] = []
    for each in sized:
        room -= each.fill
        if room < 0:
            break
        fitting.append(each)
    return fitting
