"""examples/node does over amqplib what Milvus's Node.js snippets do."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.world import amqp_world

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "node"

pytestmark = [pytest.mark.broker, pytest.mark.redis]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("npm") is None and not os.environ.get("CI"):
        pytest.skip("Node.js is not installed")
    folder = tmp_path_factory.mktemp("node") / "example"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
    subprocess.run(["npm", "ci", "--silent"], cwd=folder, check=True, timeout=240)
    return folder


def search(example: Path, broker_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["node", "search.mjs", *arguments]
    environment = os.environ | {"NEARMQ_URL": broker_url}
    return subprocess.run(
        command, cwd=example, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_node_loads_searches_the_collection_and_a_partition_and_releases(
    example: Path, broker_url: str, redis_url: str
):
    vectors = np.random.default_rng(1).normal(size=(200, 8)).astype(np.float32) + np.arange(1, 9)
    ids = np.arange(200) + 2**53  # beyond what JavaScript's numbers can tell apart
    query = np.arange(1, 9)
    nearest = np.argsort(np.square(vectors - query).sum(axis=1))
    with amqp_world(broker_url, redis_url) as world:
        world.client.create_collection("c", dim=8, index="IVF_FLAT", index_params={"nlist": 10})
        world.add("c", ids[:150], vectors[:150])
        world.add("c", ids[150:], vectors[150:], partition="p")
        done = search(example, broker_url, "c", "vector", "p")
        assert done.returncode == 0, done.stderr
        whole, part = map(json.loads, done.stdout.splitlines())
        assert [hit["id"] for hit in whole["results"][0]] == [str(ids[row]) for row in nearest[:4]]
        in_part = [row for row in nearest if row >= 150]
        assert [hit["id"] for hit in part["results"][0]] == [str(ids[row]) for row in in_part[:4]]
        assert world.cache().bytes == 0  # released

        failed = search(example, broker_url, "nothing")
        assert failed.returncode != 0
        assert "COLLECTION_NOT_FOUND" in failed.stderr
