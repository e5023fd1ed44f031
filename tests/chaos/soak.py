"""`make soak`: 100,000 searches of one query over ten minutes, while every 20 s a worker is killed.

Every job has to be answered, or set aside with a reason. Prints the judgement as JSON; exit code 1 when it is bad.
"""

import argparse
import json
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

from tests import servers
from tests.chaos.scene import Scene

WORKERS = 3
BURST = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--kill-every", type=float, default=20.0, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path("out") / "chaos"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"soak-{options.seed}-{os.getpid()}.jsonl"
    pause_s = options.minutes * 60 / options.jobs * BURST
    with servers.shared_broker() as virtual_hosts, servers.shared_redis() as database:
        url = virtual_hosts.take()
        scene = Scene(path, url, database.url, seed=options.seed)
        try:
            scene.open(workers=WORKERS, jobs=options.jobs, writes=0.0, burst=BURST, pause_s=pause_s)
            kills = _kill_until_done(scene, options.jobs, options.kill_every)
            outcome = scene.close("soak", options.seed)
        finally:
            scene.abandon()
            virtual_hosts.give_back(url)
    judgement = {"kills": kills} | asdict(outcome.verdict)
    sys.stdout.write(json.dumps(judgement, indent=2) + "\n")
    if outcome.verdict.faults or outcome.verdict.expired:
        sys.stdout.write(f"history: {path}\n")
        return 1
    for file in folder.glob(f"{path.stem}.*"):
        file.unlink()
    return 0


def _kill_until_done(scene: Scene, jobs: int, every_s: float) -> int:
    kills = 0
    began = time.monotonic()
    while scene.load.submitted < jobs:
        due = began + (kills + 1) * every_s
        scene.wait_for(lambda due=due: time.monotonic() > due or scene.load.submitted >= jobs, "time", timeout_s=600)
        if scene.load.submitted >= jobs:
            break
        scene.load.await_burst()
        scene.hesitate(0.02)
        with scene.fault("SIGKILL"):
            scene.end(scene.rng.choice(scene.workers), signal.SIGKILL)
        scene.start_worker()
        kills += 1
        passed_s = time.monotonic() - began
        sys.stderr.write(
            f"{passed_s:.0f} s: {scene.load.submitted} jobs, {scene.load.unanswered} open, {kills} kills\n"
        )
    return kills


if __name__ == "__main__":
    sys.exit(main())
