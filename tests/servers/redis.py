"""A private Redis from the installed binary, and a database of one's own on any Redis."""

import shutil
import signal
import subprocess
import tempfile
import urllib.parse
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import redis

from tests.servers.processes import end, free_ports, wait_ready

#: How long a run holds a database of a server that it does not own, should it end without giving it back.
CLAIM_S = 3600


class Redis(Protocol):
    """A Redis that belongs to one test (or one run) and may be broken; data and port survive `stop` and `kill`."""

    url: str

    def start(self) -> None:
        """Start it, the first time or again, and wait until it answers commands (its data is loaded)."""

    def stop(self) -> None:
        """Shut it down in order."""

    def kill(self) -> None:
        """End it with SIGKILL."""

    def close(self) -> None:
        """End it and remove the data; may come twice."""


class PrivateRedis:
    """A `Redis` from the installed binary.

    Args:
        options: as on redis-server's command line, such as `("--maxmemory", "64mb")`. Nothing is persisted by default.
    """

    def __init__(self, *, options: Sequence[str] = ()) -> None:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            raise FileNotFoundError("redis-server")
        self._folder = Path(tempfile.mkdtemp(prefix="nearmq-redis-"))
        [port] = free_ports(1)
        self.url = f"redis://127.0.0.1:{port}/0"
        # `--save ""` comes first: a later option wins.
        place = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(self._folder), "--save", ""]
        self._command = [program, *place, *options]
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "output").open("ab") as output:
            self._server = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        try:
            wait_ready(lambda: answers(self.url), self._server, what="Redis", timeout_s=60)
        except RuntimeError as error:
            raise RuntimeError(f"{error}:\n{(self._folder / 'output').read_text()}") from None

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self, number: signal.Signals) -> None:
        if self._server is not None:
            end(self._server, number)
            self._server = None


def answers(url: str) -> bool:
    """Whether it takes commands; one that still loads its data does not."""
    with redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=2) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


class Database:
    """An empty database of a Redis that others use too, held by a claim in database 0 until `close`.

    Raises:
        PermissionError: every database holds keys or is claimed.
    """

    def __init__(self, url: str) -> None:
        self._claims = redis.Redis.from_url(_database_url(url, 0))
        self._owner = uuid.uuid4().hex
        for number in range(15, 0, -1):
            self._claim = f"nearmq-test:database:{number}"
            self.url = _database_url(url, number)
            self._client = redis.Redis.from_url(self.url)
            if self._claims.set(self._claim, self._owner, nx=True, ex=CLAIM_S):
                if self._client.dbsize() == 0:
                    return
                self._claims.delete(self._claim)
            self._client.close()
        self._claims.close()
        raise PermissionError("every database from 1 to 15 holds keys or is claimed by another run")

    def flush(self) -> None:
        """Empty it."""
        self._client.flushdb()

    def close(self) -> None:
        """Empty it and give it back."""
        self.flush()
        self._claims.delete(self._claim)
        self._client.close()
        self._claims.close()


def _database_url(url: str, number: int) -> str:
    return urllib.parse.urlsplit(url)._replace(path=f"/{number}").geturl()
