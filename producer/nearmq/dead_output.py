"""What `nearmq dead` prints: a table for people, JSON for programs."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
import pybase64
from rich.console import Console
from rich.table import Column, Table

from nearmq.command_options import print_answer
from nearmq.dead_letters import DeadLetter, Group
from nearmq.dead_runs import Outcome

#: Of the table of `show`, which is narrow; JSON has all.
COLUMNS = ("job_id", "type", "collection", "reason", "retries")

#: Types and collections that a table names of each cause.
_NAMED = 4


def letters_of(groups: Sequence[Group]) -> int:
    """Count the letters of all groups."""
    return sum(group.letters for group in groups)


def print_groups(groups: Sequence[Group], *, as_json: bool) -> None:
    """Print how many letters each cause has."""
    if as_json:
        print_answer({"letters": letters_of(groups), "causes": list(map(_facts, groups))}, "", as_json=True)
        return
    if not groups:
        sys.stdout.write("no dead letters\n")
        return
    table = Table(Column("cause", overflow="fold", min_width=20), "letters", "types", "collections", "last published")
    for group in groups:
        letters, published = f"{group.letters:,}", _time(group.last_s) or ""
        table.add_row(group.cause, letters, _named(group.types), _named(group.collections), published)
    Console().print(table)


def print_dry_run(verb: str, groups: Sequence[Group], *, as_json: bool) -> None:
    """Print what would be retried or dropped."""
    letters = letters_of(groups)
    lines = [f"would {verb} {letters:,} dead letters", *(f"  {each.letters:,}: {each.cause}" for each in groups)]
    answer = {"dry_run": True, "letters": letters, "causes": list(map(_facts, groups))}
    print_answer(answer, "\n".join(lines), as_json=as_json)


def print_outcome(verb: str, outcome: Outcome, began_s: float, *, as_json: bool) -> None:
    """Print how many were retried or dropped since `began_s` of the monotonic clock, and why others were not."""
    seconds, failed = max(time.monotonic() - began_s, 1e-3), outcome.failed.total()
    answer = {
        "dry_run": False,
        verb: outcome.done,
        "failed": failed,
        "failed_by_cause": outcome.failed,
        "seconds": round(seconds, 3),
        "letters_per_s": round((outcome.done + failed) / seconds, 1),
    }
    lines = [f"{verb} {outcome.done:,} dead letters" + (f", {failed:,} failed and stay:" if failed else "")]
    lines += [f"  {count:,}: {cause}" for cause, count in outcome.failed.most_common()]
    print_answer(answer, "\n".join(lines), as_json=as_json)


def line_of(letter: DeadLetter, *, with_body: bool) -> dict[str, Any]:
    """Return all that is known of a letter; a body that is no text is under `body_base64`."""
    message = letter.message
    return {
        "job_id": letter.job_id,
        "type": message.type,
        "collection": letter.collection,
        "reason": letter.reason,
        "queue": letter.queue,
        "published": _time(message.timestamp_s),
        "retries": letter.retries,
        "bytes": len(message.body),
        "routing_key": message.routing_key,
        "message_id": message.message_id,
        "correlation_id": message.correlation_id,
        "reply_to": message.reply_to,
        "headers": orjson.Fragment(orjson.dumps(letter.headers, default=str)),
        **(_body(message.body) if with_body else {}),
    }


def row_of(line: dict[str, Any]) -> dict[str, Any]:
    """Return what a table has of a line."""
    body = line.get("body", line.get("body_base64"))
    return {name: line[name] for name in COLUMNS} | ({} if body is None else {"body": body})


def _facts(group: Group) -> dict[str, Any]:
    return {
        "cause": group.cause,
        "letters": group.letters,
        "bytes": group.bytes,
        "types": group.types,
        "collections": group.collections,
        "first_published": _time(group.first_s),
        "last_published": _time(group.last_s),
    }


def _named(counts: Counter[str]) -> str:
    named = [f"{name or 'none'} {count:,}" for name, count in counts.most_common(_NAMED)]
    more = len(counts) - _NAMED
    return "\n".join([*named, *([f"and {more:,} more"] if more > 0 else [])])


def _body(body: bytes) -> dict[str, str]:
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": pybase64.b64encode_as_string(body)}


def _time(seconds: int) -> str | None:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z") if seconds else None
    except (OverflowError, ValueError, OSError):  # whatever the publisher wrote there
        return str(seconds)
