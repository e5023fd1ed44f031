"""The wire contract's messages, format 1: jobs by type, and replies. docs/wire.md explains each field.

A job's Struct is its body; the job's id, deadline and reply address are message properties (`transport.Message`).
"""

from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from nearmq.query_hits import Hits

FloatMatrix = npt.NDArray[np.float32]

#: What a placeholder of an expression may stand for.
ExprValue = bool | int | float | str | list[bool | int | float | str]

#: The number of the wire format that this module speaks; a body of another format is refused with INVALID_ARGUMENT.
FORMAT = 1

Metric = Literal["L2", "IP", "COSINE"]
Encoding = Literal["json", "base64"]
IdFormat = Literal["int", "string"]
PrimaryKey = Literal["int64", "string"]
ScalarType = Literal[
    "bool", "int64", "float64", "string", "json", "array<bool>", "array<int64>", "array<float64>", "array<string>"
]


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """What every job's body may hold."""

    format: int = FORMAT


class SearchJob(Job, frozen=True, kw_only=True):
    """Find the nearest rows to each query vector.

    `vectors` is float32 of shape (queries, dim), C-contiguous and finite. On the wire it is nested lists of numbers, or
    `{"data": <base64 of little-endian float32>, "shape": [queries, dim]}`.
    """

    collection: str
    limit: int
    vectors: np.ndarray | None = None
    ids: list[int | str] | None = None
    offset: int = 0
    field: str | None = None
    metric_type: Metric | None = None
    params: dict[str, int | float] = {}
    expr: str | None = None
    expr_params: dict[str, ExprValue] = {}
    partition_names: list[str] | None = None
    output_fields: list[str] | None = None
    radius: float | None = None
    range_filter: float | None = None
    round_decimal: int = -1
    group_by_field: str | None = None
    group_size: int = 1
    min_version: int | None = None
    encoding: Encoding = "json"
    id_format: IdFormat = "int"
    explain: bool = False


class RowWriteJob(Job, frozen=True, kw_only=True):
    """What the jobs that write rows have in common.

    `ids`, each column of `fields` and the rows of `vectors` are of one length: row i is made of the i-th of each. No id
    stands there twice.

    `vectors` is float32 of shape (rows, dim), C-contiguous and finite, for a collection of one vector field; or a dict
    from the name of each vector field to such a matrix. On the wire each matrix is as in a search.

    `fields` holds parsed JSON as it came: nothing in it has been compared with the schema.
    """

    collection: str
    ids: list[int | str]
    vectors: Any
    fields: dict[str, list[Any]] = {}
    partition_name: str | None = None


class UpsertJob(RowWriteJob, frozen=True, kw_only=True):
    """Write rows: those whose id is there are replaced whole, the others are added."""


class InsertJob(RowWriteJob, frozen=True, kw_only=True):
    """Add rows; none of their ids may be there."""


class DeleteJob(Job, frozen=True, kw_only=True):
    """Delete the rows of these ids, or those for which an expression is true."""

    collection: str
    ids: list[int | str] | None = None
    expr: str | None = None
    expr_params: dict[str, ExprValue] = {}
    partition_name: str | None = None


class GetJob(Job, frozen=True, kw_only=True):
    """Return the rows of these ids, in their order."""

    collection: str
    ids: list[int | str]
    output_fields: list[str] | None = None
    partition_names: list[str] | None = None
    min_version: int | None = None
    encoding: Encoding = "json"
    id_format: IdFormat = "int"


class CountJob(Job, frozen=True, kw_only=True):
    """Count the rows, or those for which an expression is true."""

    collection: str
    expr: str | None = None
    expr_params: dict[str, ExprValue] = {}
    partition_names: list[str] | None = None
    min_version: int | None = None


class QueryJob(Job, frozen=True, kw_only=True):
    """Return the rows for which an expression is true, ascending by id.

    Page by page and of one version throughout with `version`, which the first page's reply tells, and `after`, the last
    id of the page before.
    """

    collection: str
    limit: int
    offset: int = 0
    expr: str | None = None
    expr_params: dict[str, ExprValue] = {}
    partition_names: list[str] | None = None
    output_fields: list[str] | None = None
    min_version: int | None = None
    version: int | None = None
    after: int | str | None = None
    encoding: Encoding = "json"
    id_format: IdFormat = "int"


class CompactJob(Job, frozen=True, kw_only=True):
    """Merge small segments where that pays, drop the rows that were deleted, and build indexes."""

    collection: str
    partition_names: list[str] | None = None


class BuildJob(Job, frozen=True, kw_only=True):
    """Build every index that is not built yet, merging all small segments for it."""

    collection: str
    partition_names: list[str] | None = None


class LoadJob(Job, frozen=True, kw_only=True):
    """Load and pin on every live worker what a search of these partitions would open."""

    collection: str
    partition_names: list[str] | None = None
    field: str | None = None


class ReleaseJob(Job, frozen=True, kw_only=True):
    """Unpin and free on every live worker what `load` or searches brought into memory."""

    collection: str
    partition_names: list[str] | None = None


class CancelJob(Job, frozen=True, kw_only=True):
    """Cancel jobs, wherever they are: each is answered CANCELLED unless it is done or, a write, has begun."""

    job_ids: list[str]


class PingJob(Job, frozen=True, kw_only=True):
    """Ask every live worker for its name and release, and with `jobs` for the jobs that it holds."""

    jobs: bool = False


class VectorFieldSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One vector column of a collection to create."""

    name: str
    dim: int
    metric_type: Metric = "L2"
    index: str = "HNSW"
    index_params: dict[str, int] = {}


class ScalarFieldSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One scalar column of a collection to create."""

    name: str
    type: ScalarType
    nullable: bool = False


class CreateJob(Job, frozen=True, kw_only=True):
    """Create a collection; with `partition_name` alone a partition of one; with `scalar_fields` alone, add them to one.

    Fields that are added are nullable, and null in the rows that are there.
    """

    collection: str
    vector_fields: list[VectorFieldSpec] = []
    scalar_fields: list[ScalarFieldSpec] = []
    primary_key: PrimaryKey = "int64"
    partition_name: str | None = None


class DropJob(Job, frozen=True, kw_only=True):
    """Drop a collection, or one partition of it with its rows."""

    collection: str
    partition_name: str | None = None


class RenameJob(Job, frozen=True, kw_only=True):
    """Give a collection a new name; searches under the old one are answered COLLECTION_NOT_FOUND from then on."""

    collection: str
    new_name: str


class ListJob(Job, frozen=True, kw_only=True):
    """List the collections, by name."""


class DescribeJob(Job, frozen=True, kw_only=True):
    """Describe a collection: schema, partitions, rows, bytes, version."""

    collection: str


#: A job's `type` property, which is also the first word of its routing key, and the Struct of its body.
JOB_TYPES: dict[str, type[Job]] = {
    "search": SearchJob,
    "load": LoadJob,
    "release": ReleaseJob,
    "cancel": CancelJob,
    "ping": PingJob,
    "create": CreateJob,
    "drop": DropJob,
    "rename": RenameJob,
    "list": ListJob,
    "describe": DescribeJob,
    "upsert": UpsertJob,
    "insert": InsertJob,
    "delete": DeleteJob,
    "get": GetJob,
    "count": CountJob,
    "query": QueryJob,
    "compact": CompactJob,
    "build": BuildJob,
}

TYPE_OF: dict[type[Job], str] = {struct: name for name, struct in JOB_TYPES.items()}


class TimingMs(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where a job's time in the worker went, in milliseconds: waiting, loading segments, searching, and all of it."""

    queue: float = 0.0
    load: float = 0.0
    search: float = 0.0
    total: float = 0.0


class ErrorReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Why a job has no result; `errors.py` has the codes."""

    code: str
    message: str
    field: str | None = None
    retryable: bool = False


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The answer to one job.

    `status` is `ok`, `partial` (a result that does not cover everything, or, of a control job, progress) or `error`.
    `hits` answers a search, and `explain` says how it was done, one object a segment; `result` answers every other type
    (docs/wire.md lists the keys of both).
    """

    format: int = msgspec.field(default_factory=lambda: FORMAT)  # not as a default, which would be left out
    job_id: str
    status: Literal["ok", "partial", "error"]
    version: int | None = None
    hits: Hits | None = None
    explain: list[dict[str, Any]] | None = None
    result: dict[str, Any] | None = None
    error: ErrorReply | None = None
    timing_ms: TimingMs | None = None
    worker: str | None = None
    attempt: int = 1


# msgspec learns the types of a Struct when it is first read, and a second thread that reads it meanwhile ends the
# process (0.22.0, SIGSEGV): so they are learnt here, before there are threads.
for _struct in (*JOB_TYPES.values(), Reply):
    msgspec.json.Decoder(_struct)
