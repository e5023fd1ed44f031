"""Real RabbitMQ and Redis servers for the tests: the configured ones, or private ones that a test may break.

    find.py        which servers this run uses, and the one line to say when there are none
    rabbitmq.py        a private broker from the installed binaries
    virtual_hosts.py   virtual hosts of one's own on a broker that others use too
    certificates.py    an authority that signs the certificates of servers and clients
    redis.py           a private Redis from the installed binary, and a database of one's own on any Redis
    compose.py         the same two through docker compose, where no binaries are installed
    processes.py       free ports, waiting for readiness, ending processes

`python -m tests.servers` makes sure that there are servers, installing Debian's packages where it may; `make test` runs
it first.
"""

from tests.servers.find import MissingServer, private_broker, private_redis, shared_broker, shared_redis
from tests.servers.rabbitmq import Broker
from tests.servers.redis import Redis

__all__ = ["Broker", "MissingServer", "Redis", "private_broker", "private_redis", "shared_broker", "shared_redis"]
