"""Who may do what on a broker, as data: the least that each user of nearmq needs; `docs/security.md` explains it.

A virtual host is one tenant's. RabbitMQ takes three patterns a user (configure, write, read), which it searches in the
names of queues and exchanges, and for a topic exchange one more for the routing keys of what is published there.
"""

import re
from dataclasses import dataclass
from typing import Literal

from nearmq.topology import CONTROL_TYPES, DEFAULT_PREFIX, QUEUE_TYPES, Names

Role = Literal["admin", "worker", "producer", "reader"]

#: The default exchange, which reaches every queue of its virtual host by name.
_DEFAULT_EXCHANGE = r"amq\.default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """What one user may do, each a regular expression.

    Attributes:
        configure: names that it may declare and delete.
        write: exchanges that it may publish to, and queues that it may bind.
        read: queues that it may consume and purge, and exchanges that it may bind to.
        topics: routing keys that it may publish to the exchange of jobs; None for all.
    """

    configure: str
    write: str
    read: str
    topics: str | None = None


def permissions(
    role: Role, *, user: str = "", prefix: str = DEFAULT_PREFIX, pools: tuple[str, ...] = (), hardened: bool = True
) -> Permissions:
    """Return the permissions of a role.

    Args:
        role: `admin` applies topologies and looks after dead letters; `worker` runs `nearmq worker run`; `producer`
            publishes jobs of any type; `reader` those that change nothing.
        user: the login of a producer or reader, which is in the names of its reply queues.
        prefix: first word of the exchanges' and queues' names.
        pools: the queues of special pools that the worker consumes.
        hardened: the worker has a reply pattern, and so does without the default exchange.

    Raises:
        InvalidArgument: the prefix is not allowed.
    """
    names = Names(prefix)
    match role:
        case "admin":
            everything = _whole(rf"{re.escape(prefix)}\..*")
            return Permissions(configure=everything, write=everything, read=everything)
        case "worker":
            control = rf"{re.escape(names.control)}\..*"
            written = [*map(re.escape, (names.jobs, names.dead, names.replies)), control]
            read = [*map(re.escape, (*map(names.queue, QUEUE_TYPES), *pools, names.control)), control]
            return Permissions(
                configure=_whole(control),
                write=_whole(*written, *(() if hardened else (_DEFAULT_EXCHANGE,))),
                read=_whole(*read),
                topics=rf"^({'|'.join(QUEUE_TYPES['maintain'])})\.",  # it asks for compaction by itself
            )
        case "producer" | "reader":
            own = rf"reply\.{re.escape(user)}\..*"
            reading = "|".join((*QUEUE_TYPES["search"], *CONTROL_TYPES))
            return Permissions(
                configure=_whole(own),
                write=_whole(re.escape(names.jobs), own),
                read=_whole(re.escape(names.replies), own),
                topics=rf"^({reading})(\.|$)" if role == "reader" else None,
            )


def _whole(*names: str) -> str:
    return f"^({'|'.join(names)})$" if len(names) > 1 else f"^{names[0]}$"
