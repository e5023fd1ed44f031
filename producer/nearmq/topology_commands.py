"""`nearmq topology show | check | apply`: the exchanges, queues and bindings, printed, compared or declared."""

import sys
from dataclasses import asdict
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Column, Table

from nearmq.topology import DEFAULT_PREFIX, Declarations, QueueLimits, declarations

app = typer.Typer(name="topology", help="Show, check or make nearmq's exchanges, queues and bindings.")

_DEFAULTS = QueueLimits()

Url = Annotated[str, typer.Option(envvar="NEARMQ_URL", help="amqp://user:password@host:5672/vhost")]
Prefix = Annotated[str, typer.Option(envvar="NEARMQ_PREFIX", help="First word of every name.")]
Deliveries = Annotated[
    int, typer.Option(envvar="NEARMQ_DELIVERY_LIMIT", help="Redeliveries before a job is dead-lettered.")
]
QueueBytes = Annotated[
    int, typer.Option(envvar="NEARMQ_QUEUE_BYTES", help="Bytes a job queue holds before it refuses jobs.")
]
DeadBytes = Annotated[
    int, typer.Option(envvar="NEARMQ_DEAD_BYTES", help="Bytes of dead letters kept before they back up.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

_DEFAULT_URL = "amqp://guest:guest@localhost:5672/%2F"


@app.command()
def show(
    *,
    prefix: Prefix = DEFAULT_PREFIX,
    delivery_limit: Deliveries = _DEFAULTS.deliveries,
    queue_bytes: QueueBytes = _DEFAULTS.queue_bytes,
    dead_bytes: DeadBytes = _DEFAULTS.dead_bytes,
    as_json: AsJson = False,
) -> None:
    """Print what apply would declare; asks no broker."""
    wanted = _wanted(prefix, delivery_limit, queue_bytes, dead_bytes)
    if as_json:
        _print_json(asdict(wanted))
        return
    _print_table(wanted)


@app.command()
def check(
    *,
    url: Url = _DEFAULT_URL,
    prefix: Prefix = DEFAULT_PREFIX,
    delivery_limit: Deliveries = _DEFAULTS.deliveries,
    queue_bytes: QueueBytes = _DEFAULTS.queue_bytes,
    dead_bytes: DeadBytes = _DEFAULTS.dead_bytes,
    as_json: AsJson = False,
) -> None:
    """Compare a broker's exchanges and queues with what apply would declare; a difference exits 1."""
    from nearmq.amqp import check_topology  # noqa: PLC0415  pika is not needed to show

    problems = check_topology(url, _wanted(prefix, delivery_limit, queue_bytes, dead_bytes))
    if as_json:
        _print_json({"problems": problems})
    else:
        _print_lines(problems or ["the topology is in place"])
    if problems:
        raise typer.Exit(1)


@app.command()
def apply(
    *,
    url: Url = _DEFAULT_URL,
    prefix: Prefix = DEFAULT_PREFIX,
    delivery_limit: Deliveries = _DEFAULTS.deliveries,
    queue_bytes: QueueBytes = _DEFAULTS.queue_bytes,
    dead_bytes: DeadBytes = _DEFAULTS.dead_bytes,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Say what is missing and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Declare what is missing; what is there already with the same arguments stays as it is, jobs included."""
    from nearmq.amqp import apply_topology, check_topology  # noqa: PLC0415  pika is not needed to show

    wanted = _wanted(prefix, delivery_limit, queue_bytes, dead_bytes)
    findings = check_topology(url, wanted) if dry_run else apply_topology(url, wanted)
    if as_json:
        _print_json({"dry_run": dry_run, "findings": findings})
        return
    counts = f"{len(wanted.exchanges)} exchanges, {len(wanted.queues)} queues, {len(wanted.bindings)} bindings"
    _print_lines([*findings, f"{'nothing changed; wanted are' if dry_run else 'in place:'} {counts}"])


def _wanted(prefix: str, delivery_limit: int, queue_bytes: int, dead_bytes: int) -> Declarations:
    return declarations(prefix, QueueLimits(deliveries=delivery_limit, queue_bytes=queue_bytes, dead_bytes=dead_bytes))


def _print_table(wanted: Declarations) -> None:
    table = Table("kind", Column("name", overflow="fold"), Column("arguments", overflow="fold"))
    for exchange in wanted.exchanges:
        table.add_row(f"{exchange.kind} exchange", exchange.name, _joined(exchange.arguments))
    for queue in wanted.queues:
        table.add_row("queue", queue.name, _joined(queue.arguments))
    for binding in wanted.bindings:
        table.add_row("binding", f"{binding.source} → {binding.destination}", binding.routing_key)
    Console().print(table)


def _joined(arguments: Any) -> str:
    return "\n".join(f"{key}={value}" for key, value in arguments.items())


def _print_json(value: dict[str, Any]) -> None:
    _print_lines([orjson.dumps(value).decode()])


def _print_lines(lines: list[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)
