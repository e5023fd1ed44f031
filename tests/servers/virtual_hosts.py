"""Virtual hosts of one's own on a broker that others use too."""

import base64
import os
import subprocess
import urllib.parse
import urllib.request
import uuid
from concurrent.futures import Future, ThreadPoolExecutor

from tests.servers import rabbitmq


class VirtualHosts:
    """Makes virtual hosts on a broker, one for each test, and deletes each when it is given back.

    They are made and deleted some at a time, because each call of rabbitmqctl starts an Erlang machine and takes a
    second or more; and soon, because quorum queues hold file handles for as long as they are there, of which a broker
    may have a few hundred. Those that an interrupted run on this machine left are deleted too. While tests use some,
    the next ones are made, except on a private broker, which a test may be about to break.

    Args:
        url: of a user that will have every permission in them.
        broker: the private broker that listens there; without one, rabbitmqctl's default node and the management API
            are tried.

    Raises:
        PermissionError: virtual hosts cannot be made on this broker from here.
    """

    BATCH = 16

    def __init__(self, url: str, broker: rabbitmq.Broker | None = None) -> None:
        self._url = urllib.parse.urlsplit(url)
        self._broker = broker
        self._used: list[str] = []
        self._unused = self._renew(self.BATCH, [])
        self._maker = ThreadPoolExecutor(1, "virtual hosts")
        self._next: Future[list[str]] | None = None

    def take(self) -> str:
        """Return the URL of an empty virtual host."""
        if not self._unused:
            self._unused = self._renew(self.BATCH, self._take_used()) if self._next is None else self._next.result()
            if self._broker is None:
                self._next = self._maker.submit(self._renew, self.BATCH, self._take_used())
        return self._url._replace(path=f"/{self._unused.pop()}").geturl()

    def give_back(self, url: str) -> None:
        """Let a virtual host be deleted, soon."""
        self._used.append(urllib.parse.urlsplit(url).path[1:])

    def close(self) -> None:
        """Delete all that are left."""
        self._maker.shutdown()
        made = [] if self._next is None else self._next.result()
        self._renew(0, [*self._take_used(), *self._unused, *made])

    def _take_used(self) -> list[str]:
        used, self._used = self._used, []
        return used

    def _renew(self, count: int, used: list[str]) -> list[str]:
        """Delete those that are used and return new ones."""
        unused = [f"nearmq-test-{os.getpid()}-{uuid.uuid4().hex}" for _ in range(count)]
        user = urllib.parse.unquote(self._url.username or "guest")
        left_over = (
            '[V || V <- rabbit_vhost:list_names(), [<<"nearmq">>, <<"test">>, Pid, _] <- [binary:split(V, <<"-">>, '
            '[global])], not filelib:is_dir("/proc/" ++ binary_to_list(Pid))]'
        )
        expression = (
            f'[catch rabbit_vhost:delete(V, <<"test">>) || V <- {_binaries(used)} ++ {left_over}], '
            '[begin ok = rabbit_vhost:add(V, <<"test">>), rabbit_auth_backend_internal:set_permissions('
            f'<<"{user}">>, V, <<".*">>, <<".*">>, <<".*">>, <<"test">>) end || V <- {_binaries(unused)}], ok.'
        )
        if self._broker is not None:
            self._broker.rabbitmqctl("eval", expression)
            return unused
        # rabbitmqctl reaches the machine's default node, which need not be the one that listens at the URL.
        listens = f"fun(Listener) -> element(6, Listener) =:= {self._url.port or 5672} end"
        same_node = f"true = lists:any({listens}, rabbit_networking:active_listeners())"
        try:
            if self._url.hostname not in {"127.0.0.1", "localhost"}:
                raise FileNotFoundError("rabbitmqctl")
            rabbitmq.run(["rabbitmqctl", "-q", "eval", f"{same_node}, {expression}"], os.environ)
        except (OSError, subprocess.SubprocessError):
            for name in used:
                self._manage("DELETE", name)
            for name in unused:
                self._manage("PUT", name)
        return unused

    def _manage(self, method: str, name: str) -> None:
        login = urllib.parse.unquote(f"{self._url.username or 'guest'}:{self._url.password or 'guest'}")
        request = urllib.request.Request(f"http://{self._url.hostname}:15672/api/vhosts/{name}", method=method)
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except OSError as error:
            raise PermissionError(
                f"no virtual host can be made: rabbitmqctl failed, and {request.full_url}: {error}"
            ) from None


def _binaries(names: list[str]) -> str:
    """Return an Erlang list of binaries."""
    return "[" + ", ".join(f'<<"{name}">>' for name in names) + "]"
