"""`nearmq jobs` and `nearmq cancel JOB_ID…`: what the live workers are at, and an end to some of it."""

import sys
from typing import Annotated

import typer

from nearmq.cli import ExitCode
from nearmq.client import connect
from nearmq.command_options import DEFAULT_BROKER_URL, AsJsonLines, BrokerUrl, Prefix, Timeout
from nearmq.printing import Printer
from nearmq.topology import DEFAULT_PREFIX

_JOB_COLUMNS = ("worker", "job_id", "type", "collection", "state", "age_s", "queries", "attempt")
_CANCEL_COLUMNS = ("job_id", "state")
#: Ids of one cancel job.
_AT_ONCE = 1_000


def jobs(
    *,
    url: BrokerUrl = DEFAULT_BROKER_URL,
    prefix: Prefix = DEFAULT_PREFIX,
    collection: Annotated[str | None, typer.Option(help="Only jobs of this collection.", show_default="all")] = None,
    timeout: Timeout = 30.0,
    as_json: AsJsonLines = False,
) -> None:
    """Show the jobs that the live workers hold, running or waiting there; what waits in a queue is not among them."""
    with (
        connect(url, timeout_s=timeout, prefix=prefix) as client,
        Printer(None, as_json=as_json, columns=_JOB_COLUMNS) as printer,
    ):
        for job in client.jobs():
            if collection in {None, job["collection"]}:
                row = {name: job.get(name) for name in _JOB_COLUMNS}
                printer.write(row, [row])


def cancel(
    job_ids: Annotated[list[str], typer.Argument(metavar="JOB_ID", help="Ids of jobs; - reads one a line from stdin.")],
    *,
    url: BrokerUrl = DEFAULT_BROKER_URL,
    prefix: Prefix = DEFAULT_PREFIX,
    timeout: Timeout = 30.0,
    as_json: AsJsonLines = False,
) -> None:
    """Cancel jobs, whoever published them; exits 4 when some were not with any worker or write already, 1 when all."""
    with (
        connect(url, timeout_s=timeout, prefix=prefix) as client,
        Printer(None, as_json=as_json, columns=_CANCEL_COLUMNS) as printer,
    ):
        wanted = [line for text in job_ids for line in (sys.stdin.read().split() if text == "-" else [text])]
        missed = 0
        for start in range(0, len(wanted), _AT_ONCE):
            for job_id, state in client.cancel(*wanted[start : start + _AT_ONCE]).items():
                missed += state in {"writing", "absent"}
                row = {"job_id": job_id, "state": state}
                printer.write(row, [row])
    if missed:
        raise typer.Exit(ExitCode.PART_FAILED if missed < len(wanted) else ExitCode.FAILED)
