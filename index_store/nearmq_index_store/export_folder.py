"""The folder of an export: what it is an export of, and who is writing to it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from nearmq_index_store.errors import InvalidArgument
from nearmq_index_store.whole_files import sweep, whole_file

STATE_NAME = "export.json"


class ExportState(msgspec.Struct, frozen=True, kw_only=True):
    """What `export.json` holds: equal states give equal files."""

    collection: str
    collection_id: str
    version: int
    partitions: tuple[str, ...] | None
    part_bytes: int
    finished: bool = False


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder when it is missing, and keep others from exporting to it.

    Raises:
        InvalidArgument: another process does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidArgument(f"{folder}: another export is being written to it", field="out") from None
        sweep(folder)
        yield
    finally:
        os.close(opened)


def begin(folder: Path, wanted: ExportState, *, any_version: bool) -> ExportState:
    """Return the state of the export that the folder is for: an unfinished one goes on.

    Args:
        any_version: an unfinished export of another version goes on too.

    Raises:
        InvalidArgument: the folder holds another export, or something else.
    """
    found = _load(folder)
    if found is None:
        if any(folder.iterdir()):
            raise InvalidArgument(f"{folder} is not empty and holds no export, expected a new folder", field="out")
        _save(folder, wanted)
        return wanted
    if any_version and not found.finished:
        wanted = msgspec.structs.replace(wanted, version=found.version)
    if msgspec.structs.replace(found, finished=False, collection=wanted.collection) != wanted:
        raise InvalidArgument(
            f"{folder} holds {_text(found)}, asked for is {_text(wanted)}: expected another folder", field="out"
        )
    return found


def finish(folder: Path, state: ExportState) -> None:
    """Note that all files are there."""
    _save(folder, msgspec.structs.replace(state, finished=True))


def _load(folder: Path) -> ExportState | None:
    path = folder / STATE_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=ExportState)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"{path} cannot be read: {error}", field="out") from error


def _save(folder: Path, state: ExportState) -> None:
    with whole_file(folder / STATE_NAME) as partial:
        partial.write_bytes(msgspec.json.encode(state))


def _text(state: ExportState) -> str:
    which = "all partitions" if state.partitions is None else f"partitions {', '.join(state.partitions)}"
    kind = "a finished export" if state.finished else "an export"
    return f"{kind} of version {state.version} of {state.collection!r}, {which}, {state.part_bytes} bytes a file"
