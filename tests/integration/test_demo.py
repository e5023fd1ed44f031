"""The demo runs, embedded and through real servers and worker processes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo.py"


def demo(folder: Path, **settings: str) -> dict[str, float]:
    """Run the demo in a folder; return the recall of each index, as its table says."""
    done = subprocess.run(
        [sys.executable, str(DEMO)],
        cwd=folder,
        env=os.environ | settings | {"COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "out" / "demo.png").read_bytes().startswith(b"\x89PNG")
    return {name: float(recall) for name, recall in re.findall(r"│ ([A-Z_0-9]+) +│ +([\d.]+) │", done.stdout)}


INDEXES = {"FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8", "IVF_PQ"}


def test_the_demo_runs_embedded(tmp_path: Path):
    recalls = demo(tmp_path)
    assert set(recalls) == INDEXES
    assert min(recalls.values()) >= 0.95
    assert recalls["FLAT"] == 1


@pytest.mark.broker
@pytest.mark.redis
def test_the_demo_runs_through_real_servers_and_worker_processes(tmp_path: Path, broker_url: str, redis_url: str):
    recalls = demo(tmp_path, NEARMQ_URL=broker_url, NEARMQ_STORE=redis_url)
    assert set(recalls) == INDEXES
    assert min(recalls.values()) >= 0.95
