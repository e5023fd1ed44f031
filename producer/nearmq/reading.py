"""The reads of stored rows of a collection: by id, by expression, page by page."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack, cast

from msgspec.structs import replace

from nearmq.arguments import Ids, check_keywords
from nearmq.errors import VersionExpired
from nearmq.jobs import ExprValue, QueryJob
from nearmq.row_arguments import GetOptions, QueryOptions, count_job, get_job, query_job
from nearmq.row_results import Rows

if TYPE_CHECKING:
    from nearmq.client import Client


class Reading:
    """The part of `Collection` that reads stored rows."""

    _client: "Client"
    name: str

    def get(self, ids: Ids, **options: Unpack[GetOptions]) -> Rows:
        """Return the rows of these ids, in their order; those that are not there are left out.

        Args:
            ids: primary keys, at most 16,384.
            options: see GetOptions.
        """
        job = get_job(self.name, ids, options)
        return Rows.of(self._client.submit(job, timeout_s=options.get("timeout_s")).result())

    def query(self, expr: str | None = None, **options: Unpack[QueryOptions]) -> Rows:
        """Return the rows for which an expression is true, or any, ascending by id.

        Args:
            expr: docs/filters.md says what it may say; None for all rows.
            options: see QueryOptions; `limit` is at most 16,384, which is also the default: `iterate` has no limit.
        """
        job = query_job(self.name, expr, options)
        return Rows.of(self._client.submit(job, timeout_s=options.get("timeout_s")).result())

    def count(
        self,
        expr: str | None = None,
        *,
        expr_params: Mapping[str, ExprValue] | None = None,
        partition_names: Sequence[str] | None = None,
        min_version: int | None = None,
        timeout_s: float | None = None,
    ) -> int:
        """Return how many rows there are, or for how many an expression is true."""
        job = count_job(self.name, expr, expr_params, partition_names, min_version)
        result: dict[str, Any] = self._client.submit(job, timeout_s=timeout_s).result().result or {}
        return int(result["count"])

    def iterate(
        self,
        expr: str | None = None,
        *,
        batch_size: int = 1_000,
        limit: int | None = None,
        expr_params: Mapping[str, ExprValue] | None = None,
        **options: Unpack[GetOptions],
    ) -> Iterator[Rows]:
        """Yield all rows for which an expression is true, ascending by id, in batches and of one version throughout.

        What is written meanwhile is not seen. Workers keep nothing between two batches: each is a query of its own for
        the version of the first.

        Args:
            expr: None for all rows.
            batch_size: rows a batch, 1 to 16,384; the last may have fewer, and none is empty.
            limit: rows in all; None for no limit.
            expr_params: what the placeholders of the expression stand for.
            options: see GetOptions.

        Raises:
            VersionExpired: the version was removed from the store before the last batch; begin anew.
        """
        check_keywords(options, GetOptions)
        job = replace(
            query_job(self.name, expr, cast("QueryOptions", options)),
            limit=batch_size,
            expr_params=dict(expr_params or {}),
        )
        read = 0
        while limit is None or read < limit:
            job = replace(job, limit=batch_size if limit is None else min(batch_size, limit - read))
            rows = self._page(job, read, options.get("timeout_s"))
            if len(rows):
                yield rows
            if len(rows) < job.limit:
                return
            read += len(rows)
            job = replace(job, min_version=None, version=rows.version, after=rows.ids[-1:].tolist()[0])

    def _page(self, job: QueryJob, read: int, timeout_s: float | None) -> Rows:
        try:
            return Rows.of(self._client.submit(job, timeout_s=timeout_s).result())
        except VersionExpired as error:
            raise VersionExpired(
                f"{error.message}; {read} rows of it were read, begin anew for those of a newer version",
                field=error.field,
            ) from None
