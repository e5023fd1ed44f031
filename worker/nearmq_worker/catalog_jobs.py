"""The jobs that read or change the catalog: list, describe, create, drop, rename."""

from nearmq.errors import InvalidArgument
from nearmq.jobs import CreateJob, DescribeJob, DropJob, Job, ListJob, RenameJob, Reply
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.describing import describe
from nearmq_index_store.manifest import Manifest
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
            manifest = _write(catalog, job, job_id)
            result = {"collection": manifest.name, "version": manifest.version}
            return Reply(job_id=job_id, status="ok", version=manifest.version, result=result)
        case _:
            raise InvalidArgument(f"a {type(job).__name__} is not run from a queue", field="type")


def _write(catalog: Catalog, job: CreateJob | DropJob | RenameJob, job_id: str) -> Manifest:
    match job:
        case RenameJob():
            return catalog.rename(job.collection, job.new_name, job_id=job_id)
        case DropJob(partition_name=None):
            return catalog.drop(job.collection, job_id=job_id)
        case DropJob(partition_name=str(partition)):
            return catalog.drop_partition(job.collection, partition, job_id=job_id)
        case CreateJob(partition_name=None):
            return catalog.create(job.collection, _schema(job), job_id=job_id)
        case CreateJob(partition_name=str(partition)):
            if job.vector_fields:
                raise InvalidArgument("give either vector_fields or partition_name", field="partition_name")
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
        scalar_fields=tuple(
            ScalarField(name=spec.name, type=spec.type, nullable=spec.nullable) for spec in job.scalar_fields
        ),
    )
