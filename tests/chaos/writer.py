"""A writer that races others over one collection, and may be ended before or after any call of its store.

Usage: python -m tests.chaos.writer HISTORY STORE NUMBER WRITES SEED. Started again, it goes on with
the first write that was not answered, under the same id.
"""

import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np

from nearmq_index_store import intents
from nearmq_index_store.blobs import open_store
from nearmq_index_store.blobs.protocol import BlobStore
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.commit import Write
from nearmq_index_store.given_rows import GivenRows
from tests.chaos.effects import row
from tests.chaos.history import History, read_history

#: The exit code of a writer that was ended on purpose.
DEATH = 99
#: Of the calls of the store.
DEATHS = 0.004
KEYS = 12


class DeadlyStore:
    """A BlobStore of which some calls are the process's last, before or after their effect."""

    def __init__(self, store: BlobStore, rng: random.Random) -> None:
        self._store, self._rng = store, rng

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._store, name)
        if not callable(operation):
            return operation

        def call(*arguments: Any, **options: Any) -> Any:
            fate = self._rng.random()
            if fate < DEATHS / 2:
                os._exit(DEATH)
            result = operation(*arguments, **options)
            if fate < DEATHS:
                os._exit(DEATH)
            return result

        return call


def main(path: str, store_url: str, number: int, writes: int, seed: int) -> None:
    proc = f"writer {number}"
    known = [entry for entry in read_history(Path(path)) if entry.proc == proc]
    submitted = {entry.job_id for entry in known if entry.phase == "submitted"}
    answered = {entry.job_id for entry in known if entry.phase == "answered"}
    history = History(Path(path), proc)
    store = DeadlyStore(open_store(store_url), random.Random(f"{seed} {number} {len(known)} {os.getpid()}"))
    catalog = Catalog(store)
    for step in range(writes):
        job_id = f"{proc} {step}"
        if job_id in answered:
            continue
        rng = random.Random(f"{seed} {job_id}")
        keys, value = rng.sample(range(KEYS), 3), number * 1_000 + step + 1
        deletes = rng.random() < 0.2
        if job_id not in submitted:
            effect = dict.fromkeys(keys, None if deletes else value)
            history.add("race", "submitted", job_id=job_id, effect=effect)
        rows = GivenRows(ids=keys, vectors=np.stack([row(value)] * len(keys)), scalars={})
        intent = intents.delete(keys) if deletes else intents.upsert(rows, "_default")
        [outcome] = catalog.write("moving", [Write(job_id=job_id, intent=intent, keys=keys)])
        history.add("race", "answered", job_id=job_id, version=outcome.version)
    history.close()


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:6]))
