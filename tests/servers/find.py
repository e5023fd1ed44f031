"""Which servers a test run uses: the configured ones if they answer, else private ones."""

import contextlib
import os
from collections.abc import Iterator, Sequence

from tests.servers import compose, rabbitmq, redis
from tests.servers.virtual_hosts import VirtualHosts

BROKER_URL = os.environ.get("NEARMQ_TEST_URL", "amqp://guest:guest@127.0.0.1:5672/%2F")
REDIS_URL = os.environ.get("NEARMQ_TEST_REDIS_URL", "redis://127.0.0.1:6379/0")

#: Debian's and Ubuntu's packages of the two servers.
PACKAGES = ("rabbitmq-server", "redis-server")


class MissingServer(Exception):
    """No server answers and none can be started."""

    def __init__(self, name: str, variable: str) -> None:
        super().__init__(f"no {name}: set {variable}, or install it: apt-get install -y {' '.join(PACKAGES)}")


def shared_broker() -> contextlib.AbstractContextManager[VirtualHosts]:
    """Lend virtual hosts of the configured broker, or of a private one when it does not answer or gives none."""
    with contextlib.suppress(PermissionError):
        if rabbitmq.answers(BROKER_URL):
            return contextlib.closing(VirtualHosts(BROKER_URL))
    return _own_broker()


def shared_redis() -> contextlib.AbstractContextManager[redis.Database]:
    """Lend a database of the configured Redis, or of a private one when it does not answer or has none free."""
    with contextlib.suppress(PermissionError):
        if redis.answers(REDIS_URL):
            return contextlib.closing(redis.Database(REDIS_URL))
    return _own_redis()


def private_broker(*, config: Sequence[str] = (), plugins: Sequence[str] = ()) -> rabbitmq.Broker:
    """Prepare a broker of one's own; `start` it, and `close` it whatever happens."""
    with contextlib.suppress(FileNotFoundError):
        return rabbitmq.PrivateBroker(config=config, plugins=plugins)
    if compose.available():
        return compose.ComposeBroker(config=config, plugins=plugins)
    raise MissingServer("RabbitMQ", "NEARMQ_TEST_URL")


def private_redis(*, options: Sequence[str] = ()) -> redis.Redis:
    """Prepare a Redis of one's own; `start` it, and `close` it whatever happens."""
    with contextlib.suppress(FileNotFoundError):
        return redis.PrivateRedis(options=options)
    if compose.available():
        return compose.ComposeRedis(options=options)
    raise MissingServer("Redis", "NEARMQ_TEST_REDIS_URL")


@contextlib.contextmanager
def _own_broker() -> Iterator[VirtualHosts]:
    with contextlib.closing(private_broker()) as broker:
        broker.start()
        yield VirtualHosts(broker.url, broker)


@contextlib.contextmanager
def _own_redis() -> Iterator[redis.Database]:
    with contextlib.closing(private_redis()) as server:
        server.start()
        with contextlib.closing(redis.Database(server.url)) as database:
            yield database
