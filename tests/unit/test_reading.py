"""Rows found by key, and taken in the order of their ids, over any cut of rows into segments."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearmq_index_store.deletes import DeletedRows
from nearmq_index_store.errors import InvalidArgument
from nearmq_index_store.keys import SegmentKeys
from nearmq_index_store.manifest import BlobRef, KeysEntry, SegmentEntry
from nearmq_index_store.places import split_places
from nearmq_index_store.reading import find_rows, no_rows, to_key, to_keys
from nearmq_index_store.rows import Rows
from nearmq_index_store.schema import PrimaryKey

BLOB = BlobRef(key="nowhere", bytes=0, digest="")
KEYS: dict[PrimaryKey, st.SearchStrategy[Any]] = {
    "int64": st.integers(-(2**63), 2**63 - 1),
    "string": st.text(st.characters(codec="utf-8"), max_size=3),
}


@st.composite
def cut_rows(draw: st.DrawFn) -> tuple[PrimaryKey, list[list[Any]], set[Any]]:
    """Keys, each once, in segments that hold some; and those that are deleted."""
    primary_key: PrimaryKey = draw(st.sampled_from(["int64", "string"]))
    keys = draw(st.lists(KEYS[primary_key], unique=True, max_size=40))
    bounds = sorted(draw(st.sets(st.integers(1, max(1, len(keys))), max_size=4)) | {0, len(keys)})
    segments = [keys[start:stop] for start, stop in pairwise(bounds) if keys[start:stop]]
    return primary_key, segments, draw(st.sets(st.sampled_from(keys))) if keys else set()


def entry(number: int, keys: Sequence[Any]) -> SegmentEntry:
    bounds = KeysEntry(blob=BLOB, min=min(keys), max=max(keys))
    return SegmentEntry(id=str(number), partition="p", rows=len(keys), rows_blob=BLOB, keys=bounds, indexes={})


@given(cut_rows(), st.data())
def test_rows_are_found_where_they_are_unless_deleted(cut: tuple[PrimaryKey, list[list[Any]], set[Any]], data: Any):
    primary_key, segments, deleted = cut
    known = [key for keys in segments for key in keys]
    asked = data.draw(st.lists(st.one_of(KEYS[primary_key], *([st.sampled_from(known)] if known else []))))
    places = find_rows(
        [entry(number, keys) for number, keys in enumerate(segments)],
        to_keys(asked, primary_key),
        lambda one: SegmentKeys(to_keys(segments[int(one.id)], primary_key), np.arange(one.rows)),
        lambda one: DeletedRows(row for row, key in enumerate(segments[int(one.id)]) if key in deleted),
    )
    for key, place, part, row in zip(asked, places.tolist(), *split_places(places), strict=True):
        if key in known and key not in deleted:
            assert segments[part][row] == key
        else:
            assert place == -1


@given(cut_rows(), st.integers(1, 12), st.data())
def test_the_first_rows_of_segments_are_those_of_the_whole(
    cut: tuple[PrimaryKey, list[list[Any]], set[Any]], most: int, data: Any
):
    primary_key, segments, left_out = cut
    after = data.draw(st.none() | KEYS[primary_key])
    bound = None if after is None else to_key(after, primary_key, field="after")
    first = no_rows(primary_key, most)
    for number, keys in enumerate(segments):
        if first.has_room_for(entry(number, keys)):
            mask = np.array([key not in left_out for key in keys])
            first = first.and_of(number, Rows(to_keys(keys, primary_key), {}, {}), mask, bound)
    known = sorted((key for keys in segments for key in keys if key not in left_out), key=_in_order)
    expected = [key for key in known if after is None or _in_order(key) > _in_order(after)][:most]
    assert first.keys.to_pylist() == expected
    parts, rows = split_places(first.places)
    assert [segments[part][row] for part, row in zip(parts, rows, strict=True)] == expected


def _in_order(key: Any) -> Any:
    return key.encode() if isinstance(key, str) else key


def test_integers_may_be_written_as_text_where_that_is_asked_for():
    assert to_keys(["7", -3, "-9223372036854775808"], "int64", as_text=True).to_pylist() == [7, -3, -(2**63)]
    assert to_keys(["7"], "string", as_text=True).equals(pa.array(["7"]))
    for text in ("", "x", "1.5", "+1", "0x1", " 1", "٣", "9223372036854775808", "--1"):
        with pytest.raises(InvalidArgument, match="the primary keys are int64"):
            to_keys([text], "int64", as_text=True)
    with pytest.raises(InvalidArgument, match=r"ids\[1\] is '7', the primary keys are int64"):
        to_keys([1, "7"], "int64")
    with pytest.raises(InvalidArgument, match="after is 7, the primary keys are string") as caught:
        to_key(7, "string", field="after")
    assert caught.value.field == "after"
