"""`nearmq dead list | show | retry | drop`: what could not be answered, why, and back again."""

import re
import time
from functools import partial
from typing import Annotated

import typer

from nearmq import dead_runs
from nearmq.amqp import DeadLetterQueue
from nearmq.cli import ExitCode
from nearmq.command_options import (
    DEFAULT_BROKER_URL,
    AsJson,
    AsJsonLines,
    BrokerUrl,
    DryRun,
    Force,
    NoInput,
    Output,
    Prefix,
    confirm,
)
from nearmq.dead_letters import Group, Selection, by_cause
from nearmq.dead_output import COLUMNS, letters_of, line_of, print_dry_run, print_groups, print_outcome, row_of
from nearmq.dead_runs import Outcome
from nearmq.errors import InvalidArgument
from nearmq.printing import Printer, counting
from nearmq.topology import DEFAULT_PREFIX, Names

app = typer.Typer(name="dead", help="Look at the dead letters, put them back, or drop them.")

Causes = Annotated[list[str] | None, typer.Option("--cause", help="Of causes that begin so; may be repeated.")]
Types = Annotated[list[str] | None, typer.Option("--type", help="Jobs of this type, or reply; may be repeated.")]
Collections = Annotated[list[str] | None, typer.Option("--collection", help="Jobs on it; may be repeated.")]
JobIds = Annotated[list[str] | None, typer.Option("--job-id", help="This job, or replies to it; may be repeated.")]
Limit = Annotated[int | None, typer.Option("--limit", "-k", min=1, help="Letters at most.", show_default="all")]

_UNIT = "letters"


@app.command(name="list")
def list_causes(
    *,
    url: BrokerUrl = DEFAULT_BROKER_URL,
    prefix: Prefix = DEFAULT_PREFIX,
    causes: Causes = None,
    types: Types = None,
    collections: Collections = None,
    job_ids: JobIds = None,
    as_json: AsJson = False,
) -> None:
    """Count the dead letters by cause, and change nothing."""
    groups = _count(url, prefix, _selection(causes, types, collections, job_ids), None)
    print_groups(groups, as_json=as_json)


@app.command()
def show(
    *,
    url: BrokerUrl = DEFAULT_BROKER_URL,
    prefix: Prefix = DEFAULT_PREFIX,
    causes: Causes = None,
    types: Types = None,
    collections: Collections = None,
    job_ids: JobIds = None,
    limit: Annotated[int, typer.Option("--limit", "-k", min=1, help="Letters at most.")] = 10,
    body: Annotated[bool, typer.Option("--body", help="With the body, as text or, where it is none, base64.")] = False,
    output: Output = None,
    as_json: AsJsonLines = False,
) -> None:
    """Show dead letters, the oldest first, and change nothing; as JSON with all their headers."""
    selection = _selection(causes, types, collections, job_ids)
    with (
        Printer(output, as_json=as_json, columns=COLUMNS) as printer,
        counting("looking", _UNIT) as on_progress,
    ):
        for letter in dead_runs.look(_opener(url, prefix), selection, limit=limit, on_progress=on_progress):
            line = line_of(letter, with_body=body)
            printer.write(line, [row_of(line)])


@app.command()
def retry(
    *,
    url: BrokerUrl = DEFAULT_BROKER_URL,
    prefix: Prefix = DEFAULT_PREFIX,
    causes: Causes = None,
    types: Types = None,
    collections: Collections = None,
    job_ids: JobIds = None,
    limit: Limit = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Letters a second at most.")] = None,
    reply_pattern: Annotated[
        str | None,
        typer.Option(envvar="NEARMQ_REPLY_PATTERN", help="The workers' own: replies go back as they send them."),
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Put dead letters back to where they came from, the oldest first; each is there before it is gone here."""
    selection = _selection(causes, types, collections, job_ids)
    if dry_run:
        print_dry_run("retry", _count(url, prefix, selection, limit), as_json=as_json)
        return
    outcome, began_s = Outcome(), time.monotonic()
    try:
        with counting("retrying", _UNIT) as on_progress:
            dead_runs.put_back(
                _opener(url, prefix, reply_pattern),
                selection,
                outcome,
                limit=limit,
                rate=rate,
                on_progress=on_progress,
            )
    finally:  # also when the connection is lost, or at Ctrl-C
        print_outcome("retried", outcome, began_s, as_json=as_json)
    if outcome.failed:
        raise typer.Exit(ExitCode.PART_FAILED if outcome.done else ExitCode.FAILED)


@app.command()
def drop(
    *,
    url: BrokerUrl = DEFAULT_BROKER_URL,
    prefix: Prefix = DEFAULT_PREFIX,
    causes: Causes = None,
    types: Types = None,
    collections: Collections = None,
    job_ids: JobIds = None,
    limit: Limit = None,
    force: Force = False,
    no_input: NoInput = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Drop dead letters for good, the oldest first; says how many first, and asks."""
    selection = _selection(causes, types, collections, job_ids)
    groups = _count(url, prefix, selection, limit)
    if dry_run:
        print_dry_run("drop", groups, as_json=as_json)
        return
    counted = letters_of(groups)
    if counted:
        confirm(f"drop {counted:,} dead letters for good", force=force, no_input=no_input)
    outcome, began_s = Outcome(), time.monotonic()
    try:
        # No more than were counted, whatever has come since.
        with counting("dropping", _UNIT) as on_progress:
            dead_runs.drop(_opener(url, prefix), selection, outcome, limit=counted, on_progress=on_progress)
    finally:
        print_outcome("dropped", outcome, began_s, as_json=as_json)


def _selection(
    causes: list[str] | None, types: list[str] | None, collections: list[str] | None, job_ids: list[str] | None
) -> Selection:
    return Selection(
        causes=tuple(causes or ()),
        types=tuple(types or ()),
        collections=tuple(collections or ()),
        job_ids=tuple(job_ids or ()),
    )


def _opener(url: str, prefix: str, reply_pattern: str | None = None) -> dead_runs.Open:
    try:
        pattern = None if reply_pattern is None else re.compile(reply_pattern)
    except re.error as error:
        raise InvalidArgument(f"reply_pattern {reply_pattern!r} is no regular expression: {error}") from error
    return partial(DeadLetterQueue, url, Names(prefix), reply_pattern=pattern)


def _count(url: str, prefix: str, selection: Selection, limit: int | None) -> list[Group]:
    with counting("looking", _UNIT) as on_progress:
        return by_cause(dead_runs.look(_opener(url, prefix), selection, limit=limit, on_progress=on_progress))
