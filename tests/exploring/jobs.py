"""Jobs on rows, drawn from a seed, each with what it does to a model of the collection."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from nearmq_index_store import intents
from nearmq_index_store.commit import Write
from nearmq_index_store.errors import AlreadyExists, PartitionNotFound, StoreError
from nearmq_index_store.given_rows import GivenRows

#: Few, so that jobs are about the same rows.
KEYS = range(6)
PARTITIONS = ("_default", "p")

Counts = dict[str, int]


@dataclass
class Model:
    """A collection: partition and first number of the vector by key."""

    rows: dict[int, tuple[str, float]] = field(default_factory=dict)
    partitions: set[str] = field(default_factory=lambda: {"_default"})

    def put(self, keys: Sequence[int], partition: str, number: int) -> None:
        self.rows.update(dict.fromkeys(keys, (partition, float(number))))

    def remove(self, keys: Sequence[int]) -> int:
        """Return how many there were."""
        return sum(self.rows.pop(key, None) is not None for key in keys)

    def in_partition(self, partition: str, keys: Sequence[int] | None = None) -> list[int]:
        found = [key for key, (own, _) in self.rows.items() if own == partition]
        return found if keys is None else [key for key in keys if key in found]

    def check(self, partition: str) -> None:
        if partition not in self.partitions:
            raise PartitionNotFound(partition)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A write, and its effect on the model, which changes it and returns counts, or raises, as the intent shall."""

    id: str
    intent: intents.Intent
    effect: Callable[[Model], Counts]
    keys: Sequence[int] = ()

    @property
    def write(self) -> Write:
        return Write(job_id=self.id, intent=self.intent, keys=self.keys)

    def apply(self, model: Model) -> tuple[Counts, str | None]:
        """Return the counts, and the name of the error."""
        try:
            return self.effect(model), None
        except StoreError as error:
            return {}, type(error).__name__


def draw_job(rng: random.Random, number: int) -> Job:
    """Draw a job; the vectors of its rows start with its number."""
    make = rng.choice([_upsert, _upsert, _upsert, _insert, _delete, _delete_where, _partition])
    keys = rng.sample(KEYS, rng.randint(1, 3))
    return make(f"job {number}", number, keys, rng.choice(PARTITIONS))


def rows_of(keys: Sequence[int], number: int) -> GivenRows:
    return GivenRows(ids=keys, vectors=np.array([[number, 0]] * len(keys), np.float32), scalars={})


def _upsert(job_id: str, number: int, keys: Sequence[int], partition: str) -> Job:
    def effect(model: Model) -> Counts:
        model.check(partition)
        replaced = model.remove(keys)
        model.put(keys, partition, number)
        return {"inserted": len(keys) - replaced, "replaced": replaced}

    return Job(id=job_id, intent=intents.upsert(rows_of(keys, number), partition), effect=effect, keys=keys)


def _insert(job_id: str, number: int, keys: Sequence[int], partition: str) -> Job:
    def effect(model: Model) -> Counts:
        model.check(partition)
        if model.rows.keys() & set(keys):
            raise AlreadyExists(job_id)
        model.put(keys, partition, number)
        return {"inserted": len(keys)}

    return Job(id=job_id, intent=intents.insert(rows_of(keys, number), partition), effect=effect, keys=keys)


def _delete(job_id: str, _number: int, keys: Sequence[int], partition: str) -> Job:
    def effect(model: Model) -> Counts:
        model.check(partition)
        return {"deleted": model.remove(model.in_partition(partition, keys))}

    return Job(id=job_id, intent=intents.delete(keys, partition), effect=effect, keys=keys)


def _delete_where(job_id: str, _number: int, keys: Sequence[int], _partition: str) -> Job:
    def effect(model: Model) -> Counts:
        return {"deleted": model.remove([key for key in model.rows if key >= keys[0]])}

    return Job(id=job_id, intent=intents.delete_where("id >= {least}", {"least": keys[0]}), effect=effect)


def _partition(job_id: str, _number: int, keys: Sequence[int], _partition: str) -> Job:
    def create(model: Model) -> Counts:
        if "p" in model.partitions:
            raise AlreadyExists(job_id)
        model.partitions.add("p")
        return {}

    def drop(model: Model) -> Counts:
        model.check("p")
        model.partitions.remove("p")
        return {"rows": model.remove(model.in_partition("p"))}

    if keys[0] % 2:
        return Job(id=job_id, intent=intents.create_partition("p"), effect=create)
    return Job(id=job_id, intent=intents.drop_partition("p"), effect=drop)
