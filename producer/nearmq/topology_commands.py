"""`nearmq topology show | check | apply | permissions`: what there is on the broker, and who may use it."""

import shlex
import sys
from dataclasses import asdict
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Column, Table

from nearmq.command_options import DEFAULT_BROKER_URL, AsJson, BrokerUrl, DryRun, Prefix
from nearmq.permissions import Role, permissions
from nearmq.pools import Pool, with_pools
from nearmq.topology import DEFAULT_PREFIX, Declarations, Names, QueueLimits, declarations

app = typer.Typer(name="topology", help="Show, check or make nearmq's exchanges and queues, and say who may use them.")

_DEFAULTS = QueueLimits()

Deliveries = Annotated[
    int, typer.Option(envvar="NEARMQ_DELIVERY_LIMIT", help="Redeliveries before a job is dead-lettered.")
]
QueueBytes = Annotated[
    int, typer.Option(envvar="NEARMQ_QUEUE_BYTES", help="Bytes a job queue holds before it refuses jobs.")
]
DeadBytes = Annotated[
    int, typer.Option(envvar="NEARMQ_DEAD_BYTES", help="Bytes of dead letters kept before they back up.")
]
Pools = Annotated[
    list[str] | None,
    typer.Option(
        "--pool",
        envvar="NEARMQ_POOLS",
        metavar="NAME=COLLECTION,…",
        help="A queue of its own for the read jobs of these collections; may be repeated.",
    ),
]


@app.command()
def show(
    *,
    prefix: Prefix = DEFAULT_PREFIX,
    delivery_limit: Deliveries = _DEFAULTS.deliveries,
    queue_bytes: QueueBytes = _DEFAULTS.queue_bytes,
    dead_bytes: DeadBytes = _DEFAULTS.dead_bytes,
    pool: Pools = None,
    as_json: AsJson = False,
) -> None:
    """Print what apply would declare; asks no broker."""
    wanted = _wanted(prefix, delivery_limit, queue_bytes, dead_bytes, pool)
    if as_json:
        _print_json(asdict(wanted))
        return
    _print_table(wanted)


@app.command()
def check(
    *,
    url: BrokerUrl = DEFAULT_BROKER_URL,
    prefix: Prefix = DEFAULT_PREFIX,
    delivery_limit: Deliveries = _DEFAULTS.deliveries,
    queue_bytes: QueueBytes = _DEFAULTS.queue_bytes,
    dead_bytes: DeadBytes = _DEFAULTS.dead_bytes,
    pool: Pools = None,
    as_json: AsJson = False,
) -> None:
    """Compare a broker's exchanges and queues with what apply would declare; a difference exits 1."""
    from nearmq.amqp import check_topology  # noqa: PLC0415  pika is not needed to show

    problems = check_topology(url, _wanted(prefix, delivery_limit, queue_bytes, dead_bytes, pool))
    if as_json:
        _print_json({"problems": problems})
    else:
        _print_lines(problems or ["the topology is in place"])
    if problems:
        raise typer.Exit(1)


@app.command()
def apply(
    *,
    url: BrokerUrl = DEFAULT_BROKER_URL,
    prefix: Prefix = DEFAULT_PREFIX,
    delivery_limit: Deliveries = _DEFAULTS.deliveries,
    queue_bytes: QueueBytes = _DEFAULTS.queue_bytes,
    dead_bytes: DeadBytes = _DEFAULTS.dead_bytes,
    pool: Pools = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Declare what is missing; what is there already with the same arguments stays as it is, jobs included."""
    from nearmq.amqp import apply_topology, check_topology  # noqa: PLC0415  pika is not needed to show

    wanted = _wanted(prefix, delivery_limit, queue_bytes, dead_bytes, pool)
    findings = check_topology(url, wanted) if dry_run else apply_topology(url, wanted)
    if as_json:
        _print_json({"dry_run": dry_run, "findings": findings})
        return
    counts = f"{len(wanted.exchanges)} exchanges, {len(wanted.queues)} queues, {len(wanted.bindings)} bindings"
    _print_lines([*findings, f"{'nothing changed; wanted are' if dry_run else 'in place:'} {counts}"])


@app.command(name="permissions")
def print_permissions(
    *,
    role: Annotated[Role, typer.Argument(help="Whom to let in.")],
    user: Annotated[str, typer.Option(help="The login; in the names of a producer's reply queues.")],
    vhost: Annotated[str, typer.Option(help="The virtual host.")] = "/",
    prefix: Prefix = DEFAULT_PREFIX,
    queues: Annotated[list[str] | None, typer.Option("--queues", "-Q", help="A pool's queue of the worker.")] = None,
    hardened: Annotated[
        bool, typer.Option(help="The worker has a --reply-pattern; without, it needs the default exchange.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Print the commands that give a user the least it needs; asks no broker."""
    granted = permissions(role, user=user, prefix=prefix, pools=tuple(queues or ()), hardened=hardened)
    if as_json:
        _print_json({"user": user, "vhost": vhost, **asdict(granted)})
        return
    patterns = (granted.configure, granted.write, granted.read)
    _print_lines([shlex.join(["rabbitmqctl", "set_permissions", "-p", vhost, user, *patterns])])
    if granted.topics is not None:
        topics = (Names(prefix).jobs, granted.topics, ".*")
        _print_lines([shlex.join(["rabbitmqctl", "set_topic_permissions", "-p", vhost, user, *topics])])


def _wanted(
    prefix: str, delivery_limit: int, queue_bytes: int, dead_bytes: int, pools: list[str] | None
) -> Declarations:
    limits = QueueLimits(deliveries=delivery_limit, queue_bytes=queue_bytes, dead_bytes=dead_bytes)
    return with_pools(declarations(prefix, limits), Names(prefix), [Pool.read(text) for text in pools or []])


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
