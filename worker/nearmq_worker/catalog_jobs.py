"""The jobs that read or change the catalog: list, describe, create, drop, rename."""

from nearmq.errors import InvalidArgument
from nearmq.jobs import CreateJob, DescribeJob, DropJob, Job, ListJob, RenameJob, Reply
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.commit import Outcome
from nearmq_index_store.describing import describe
from nearmq_index_store.schema import IndexSpec, ScalarField, Schema, VectorField


def run_catalog_job(catalog: Catalog, job: Job, job_id: str) -> Reply:
    """Run one job; raises what the store raises. The same job id again gives the same answer."""
    match job:
        case ListJob():
            return Reply(job_id=job_id, status="ok", result={"collections": catalog.list()})
        case DescribeJob():
            snapshot = catalog.snapshot(job.collection)
            return Reply(job_id=job_id, status="ok", version=snapshot.manifest.version, result=describe(snapshot))
        case CreateJob() | DropJob() | RenameJob():
            version = _write(catalog, job, job_id).version
            name = job.new_name if isinstance(job, RenameJob) else job.collection
            return Reply(job_id=job_id, status="ok", version=version, result={"collection": name, "version": version})
        case _:
            raise InvalidArgument(f"a {type(job).__name__} is not run from a queue", field="type")


def _write(catalog: Catalog, job: CreateJob | DropJob | RenameJob, job_id: str) -> Outcome:
    match job:
        case RenameJob():
            return catalog.rename(job.collection, job.new_name, job_id=job_id)
        case DropJob(partition_name=None):
            return catalog.drop(job.collection, job_id=job_id)
        case DropJob(partition_name=str(partition)):
            return catalog.drop_partition(job.collection, partition, job_id=job_id)
        case CreateJob(vector_fields=[], partition_name=None):
            return catalog.add_fields(job.collection, _scalar_fields(job), job_id=job_id)
        case CreateJob(partition_name=None):
            return catalog.create(job.collection, _schema(job), job_id=job_id)
        case CreateJob(partition_name=str(partition)):
            return catalog.create_partition(job.collection, partition, job_id=job_id)
    raise AssertionError(job)


def _schema(job: CreateJob) -> Schema:
    """Return the schema of a collection to create, which the catalog checks."""
    return Schema(
        primary_key=job.primary_key,
        vector_fields=tuple(
            VectorField(
                name=spec.name,
                dim=spec.dim,
                metric=spec.metric_type,
                index=IndexSpec(kind=spec.index, params=spec.index_params),
            )
            for spec in job.vector_fields
        ),
        scalar_fields=_scalar_fields(job),
    )


def _scalar_fields(job: CreateJob) -> tuple[ScalarField, ...]:
    return tuple(ScalarField(name=spec.name, type=spec.type, nullable=spec.nullable) for spec in job.scalar_fields)
