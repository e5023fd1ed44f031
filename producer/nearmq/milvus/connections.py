"""Clients by alias, as Milvus 2.x has them."""

from nearmq import client as nearmq_client
from nearmq.errors import InvalidArgument

DEFAULT_ALIAS = "default"


class Connections:
    """Clients by alias; `connections` is the one that collections look their client up in."""

    def __init__(self) -> None:
        self._clients: dict[str, nearmq_client.Client] = {}

    def connect(self, alias: str = DEFAULT_ALIAS, uri: str | None = None) -> None:
        """Connect under an alias, closing what had it before; `uri` as for `nearmq.connect`."""
        client = nearmq_client.connect(uri)
        self.disconnect(alias)
        self._clients[alias] = client

    def disconnect(self, alias: str) -> None:
        """Close the alias's connection, if there is one."""
        client = self._clients.pop(alias, None)
        if client is not None:
            client.close()

    def client(self, alias: str) -> nearmq_client.Client:
        """Return the client of an alias; InvalidArgument when nothing is connected under it."""
        try:
            return self._clients[alias]
        except KeyError:
            raise InvalidArgument(f"no connection {alias!r}, call connections.connect first", field="using") from None


connections = Connections()
