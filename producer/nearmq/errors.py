"""What can go wrong with a job, as a closed list of codes and one exception class a code.

    NearmqError
    ├── InvalidArgument          INVALID_ARGUMENT
    ├── CollectionNotFound       COLLECTION_NOT_FOUND
    ├── PartitionNotFound        PARTITION_NOT_FOUND
    ├── FieldNotFound            FIELD_NOT_FOUND
    ├── DimensionMismatch        DIMENSION_MISMATCH
    ├── MetricMismatch           METRIC_MISMATCH
    ├── InvalidExpression        INVALID_EXPRESSION
    ├── LimitExceeded            LIMIT_EXCEEDED
    ├── AlreadyExists            ALREADY_EXISTS
    ├── VersionTimeout           VERSION_TIMEOUT
    ├── VersionExpired           VERSION_EXPIRED
    ├── JobExpired               JOB_EXPIRED
    ├── DeadlineExceeded         DEADLINE
    ├── Cancelled                CANCELLED
    ├── ResourceExhausted        RESOURCE_EXHAUSTED
    ├── IndexCorrupt             INDEX_CORRUPT
    ├── StoreUnavailable         STORE_UNAVAILABLE
    ├── Internal                 INTERNAL
    ├── ReplyTimeout             TIMEOUT              (raised by the client only)
    ├── BrokerUnavailable        BROKER_UNAVAILABLE   (raised by the client only)
    ├── QueueFull                QUEUE_FULL           (raised by the client only)
    └── PermissionDenied         PERMISSION_DENIED    (raised by the client only)

The codes travel in error replies; a client that reads a code it does not know raises `NearmqError` itself with it.
"""


class NearmqError(Exception):
    """A job that was not answered with a result.

    Attributes:
        code: one of the codes above; stable, made for programs.
        message: lower case, names the value and what is allowed; made for people.
        field: the job's field at fault, such as `limit` or `params.ef`; None when no single field is.
        retryable: whether the same job may succeed later, unchanged.
        job_id: the id of the job that failed, by which a write whose outcome is unknown is sent again; None of an error
            that was raised before there was a job.
    """

    code: str = "INTERNAL"
    retryable: bool = False
    job_id: str | None = None

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class InvalidArgument(NearmqError):
    """A value of the job is of the wrong type, out of range or unknown."""

    code = "INVALID_ARGUMENT"


class CollectionNotFound(NearmqError):
    """No collection has this name."""

    code = "COLLECTION_NOT_FOUND"


class PartitionNotFound(NearmqError):
    """The collection has no partition of this name."""

    code = "PARTITION_NOT_FOUND"


class FieldNotFound(NearmqError):
    """The collection has no field of this name."""

    code = "FIELD_NOT_FOUND"


class DimensionMismatch(NearmqError):
    """The queries' number of dimensions is not the field's."""

    code = "DIMENSION_MISMATCH"


class MetricMismatch(NearmqError):
    """The job names another metric than the field's."""

    code = "METRIC_MISMATCH"


class InvalidExpression(NearmqError):
    """The filter expression cannot be parsed or applied."""

    code = "INVALID_EXPRESSION"


class LimitExceeded(NearmqError):
    """A bound on the job's size is passed: body bytes, queries, limit, or their product."""

    code = "LIMIT_EXCEEDED"


class AlreadyExists(NearmqError):
    """The name or key that should be made is there already."""

    code = "ALREADY_EXISTS"


class VersionTimeout(NearmqError):
    """The collection did not reach `min_version` in time."""

    code = "VERSION_TIMEOUT"
    retryable = True


class VersionExpired(NearmqError):
    """The version that the job is pinned to has been removed."""

    code = "VERSION_EXPIRED"


class JobExpired(NearmqError):
    """A write came after the window in which its job id is remembered."""

    code = "JOB_EXPIRED"


class DeadlineExceeded(NearmqError):
    """The job's deadline passed before its result was there."""

    code = "DEADLINE"


class Cancelled(NearmqError):
    """The job was cancelled."""

    code = "CANCELLED"


class ResourceExhausted(NearmqError):
    """The worker's memory budget does not hold what the job needs."""

    code = "RESOURCE_EXHAUSTED"
    retryable = True


class IndexCorrupt(NearmqError):
    """A blob of the collection is missing or fails its digest."""

    code = "INDEX_CORRUPT"


class StoreUnavailable(NearmqError):
    """The store did not answer."""

    code = "STORE_UNAVAILABLE"
    retryable = True


class Internal(NearmqError):
    """A fault of nearmq itself; the worker's log has the traceback under the job's id."""

    code = "INTERNAL"


class ReplyTimeout(NearmqError):
    """No reply came within the caller's `timeout_s`."""

    code = "TIMEOUT"
    retryable = True


class BrokerUnavailable(NearmqError):
    """The broker cannot be reached or did not confirm in time."""

    code = "BROKER_UNAVAILABLE"
    retryable = True


class QueueFull(NearmqError):
    """The broker refused the job (its queue is full), or too many jobs of this client await a reply."""

    code = "QUEUE_FULL"
    retryable = True


class PermissionDenied(NearmqError):
    """The broker refused the login or the operation."""

    code = "PERMISSION_DENIED"


BY_CODE: dict[str, type[NearmqError]] = {
    kind.code: kind
    for kind in (
        InvalidArgument,
        CollectionNotFound,
        PartitionNotFound,
        FieldNotFound,
        DimensionMismatch,
        MetricMismatch,
        InvalidExpression,
        LimitExceeded,
        AlreadyExists,
        VersionTimeout,
        VersionExpired,
        JobExpired,
        DeadlineExceeded,
        Cancelled,
        ResourceExhausted,
        IndexCorrupt,
        StoreUnavailable,
        Internal,
        ReplyTimeout,
        BrokerUnavailable,
        QueueFull,
        PermissionDenied,
    )
}

#: Those that the client raises by itself; no reply carries their codes.
CLIENT_ONLY = frozenset({ReplyTimeout, BrokerUnavailable, QueueFull, PermissionDenied})


def from_code(code: str, message: str, *, field: str | None = None, retryable: bool | None = None) -> NearmqError:
    """Make the exception of a code as it stands in an error reply.

    A code that this client does not know, from a newer worker, gives a plain `NearmqError` that carries it.
    """
    error = BY_CODE.get(code, NearmqError)(message, field=field)
    error.code = code
    if retryable is not None:
        error.retryable = retryable
    return error
