"""Pools: a queue of its own for the read jobs of some collections, which a flood of other jobs does not reach."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nearmq.errors import InvalidArgument
from nearmq.topology import QUEUE_TYPES, TYPES_WITHOUT_COLLECTION, Binding, Declarations, Names, Queue, routing_key
from nearmq.value_checks import check_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A queue that takes the read jobs of some collections away from the shared one.

    Attributes:
        name: of the queue `<prefix>.<name>`, which workers of the pool are told by `--queues`.
        collections: whose jobs go there. A job with a slot in its routing key does not.
    """

    name: str
    collections: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> "Pool":
        """Read `name=collection,collection`.

        Raises:
            InvalidArgument: it is not of that form, or a name is none.
        """
        name, equals, collections = text.partition("=")
        if not equals:
            raise InvalidArgument(f"pool {text!r:.200} is not of the form name=collection,collection", field="pool")
        for word in (name, *collections.split(",")):
            check_name("pool", word)
        return cls(name=name, collections=tuple(collections.split(",")))


def with_pools(shared: Declarations, names: Names, pools: Sequence[Pool]) -> Declarations:
    """Add the queues of pools, of the same arguments as the shared one for read jobs, and their bindings.

    Raises:
        InvalidArgument: a pool has a name that is taken, or a collection is in two pools: its jobs would run twice.
    """
    for name, times in Counter(name for pool in pools for name in pool.collections).items():
        if times > 1:
            raise InvalidArgument(f"collection {name!r} is there {times} times in pools, allowed is once", field="pool")
    taken = {*(queue.name for queue in shared.queues), *(exchange.name for exchange in shared.exchanges)}
    arguments = next(queue.arguments for queue in shared.queues if queue.name == names.queue("search"))
    queues, bindings = [], []
    for pool in pools:
        queue = names.queue(pool.name)
        if queue in taken:
            raise InvalidArgument(f"a pool cannot be named {pool.name!r}: there is a {queue!r} already", field="pool")
        taken.add(queue)
        queues.append(Queue(name=queue, arguments=arguments))
        bindings += [
            Binding(
                source=names.jobs,
                destination=queue,
                destination_kind="queue",
                routing_key=routing_key(job_type, collection),
            )
            for collection in pool.collections
            for job_type in QUEUE_TYPES["search"]
            if job_type not in TYPES_WITHOUT_COLLECTION
        ]
    return replace(shared, queues=(*shared.queues, *queues), bindings=(*shared.bindings, *bindings))
