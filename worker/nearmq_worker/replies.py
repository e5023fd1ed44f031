"""What the worker answers when there is no result: the store's and our own faults as the wire's error replies."""

from nearmq import errors
from nearmq.jobs import ErrorReply, Reply
from nearmq_index_store import errors as store_errors

#: What a job may fail with by its own fault or the store's; anything else is a fault of the worker's.
JOB_ERRORS = (errors.NearmqError, store_errors.StoreError)

_CODES: dict[type[store_errors.StoreError], type[errors.NearmqError]] = {
    store_errors.InvalidArgument: errors.InvalidArgument,
    store_errors.InvalidExpression: errors.InvalidExpression,
    store_errors.CollectionNotFound: errors.CollectionNotFound,
    store_errors.PartitionNotFound: errors.PartitionNotFound,
    store_errors.FieldNotFound: errors.FieldNotFound,
    store_errors.DimensionMismatch: errors.DimensionMismatch,
    store_errors.MetricMismatch: errors.MetricMismatch,
    store_errors.AlreadyExists: errors.AlreadyExists,
    store_errors.VersionExpired: errors.VersionExpired,
    store_errors.BlobNotFound: errors.IndexCorrupt,
    store_errors.IndexCorrupt: errors.IndexCorrupt,
    store_errors.StoreUnavailable: errors.StoreUnavailable,
}


def translated(error: Exception) -> errors.NearmqError:
    """Return the wire's exception for one of the store's, of the wire's own, or for a fault of the worker's."""
    if isinstance(error, errors.NearmqError):
        return error
    if isinstance(error, store_errors.StoreError):
        kind = _CODES.get(type(error), errors.Internal)
        return kind(error.message, field=error.field)
    if isinstance(error, MemoryError):
        return errors.ResourceExhausted("the worker ran out of memory for this job")
    return errors.Internal(f"the worker failed with {type(error).__name__}; its log has the details under the job's id")


def error_reply(job_id: str, error: Exception) -> Reply:
    """Return the reply that says why a job has no result."""
    wire = translated(error)
    body = ErrorReply(code=wire.code, message=wire.message, field=wire.field, retryable=wire.retryable)
    return Reply(job_id=job_id, status="error", error=body)
