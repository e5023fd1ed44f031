"""The names and declarations of nearmq's exchanges, queues and bindings, as data; `amqp.py` applies and checks them.

    nearmq.jobs (topic) ──┬─ bindings of special pools, if any
                          ├─ load.# release.# cancel.# ping.# ──> nearmq.control (fanout) ──> a queue of each worker
                          └─ all else, by alternate-exchange ──> nearmq.default (topic) ──┬─ nearmq.search
                                                                                          ├─ nearmq.write
                                                                                          ├─ nearmq.maintain
                                                                                          └─ else ──> nearmq.dead

The chain of alternate exchanges puts a job into exactly one queue: on one exchange, `search.#` and a pool's
`search.books` would both match, and the job would run twice.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from nearmq.errors import InvalidArgument

DEFAULT_PREFIX = "nearmq"
DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"

#: Which job types each shared queue takes. A type keeps its queue for ever: jobs may wait there over an upgrade.
QUEUE_TYPES: Mapping[str, tuple[str, ...]] = {
    "search": ("search", "get", "count", "query", "list", "describe"),
    "write": ("upsert", "insert", "delete", "create", "drop", "rename"),
    "maintain": ("build", "compact", "gc"),
}
#: Job types that every live worker gets.
CONTROL_TYPES = ("load", "release", "cancel", "ping")
#: Job types that concern no collection; their routing key is the type alone.
TYPES_WITHOUT_COLLECTION = ("list", "cancel", "ping")

#: Dead letters stay however often an operator looks at them. How to say "no limit" differs by version: 3.x by absence
#: (-1 drops at the first return, tried on 3.10.8), 4.x by -1 (absence means 20). Nobody reaches this one.
_NO_DELIVERY_LIMIT = 2**31 - 1
#: AMQP carries names as short strings.
_MAX_NAME_BYTES = 255
_MAX_PREFIX_BYTES = 100

_PREFIX = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\Z")

Arguments = Mapping[str, str | int | bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A durable exchange."""

    name: str
    kind: Literal["topic", "fanout", "direct"]
    arguments: Arguments = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A durable queue."""

    name: str
    arguments: Arguments = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A binding of a queue, or of an exchange, to a source exchange."""

    source: str
    destination: str
    destination_kind: Literal["queue", "exchange"]
    routing_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declarations:
    """A whole topology; declared in this order, nothing names what is not there yet."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """The bounds that the queues are declared with; a queue keeps those that it was made with.

    Attributes:
        deliveries: redeliveries of a job before it is dead-lettered. Each crash of a worker charges every job that it
            held, innocent ones too, so the limit is well above the two failures after which a job runs in a process of
            its own; 20 is the default of RabbitMQ 4.
        queue_bytes: bodies that a job queue holds before the broker refuses further jobs (QUEUE_FULL).
        dead_bytes: the same for the dead letters. When they are full, dead letters wait in the queues that they come
            from: nothing is lost, and those queues fill up and refuse jobs.
    """

    deliveries: int = 20
    queue_bytes: int = 1 << 30
    dead_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, least in (("deliveries", 3), ("queue_bytes", 1 << 20), ("dead_bytes", 1 << 20)):
            value = getattr(self, name)
            if value < least:
                raise InvalidArgument(f"{name} is {value}, allowed is {least} or more", field=name)


@dataclass(frozen=True, slots=True, eq=False)
class Names:
    """The names under one prefix. Several installations share a virtual host under prefixes of their own.

    Each is equal to itself alone: what is found out of reply addresses is kept by it.

    Raises:
        InvalidArgument: the prefix is not words of `[A-Za-z0-9_-]` between dots, is too long, or is the broker's.
    """

    prefix: str = DEFAULT_PREFIX

    def __post_init__(self) -> None:
        """Check the prefix."""
        if not _PREFIX.match(self.prefix) or len(self.prefix) > _MAX_PREFIX_BYTES or self._is_brokers():
            raise InvalidArgument(
                f"prefix {self.prefix!r} is not allowed: words of [A-Za-z0-9_-] between dots, at most "
                f"{_MAX_PREFIX_BYTES} characters, the first word not 'amq'",
                field="prefix",
            )

    @property
    def jobs(self) -> str:
        """The exchange that every job is published to."""
        return f"{self.prefix}.jobs"

    @property
    def default(self) -> str:
        """The exchange with the bindings of the shared queues."""
        return f"{self.prefix}.default"

    @property
    def control(self) -> str:
        """The exchange that copies a job to every live worker."""
        return f"{self.prefix}.control"

    @property
    def dead(self) -> str:
        """The exchange, and the queue, of dead letters."""
        return f"{self.prefix}.dead"

    @property
    def replies(self) -> str:
        """The exchange of replies in hardened mode."""
        return f"{self.prefix}.replies"

    def queue(self, pool: str) -> str:
        """The shared queue of a key of QUEUE_TYPES."""
        return f"{self.prefix}.{pool}"

    def queue_of(self, job_type: str) -> str | None:
        """The shared queue that takes a job type; None for control jobs, which go to every worker."""
        if job_type in CONTROL_TYPES:
            return None
        for pool, types in QUEUE_TYPES.items():
            if job_type in types:
                return self.queue(pool)
        raise InvalidArgument(f"job type {job_type!r} has no queue", field="type")

    def control_queue(self, worker: str) -> str:
        """The exclusive queue by which one worker connection gets control jobs."""
        return f"{self.control}.{worker}"

    def is_own(self, name: str) -> bool:
        """Say whether a queue or exchange name lies under the prefix, declared or not."""
        return name == self.prefix or name.startswith(f"{self.prefix}.")

    def _is_brokers(self) -> bool:
        return self.prefix == "amq" or self.prefix.startswith("amq.")


def routing_key(job_type: str, collection: str | None = None, slot: str | None = None) -> str:
    """Return `<type>.<collection>`, the type alone for a job of no collection, with `.<slot>` for cache affinity."""
    return ".".join(word for word in (job_type, collection, slot) if word is not None)


@lru_cache(1_024)  # there are few clients, and a reply to each of their jobs
def check_reply_to(reply_to: str, names: Names, *, hardened: re.Pattern[str] | None = None) -> None:
    """Refuse an address that a reply must never be sent to.

    Args:
        reply_to: as published, or as a worker reads it: the broker appends its token to the direct reply-to address.
        hardened: in hardened mode, the pattern that the whole name has to match. Replies then go through the replies
            exchange alone, which direct reply-to cannot be bound to.

    Raises:
        InvalidArgument: with field `reply_to`.
    """
    if not reply_to or len(reply_to.encode()) > _MAX_NAME_BYTES:
        raise _refused(f"reply_to has {len(reply_to.encode())} bytes, allowed are 1 to {_MAX_NAME_BYTES}")
    if names.is_own(reply_to):
        raise _refused(f"reply_to {reply_to!r} is under nearmq's own prefix {names.prefix!r}, use a queue of your own")
    if hardened is not None and not hardened.fullmatch(reply_to):
        raise _refused(f"reply_to {reply_to!r} does not match {hardened.pattern!r}, the pattern of hardened mode")
    is_direct = is_direct_reply_to(reply_to)
    if hardened is not None and is_direct:
        raise _refused(f"reply_to {reply_to!r} is direct reply-to, which hardened mode does not serve")
    if reply_to.startswith("amq.") and not is_direct:
        raise _refused(
            f"reply_to {reply_to!r} is a name of the broker's; allowed of those is {DIRECT_REPLY_TO!r} alone, so give "
            "the reply queue a name"
        )


def is_direct_reply_to(reply_to: str) -> bool:
    """Say whether the address is direct reply-to, with or without the broker's token: best effort, never mandatory."""
    return reply_to == DIRECT_REPLY_TO or reply_to.startswith(f"{DIRECT_REPLY_TO}.")


def declarations(prefix: str = DEFAULT_PREFIX, limits: QueueLimits | None = None) -> Declarations:
    """Return all that `nearmq topology apply` declares under a prefix."""
    names = Names(prefix)
    limits = limits or QueueLimits()
    return Declarations(exchanges=_exchanges(names), queues=_queues(names, limits), bindings=_bindings(names))


def _exchanges(names: Names) -> tuple[Exchange, ...]:
    return (
        Exchange(name=names.dead, kind="fanout"),
        Exchange(name=names.default, kind="topic", arguments={"alternate-exchange": names.dead}),
        Exchange(name=names.jobs, kind="topic", arguments={"alternate-exchange": names.default}),
        # No alternate exchange: a control job that no worker hears is returned to its publisher, who can say so.
        Exchange(name=names.control, kind="fanout"),
        Exchange(name=names.replies, kind="direct"),
    )


def _queues(names: Names, limits: QueueLimits) -> tuple[Queue, ...]:
    dead = _quorum(deliveries=_NO_DELIVERY_LIMIT, max_bytes=limits.dead_bytes)
    jobs = _quorum(deliveries=limits.deliveries, max_bytes=limits.queue_bytes) | {
        "x-dead-letter-exchange": names.dead,
        # Keeps a dead letter until the dead queue has confirmed it; needs reject-publish.
        "x-dead-letter-strategy": "at-least-once",
    }
    # One consumer at a time keeps the publish order of writes.
    write = jobs | {"x-single-active-consumer": True}
    return (
        Queue(name=names.dead, arguments=dead),
        Queue(name=names.queue("search"), arguments=jobs),
        Queue(name=names.queue("write"), arguments=write),
        Queue(name=names.queue("maintain"), arguments=jobs),
    )


def _quorum(*, deliveries: int, max_bytes: int) -> dict[str, str | int | bool]:
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": deliveries,
        "x-max-length-bytes": max_bytes,
        "x-overflow": "reject-publish",
    }


def _bindings(names: Names) -> tuple[Binding, ...]:
    shared = tuple(
        Binding(
            source=names.default, destination=names.queue(pool), destination_kind="queue", routing_key=f"{job_type}.#"
        )
        for pool, types in QUEUE_TYPES.items()
        for job_type in types
    )
    control = tuple(
        Binding(source=names.jobs, destination=names.control, destination_kind="exchange", routing_key=f"{job_type}.#")
        for job_type in CONTROL_TYPES
    )
    dead = Binding(source=names.dead, destination=names.dead, destination_kind="queue")
    return (dead, *shared, *control)


def _refused(message: str) -> InvalidArgument:
    return InvalidArgument(message, field="reply_to")
