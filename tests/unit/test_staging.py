"""Folders for files on their way: each its maker's own, and gone with it."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nearmq_index_store.staging import staging_folder


def test_nobody_takes_a_folder_that_is_just_made_for_a_killed_ones(tmp_path: Path):
    def make_some(_: int) -> None:
        for _ in range(100):
            with staging_folder(tmp_path) as folder:
                (folder / "file").write_bytes(b"rows")
                assert (folder / "file").read_bytes() == b"rows"

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(make_some, range(4)))

    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path):
    script = "import os, sys, pathlib; from nearmq_index_store.staging import staging_folder\n"
    script += (
        "with staging_folder(pathlib.Path(sys.argv[1])) as folder: print(folder, flush=True); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False)
    left = Path(killed.stdout.strip())
    assert list(tmp_path.iterdir()) == [left]

    with staging_folder(tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]
