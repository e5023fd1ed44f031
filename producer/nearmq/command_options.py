"""What the commands that go through a client share: options, hints, questions, and how an answer is printed."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from nearmq.client import Client, connect
from nearmq.errors import CollectionNotFound, InvalidArgument, NearmqError
from nearmq.tls_files import completed

DEFAULT_URL = "local:./nearmq-data"
#: Of commands that are about a broker.
DEFAULT_BROKER_URL = "amqp://guest:guest@localhost:5672/%2F"

CollectionName = Annotated[str, typer.Argument(metavar="COLLECTION", help="The collection.")]
Url = Annotated[
    str,
    typer.Option(
        envvar="NEARMQ_URL", callback=completed, help="amqp[s]://…, or local:DIRECTORY for an embedded worker."
    ),
]
BrokerUrl = Annotated[
    str,
    typer.Option("--url", envvar="NEARMQ_URL", callback=completed, help="amqp[s]://user:password@host:port/vhost"),
]
Prefix = Annotated[str, typer.Option(envvar="NEARMQ_PREFIX", help="First word of every name.")]
Timeout = Annotated[float, typer.Option(min=0.001, help="Seconds to wait for each job's answer.")]
Expr = Annotated[str | None, typer.Option(help="Only rows for which this is true, such as 'year > 1990'.")]
Partitions = Annotated[list[str] | None, typer.Option(help="Only this partition; may be repeated.")]
OutputFields = Annotated[
    list[str] | None, typer.Option(help="A field to show with each row, * for all scalar ones; may be repeated.")
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Write JSON Lines to this file.")]
AsJsonLines = Annotated[bool, typer.Option("--json", help="Print JSON Lines instead of a table.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Check and say what would be done; change nothing.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Do not ask.")]
NoInput = Annotated[bool, typer.Option("--no-input", help="Never ask: refuse without --force.")]


@contextmanager
def connected(url: str, collection: str, *, timeout_s: float) -> Iterator[Client]:
    """Connect; the error of a collection that is not there gets the nearest name that is."""
    with connect(url, timeout_s=timeout_s) as client:
        try:
            yield client
        except CollectionNotFound as error:
            raise explained(error, client, collection) from None


def explained(error: NearmqError, client: Client, collection: str) -> NearmqError:
    """Add the nearest name to the error of a collection that is not there."""
    if not isinstance(error, CollectionNotFound) or "did you mean" in error.message:
        return error
    nearest = get_close_matches(collection, client.list_collections(), n=1)
    return CollectionNotFound(f"{error.message}, did you mean {nearest[0]!r}", field=error.field) if nearest else error


def confirm(what: str, *, force: bool, no_input: bool) -> None:
    """Ask before something that cannot be undone.

    Raises:
        InvalidArgument: nobody can be asked, and there is no --force.
    """
    if force:
        return
    if no_input or not sys.stdin.isatty():
        raise InvalidArgument(f"to {what} needs --force where nobody can be asked", field="force")
    typer.confirm(f"{what}?", abort=True, err=True)


def print_answer(answer: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """Print an answer on stdout, for programs or for people."""
    sys.stdout.write(f"{orjson.dumps(answer).decode() if as_json else text}\n")
