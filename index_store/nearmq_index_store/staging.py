"""A folder for files on their way into or out of a store; one that a killed process left is removed by the next."""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "nearmq-staging-"


@contextmanager
def staging_folder(parent: Path) -> Iterator[Path]:
    """Make an empty folder under `parent`, which is made too when it is missing, and remove it in the end."""
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        unseen = folder / "unseen"
        with unseen.open("xb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            unseen.rename(_lock_of(folder))  # now that it is held: another process would take it for a killed one's
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Remove the folders that nobody holds; one that is being made has no lock yet and stays."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(FileNotFoundError, BlockingIOError, PermissionError), _lock_of(folder).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


def _lock_of(folder: Path) -> Path:
    return folder / "lock"
