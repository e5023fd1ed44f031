"""msgspec crashes when two threads read a Struct for the first time at once, so every one is prepared by its import."""

import sys
from types import FrameType

import msgspec
import pytest

from nearmq.jobs import JOB_TYPES, Reply
from nearmq_index_store import compaction, head, holds, import_job, ledger, manifest, names
from nearmq_index_store.sealed import Reader

READERS = {
    name: value
    for module in (compaction.claims, head, holds, import_job, manifest, names)
    for name, value in vars(module).items()
    if isinstance(value, Reader)
}


def learns_types(read: object, *arguments: object, **options: object) -> bool:
    """Whether a read made msgspec look at a class's annotations."""
    looked: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.endswith("msgspec/_utils.py"):
            looked.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        with pytest.raises((msgspec.ValidationError, ValueError)):
            read(*arguments, **options)  # type: ignore[operator]
    finally:
        sys.setprofile(None)
    return bool(looked)


@pytest.mark.parametrize("struct", [*JOB_TYPES.values(), Reply], ids=lambda struct: struct.__name__)
def test_reading_a_job_or_a_reply_looks_at_no_annotations_any_more(struct: type[msgspec.Struct]):
    assert not learns_types(msgspec.convert, [], struct, dec_hook=lambda _, value: value)


def test_reading_what_the_store_holds_looks_at_no_annotations_any_more():
    assert len(READERS) == 8
    for reader in READERS.values():
        assert not learns_types(reader._decode, b"[]")
    assert not learns_types(ledger._read_entry, b"[]")


def test_a_struct_that_nothing_prepared_is_noticed():
    class Unprepared(msgspec.Struct):
        number: int

    assert learns_types(msgspec.json.decode, b"[]", type=Unprepared)
