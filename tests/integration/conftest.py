"""A broker that this folder's tests may break; they share it, since each boot takes seconds."""

import contextlib
from collections.abc import Iterator

import pytest

from tests import servers
from tests.servers.virtual_hosts import VirtualHosts


@pytest.fixture(scope="session")
def own_broker() -> Iterator[servers.Broker]:
    """Running at the start of each test, and to be left so."""
    with contextlib.closing(servers.private_broker()) as broker:
        broker.start()
        yield broker


@pytest.fixture(scope="session")
def own_virtual_hosts(own_broker: servers.Broker) -> VirtualHosts:
    return VirtualHosts(own_broker.url, own_broker)


@pytest.fixture
def own_broker_url(own_virtual_hosts: VirtualHosts) -> str:
    """The URL of an empty virtual host on `own_broker`."""
    return own_virtual_hosts.take()
