"""What is done to a collection as a whole: memory, schema, partitions, indexes."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from nearmq.arguments import as_names
from nearmq.jobs import (
    BuildJob,
    CompactJob,
    CreateJob,
    DescribeJob,
    DropJob,
    Job,
    LoadJob,
    ReleaseJob,
    ScalarFieldSpec,
    ScalarType,
)

if TYPE_CHECKING:
    from nearmq.client import Client

#: How long to wait for indexes to be built, which may take many minutes.
MAINTENANCE_TIMEOUT_S = 3_600.0


class Administration:
    """The part of `Collection` that concerns the collection as a whole."""

    _client: "Client"
    name: str

    def load(
        self,
        partition_names: Sequence[str] | None = None,
        *,
        field: str | None = None,
        timeout_s: float | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> dict[str, Any]:
        """Load and pin what searches of these partitions open, on every live worker, and wait until all have.

        Args:
            partition_names: only these; None for all.
            field: only this vector field; None for all.
            timeout_s: how long to wait; None for the client's default.
            on_progress: called with the mean progress of the workers, 0 to 1.

        Returns:
            `{"workers": {name: {"segments": …, "bytes": …}}}`.

        Raises:
            BrokerUnavailable: no worker is alive.
            ResourceExhausted: it does not fit into a worker's memory budget.
        """
        job = LoadJob(collection=self.name, partition_names=as_names("partition_names", partition_names), field=field)
        return self._client.broadcast(job, timeout_s=timeout_s, on_progress=on_progress)

    def release(
        self, partition_names: Sequence[str] | None = None, *, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Unpin and free on every live worker what `load` or searches brought into memory."""
        job = ReleaseJob(collection=self.name, partition_names=as_names("partition_names", partition_names))
        return self._client.broadcast(job, timeout_s=timeout_s)

    def describe(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Return the collection's schema, partitions, rows, bytes and version (docs/wire.md, describe)."""
        return self._result(DescribeJob(collection=self.name), timeout_s)

    def create_partition(self, partition_name: str, *, timeout_s: float | None = None) -> int:
        """Create a partition and return the version that has it."""
        return self._version(CreateJob(collection=self.name, partition_name=partition_name), timeout_s)

    def drop_partition(self, partition_name: str, *, timeout_s: float | None = None) -> int:
        """Drop a partition with its rows and return the version that lacks it."""
        return self._version(DropJob(collection=self.name, partition_name=partition_name), timeout_s)

    def list_partitions(self, *, timeout_s: float | None = None) -> list[str]:
        """Return the partitions' names, sorted."""
        return [partition["name"] for partition in self.describe(timeout_s=timeout_s)["partitions"]]

    def add_field(self, name: str, field_type: ScalarType, *, timeout_s: float | None = None) -> int:
        """Add a nullable scalar field, null in the rows that are there, and return the version that has it.

        Raises:
            AlreadyExists: the collection has a field of this name.
        """
        spec = ScalarFieldSpec(name=name, type=field_type, nullable=True)
        return self._version(CreateJob(collection=self.name, scalar_fields=[spec]), timeout_s)

    def compact(
        self,
        partition_names: Sequence[str] | None = None,
        *,
        timeout_s: float | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> dict[str, Any]:
        """Merge small segments where that pays, and drop the rows that were deleted; workers do so by themselves.

        Args:
            partition_names: only these; None for all.
            timeout_s: how long to wait; None for an hour.
            on_progress: called with the progress, 0 to 1.

        Returns:
            `{"version": …, "segments_before": …, "segments_after": …, "rows": …, "dropped": …}`.
        """
        job = CompactJob(collection=self.name, partition_names=as_names("partition_names", partition_names))
        return self._result(job, MAINTENANCE_TIMEOUT_S if timeout_s is None else timeout_s, on_progress)

    def build(
        self,
        partition_names: Sequence[str] | None = None,
        *,
        timeout_s: float | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> dict[str, Any]:
        """Build every index that is not built yet, which merges all small segments; as `compact` otherwise."""
        job = BuildJob(collection=self.name, partition_names=as_names("partition_names", partition_names))
        return self._result(job, MAINTENANCE_TIMEOUT_S if timeout_s is None else timeout_s, on_progress)

    def _result(
        self, job: Job, timeout_s: float | None, on_progress: Callable[[float], None] | None = None
    ) -> dict[str, Any]:
        reply = self._client.submit(job, timeout_s=timeout_s, on_progress=on_progress).result()
        return reply.result or {}

    def _version(self, job: CreateJob | DropJob, timeout_s: float | None) -> int:
        version: int = self._result(job, timeout_s)["version"]
        return version
