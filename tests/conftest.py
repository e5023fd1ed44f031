"""Fixtures that lend real servers; see `tests/servers`."""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.servers.redis import Database
from tests.servers.virtual_hosts import VirtualHosts

#: The process ends so soon after the last test, else it says in which threads it hangs.
_END_S = 60.0


def pytest_addoption(parser: pytest.Parser) -> None:
    """Here, since only the outermost conftest may add options."""
    parser.addoption("--seeds", type=int, default=1, help="runs of each fault test, each with another seed")


def pytest_configure() -> None:
    """Let no worker start itself anew for huge pages (`nearmq_worker/huge_pages.py`): most live for seconds."""
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(exitstatus: int) -> None:
    """Let no thread that a test has left behind keep the process, and whoever waits for it, for ever."""

    def end() -> None:
        time.sleep(_END_S)
        faulthandler.dump_traceback(sys.__stderr__)
        os._exit(exitstatus)

    threading.Thread(target=end, name="end of tests", daemon=True).start()
    faulthandler.dump_traceback_later(2 * _END_S, exit=True, file=sys.__stderr__)  # should no Python run by then


@pytest.fixture(scope="session", autouse=True)
def own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test sees the settings of whoever runs it."""
    empty = tmp_path_factory.mktemp("settings")
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith("NEARMQ_") and not name.startswith("NEARMQ_TEST_"):
                patch.delenv(name)
        patch.setenv("XDG_CONFIG_HOME", str(empty))
        yield empty


@pytest.fixture(scope="session")
def shared_broker() -> Iterator[VirtualHosts]:
    with servers.shared_broker() as virtual_hosts:
        yield virtual_hosts


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[Database]:
    with servers.shared_redis() as database:
        yield database


@pytest.fixture
def broker_url(shared_broker: VirtualHosts) -> Iterator[str]:
    """The URL of an empty virtual host of this test's own; the broker is shared, so not to be broken."""
    url = shared_broker.take()
    yield url
    shared_broker.give_back(url)


@pytest.fixture
def redis_url(shared_redis: Database) -> Iterator[str]:
    """The URL of an empty database of this test's own; the server is shared, so not to be broken."""
    shared_redis.flush()
    yield shared_redis.url
    shared_redis.flush()


@pytest.fixture
def private_broker() -> Iterator[Callable[..., servers.Broker]]:
    """Starts a RabbitMQ that the test may break: `private_broker(config=(...), plugins=(...))`; boots in 4 to 5 s."""
    with contextlib.ExitStack() as stack:

        def start(**arguments: object) -> servers.Broker:
            broker = stack.enter_context(contextlib.closing(servers.private_broker(**arguments)))
            broker.start()
            return broker

        yield start


@pytest.fixture
def private_redis() -> Iterator[Callable[..., servers.Redis]]:
    """Starts a Redis that the test may break: `private_redis("--maxmemory", "64mb")`."""
    with contextlib.ExitStack() as stack:

        def start(*options: str) -> servers.Redis:
            server = stack.enter_context(contextlib.closing(servers.private_redis(options=options)))
            server.start()
            return server

        yield start
