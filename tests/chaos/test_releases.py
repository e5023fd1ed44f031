"""Workers of this version beside those of an earlier one, on the same queues and the same store."""

import io
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.chaos.conftest import SceneOf
from tests.chaos.worker_process import REPOSITORY

pytestmark = [pytest.mark.broker, pytest.mark.redis, pytest.mark.long]

#: The first commit on main that has all of format 1; what was before it knows fewer jobs, and takes other queues.
EARLIER = "1d71923c3058"


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The packages of the earlier version."""
    command = ["git", "-C", str(REPOSITORY), "archive", EARLIER, "producer", "index_store", "worker"]
    archived = subprocess.run(command, capture_output=True, check=False)
    if archived.returncode:
        pytest.skip(f"the history of this clone does not reach back to {EARLIER}: {archived.stderr.decode()}")
    with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as archive:
        archive.extractall(tmp_path / "earlier", filter="data")
    return tmp_path / "earlier"


def test_workers_are_replaced_by_those_of_another_version_and_back(scene: SceneOf, broker_url: str, earlier: Path):
    with scene(broker_url, workers=1, jobs=400, writes=0.5) as stage:
        for code in (earlier, None, earlier):
            before = list(stage.workers)
            stage.start_worker(code=code)
            stage.await_answers(100)  # of both
            for worker in before:
                with stage.fault("SIGTERM"):
                    stage.end(worker, signal.SIGTERM)
            stage.await_answers(100)
