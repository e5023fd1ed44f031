"""What is compacted next: bounded steps that come to an end, of one partition each, and few segments at rest."""

from collections.abc import Sequence
from math import log

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ulid import ULID

from nearmq_index_store.compaction import CompactionLimits, Step, debt, leisure_at, plan_compaction
from nearmq_index_store.errors import InvalidArgument
from nearmq_index_store.manifest import BlobRef, Deletes, IndexEntry, KeysEntry, SegmentEntry
from nearmq_index_store.schema import IndexSpec, Schema, VectorField

FIELD = VectorField(name="vector", dim=4, metric="L2", index=IndexSpec(kind="HNSW"))
SCHEMA = Schema(vector_fields=(FIELD,))
ROW_BYTES = 16
#: Segments of up to 4,096 rows.
LIMITS = CompactionLimits(segment_bytes=4_096 * ROW_BYTES)
NOWHERE = BlobRef(key="nowhere", bytes=0, digest="")


def segment(
    rows: int, deleted: int = 0, *, indexed: bool = True, partition: str = "_default", other_bytes: int = 0
) -> SegmentEntry:
    kind = FIELD.index.kind if indexed else "FLAT"
    return SegmentEntry(
        id=str(ULID()),
        partition=partition,
        rows=rows,
        rows_blob=msgspec.structs.replace(NOWHERE, bytes=rows * ROW_BYTES + other_bytes),
        keys=KeysEntry(blob=NOWHERE, min=0, max=0),
        indexes={FIELD.name: IndexEntry(kind=kind, params={}, blob=None, memory_bytes=0)},
        deletes=Deletes(rows=deleted, blob=NOWHERE, start=0, bytes=0) if deleted else None,
    )


def done(segments: Sequence[SegmentEntry], step: Step) -> list[SegmentEntry]:
    """The segments after a step."""
    left = [entry for entry in segments if entry not in step.inputs]
    assert len(left) == len(segments) - len(step.inputs)
    return [*left, segment(step.rows, partition=step.partition)]


def at_rest(segments: Sequence[SegmentEntry], *, force: bool = False) -> tuple[list[SegmentEntry], list[Step]]:
    """What is left when no step is due any more, and the steps."""
    steps = []
    while (step := plan_compaction(segments, SCHEMA, LIMITS, force=force)) is not None:
        steps.append(step)
        segments = done(segments, step)
        assert len(steps) < 1_000
    return list(segments), steps


SEGMENTS = st.lists(
    st.builds(
        lambda rows, share, indexed, partition: segment(rows, int(rows * share), indexed=indexed, partition=partition),
        st.one_of(st.integers(1, 64), st.integers(1, 6_000)),
        st.sampled_from([0.0, 0.0, 0.1, 0.2, 0.6, 0.999]),
        st.booleans(),
        st.sampled_from(["_default", "2024"]),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(SEGMENTS, st.booleans())
def test_every_step_is_of_one_partition_fits_into_a_segment_and_brings_the_end_nearer(
    segments: list[SegmentEntry], force: bool
):
    most = max([4_096, *(entry.live_rows for entry in segments)])
    while (step := plan_compaction(segments, SCHEMA, LIMITS, force=force)) is not None:
        before = segments
        segments = done(segments, step)
        assert {entry.partition for entry in step.inputs} == {step.partition}
        assert 1 <= step.rows <= most
        assert sum(entry.live_rows for entry in segments) == sum(entry.live_rows for entry in before)
        assert work_left(segments) < work_left(before)
        if not force:
            assert debt(segments, SCHEMA, LIMITS).unindexed_bytes <= debt(before, SCHEMA, LIMITS).unindexed_bytes
            assert debt(segments, SCHEMA, LIMITS).segments < debt(before, SCHEMA, LIMITS).segments
    assert force or debt(segments, SCHEMA, LIMITS).ratio == 0


def work_left(segments: Sequence[SegmentEntry]) -> tuple[int, int]:
    unindexed = sum(entry.indexes[FIELD.name].kind == "FLAT" for entry in segments)
    return len(segments) + unindexed, sum(entry.rows - entry.live_rows for entry in segments)


@settings(max_examples=300)
@given(SEGMENTS)
def test_at_rest_a_partition_has_few_small_segments_and_little_without_an_index(segments: list[SegmentEntry]):
    for entries in by_partition(at_rest(segments)[0]).values():
        rows = sorted(entry.live_rows for entry in entries if entry.live_rows < 4_096 / 3)
        unindexed = [entry for entry in entries if entry.indexes[FIELD.name].kind == "FLAT"]
        assert len(rows) <= 8 + 2 * log(4_096, 3)
        assert len(unindexed) < 8
        assert sum(entry.live_rows for entry in unindexed) < 4_096 / 16


@settings(max_examples=300)
@given(SEGMENTS)
def test_forced_to_the_end_every_index_is_built_and_a_partition_has_one_small_segment_at_most(
    segments: list[SegmentEntry],
):
    for entries in by_partition(at_rest(segments, force=True)[0]).values():
        assert all(entry.indexes[FIELD.name].kind == "HNSW" for entry in entries)
        assert sum(entry.live_rows < 4_096 / 3 for entry in entries) <= 1
        assert all(entry.rows - entry.live_rows < 0.2 * entry.rows for entry in entries)


def by_partition(segments: Sequence[SegmentEntry]) -> dict[str, list[SegmentEntry]]:
    names = {entry.partition for entry in segments}
    return {name: [entry for entry in segments if entry.partition == name] for name in names}


@pytest.mark.parametrize("commits", [1, 7, 64, 333])
def test_rows_that_come_in_small_commits_are_written_a_few_times_and_leave_few_segments(commits: int):
    rows, written, segments = 4_096 * 8, 0, []
    for _ in range(rows // commits):
        segments.append(segment(commits, indexed=False))
        while (step := plan_compaction(segments, SCHEMA, LIMITS)) is not None:
            segments = done(segments, step)
            written += step.rows
        assert sum(entry.rows < 4_096 / 3 for entry in segments) <= 8 + 2 * log(4_096 / commits, 3)
    assert written / rows <= 1 + log(4_096 / commits, 3)
    assert 8 <= len(segments) <= 3 * 8 + 8 + 2 * log(4_096 / commits, 3)


def test_what_is_left_of_a_partition_is_merged_and_indexed_ten_seconds_after_its_newest_segment():
    segments = [segment(10, indexed=False), segment(100)]
    made_s = ULID.from_str(segments[1].id).timestamp
    assert leisure_at(segments, SCHEMA, LIMITS) == made_s + 10
    assert plan_compaction(segments, SCHEMA, LIMITS, now_s=made_s + 9.9) is None
    step = plan_compaction(segments, SCHEMA, LIMITS, now_s=made_s + 10)
    assert step is not None
    assert len(step.inputs) == 2
    assert leisure_at(done(segments, step), SCHEMA, LIMITS) is None
    assert leisure_at([segment(10, indexed=False)], SCHEMA, LIMITS) is not None
    assert leisure_at([segment(10), segment(2_000), segment(2_000)], SCHEMA, LIMITS) is None


def test_the_more_a_merge_at_leisure_would_write_the_longer_it_waits():
    limits = CompactionLimits()
    large = [segment(4_000_000), segment(10)]
    made_s = ULID.from_str(large[1].id).timestamp
    assert leisure_at(large, SCHEMA, limits) == pytest.approx(made_s + 64, abs=0.1)
    assert plan_compaction(large, SCHEMA, limits, now_s=made_s + 63) is None
    assert plan_compaction(large, SCHEMA, limits, now_s=made_s + 65) is not None


def test_a_partition_that_is_written_to_leaves_another_its_leisure():
    quiet = [segment(10, partition="quiet") for _ in range(3)]
    busy = [segment(10, partition="busy") for _ in range(3)]
    later = str(ULID.from_timestamp(ULID.from_str(quiet[2].id).timestamp + 20))
    busy[2] = msgspec.structs.replace(busy[2], id=later)
    step = plan_compaction([*quiet, *busy], SCHEMA, LIMITS, now_s=ULID.from_str(later).timestamp)
    assert step is not None
    assert step.partition == "quiet"


def test_a_thousand_tiny_segments_become_one_in_one_step():
    [merged], steps = at_rest([segment(3, indexed=False) for _ in range(1_000)])
    assert merged.rows == 3_000
    assert len(steps) == 1


def test_small_segments_that_do_not_fit_into_one_fill_several():
    segments, steps = at_rest([segment(30, indexed=False) for _ in range(1_000)])
    assert [step.rows for step in steps[:7]] == [4_080] * 7
    assert len(segments) <= 12


def test_a_few_small_segments_are_left_to_be_joined_by_more():
    segments = [segment(10, indexed=False) for _ in range(7)]
    assert plan_compaction(segments, SCHEMA, LIMITS) is None
    assert plan_compaction([*segments, segment(10, indexed=False)], SCHEMA, LIMITS) is not None


def test_rows_that_take_long_to_scan_are_indexed_without_waiting_for_more():
    segments = [segment(100, indexed=False), segment(100, indexed=False)]
    assert plan_compaction(segments, SCHEMA, LIMITS) is None
    step = plan_compaction([*segments, segment(56, indexed=False)], SCHEMA, LIMITS)
    assert step is not None
    assert (step.rows, step.reason) == (256, "small")


def test_an_indexed_segment_is_merged_only_with_others_twice_its_size_together():
    tiny = [segment(10) for _ in range(8)]
    assert plan_compaction([*tiny, segment(41)], SCHEMA, LIMITS).rows == 80  # type: ignore[union-attr]
    assert plan_compaction([*tiny, segment(40)], SCHEMA, LIMITS).rows == 120  # type: ignore[union-attr]


def test_full_segments_are_left_alone():
    full = [segment(1_366) for _ in range(20)]
    assert plan_compaction(full, SCHEMA, LIMITS) is None
    assert plan_compaction(full, SCHEMA, LIMITS, force=True) is None


def test_a_full_segment_of_which_a_fifth_is_deleted_is_rewritten_with_the_small_ones_that_fit():
    small = [segment(500), segment(400), segment(300)]
    assert plan_compaction([*small, segment(4_000, 799)], SCHEMA, LIMITS) is None
    step = plan_compaction([*small, segment(4_000, 800)], SCHEMA, LIMITS)
    assert step is not None
    assert step.reason == "deleted"
    assert sorted(entry.live_rows for entry in step.inputs) == [300, 400, 3_200]


def test_a_small_segment_is_rewritten_when_enough_of_it_is_deleted_to_be_worth_a_commit():
    assert plan_compaction([segment(60, 15)], SCHEMA, LIMITS) is None
    assert plan_compaction([segment(60, 16)], SCHEMA, LIMITS) is not None
    assert plan_compaction([segment(1_000, 199)], SCHEMA, LIMITS) is None
    assert plan_compaction([segment(1_000, 200)], SCHEMA, LIMITS) is not None


def test_a_segment_over_which_no_index_can_be_built_is_not_tried_again():
    indexes = {FIELD.name: IndexEntry(kind="FLAT", params={}, blob=None, memory_bytes=0, unbuildable=True)}
    stuck = msgspec.structs.replace(segment(4_000, indexed=False), indexes=indexes)
    assert plan_compaction([stuck], SCHEMA, LIMITS, force=True) is None
    assert plan_compaction([segment(4_000, indexed=False)], SCHEMA, LIMITS) is not None


def test_long_texts_fill_a_segment_as_vectors_do():
    texts = [segment(1, other_bytes=LIMITS.segment_bytes // 4) for _ in range(8)]
    step = plan_compaction(texts, SCHEMA, LIMITS)
    assert step is not None
    assert len(step.inputs) == 4


def test_only_the_named_partitions_are_compacted():
    parts = [segment(3, partition=name) for name in ("a", "b") for _ in range(20 if name == "a" else 10)]
    assert plan_compaction(parts, SCHEMA, LIMITS).partition == "a"  # type: ignore[union-attr]
    assert plan_compaction(parts, SCHEMA, LIMITS, partition_names=["b"]).partition == "b"  # type: ignore[union-attr]
    assert plan_compaction(parts, SCHEMA, LIMITS, partition_names=["c"]) is None


def test_partitions_at_rest_are_no_debt_however_many():
    rest = [segment(10, indexed=False, partition=f"p{number}") for number in range(1_000) for _ in range(7)]
    assert debt(rest, SCHEMA, LIMITS).ratio == 0


def test_debt_is_what_waits_as_a_share_of_what_may():
    limits = CompactionLimits(segment_bytes=LIMITS.segment_bytes, waiting_bytes=1_600, waiting_segments=100)
    owed = debt([segment(10, indexed=False) for _ in range(20)], SCHEMA, limits)
    assert (owed.segments, owed.unindexed_rows, owed.unindexed_bytes) == (20, 200, 3_200)
    assert owed.ratio == 2.0
    assert debt([segment(1) for _ in range(150)], SCHEMA, limits).ratio == 1.5


@pytest.mark.parametrize("name", ["segment_bytes", "min_inputs", "ratio", "deleted_share", "waiting_segments"])
def test_a_limit_out_of_range_is_refused_by_name(name: str):
    with pytest.raises(InvalidArgument, match=name):
        CompactionLimits(**{name: 0})


def test_the_inputs_of_a_step_are_in_the_order_they_were_made():
    segments = [segment(1 + number % 3) for number in range(20)]
    step = plan_compaction(segments[::-1], SCHEMA, LIMITS)
    assert step is not None
    assert list(step.inputs) == segments
