"""A private RabbitMQ from the installed binaries."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pika
import pika.exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from tests.servers.processes import end, free_ports, wait_ready

#: A boot takes 4 to 5 s on an idle machine; test runs share theirs.
BOOT_TIMEOUT_S = 120


class Broker(Protocol):
    """A RabbitMQ that belongs to one test (or one run) and may be broken; data and port survive `stop` and `kill`."""

    url: str

    def start(self) -> None:
        """Start it, the first time or again, and wait until a client can log in."""

    def stop(self) -> None:
        """Shut it down in order."""

    def kill(self) -> None:
        """End it with SIGKILL."""

    def rabbitmqctl(self, *args: str) -> str:
        """Run one rabbitmqctl command against it and return what it prints; raises CalledProcessError."""
        ...

    def close(self) -> None:
        """End everything that was started and remove the data; may come twice."""


class PrivateBroker:
    """A `Broker` from the installed binaries: own node name, ports, cookie, folders and epmd; runs as any user.

    Args:
        config: lines of rabbitmq.conf, such as `consumer_timeout = 10000`.
        plugins: names to enable, such as `rabbitmq_consistent_hash_exchange`.
    """

    def __init__(self, *, config: Sequence[str] = (), plugins: Sequence[str] = ()) -> None:
        self._programs = programs()
        self._folder = Path(tempfile.mkdtemp(prefix="nearmq-rabbitmq-"))
        self._port, distribution_port, epmd_port, management_port = free_ports(4)
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}/%2F"
        self._node = f"nearmq{self._port}@localhost"
        if "rabbitmq_management" in plugins:
            config = [f"management.tcp.port = {management_port}", *config]
        conf = [f"listeners.tcp.local = 127.0.0.1:{self._port}", *config]
        (self._folder / "rabbitmq.conf").write_text("\n".join(conf) + "\n")
        (self._folder / "enabled_plugins").write_text(f"[{','.join(plugins)}].\n")
        (self._folder / "rabbitmq-env.conf").touch()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))}
        self._environment = inherited | {
            "HOME": str(self._folder),  # where the cookie is kept
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "data"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(self._folder / "rabbitmq-env.conf"),  # not the machine's
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none",
            "detached": "1",  # the script becomes the node, so that the pid we kill and wait for is the node's
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP_SECONDS": "0",
        }
        self._epmd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        # Started here, in the foreground: the epmd that a node starts by itself outlives it, and nobody knows its pid.
        self._epmd = self._epmd or self._spawn("epmd")
        self._server = self._spawn(str(self._programs / "rabbitmq-server"))
        try:
            wait_ready(lambda: answers(self.url), self._server, what="RabbitMQ", timeout_s=BOOT_TIMEOUT_S)
        except RuntimeError as error:
            raise RuntimeError(f"{error}:\n{(self._folder / 'output').read_text()}") from None

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def rabbitmqctl(self, *args: str) -> str:
        return run([str(self._programs / "rabbitmqctl"), "-q", "-n", self._node, *args], self._environment)

    def close(self) -> None:
        self.kill()
        if self._epmd is not None:
            end(self._epmd, signal.SIGKILL)
            self._epmd = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _spawn(self, program: str) -> subprocess.Popen[bytes]:
        with (self._folder / "output").open("ab") as output:
            return subprocess.Popen(
                [program],
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _end(self, number: signal.Signals) -> None:
        if self._server is not None:
            end(self._server, number)
            self._server = None


def programs() -> Path:
    """Find the folder of rabbitmq-server and rabbitmqctl.

    Debian's programs on the PATH change to the user rabbitmq, or refuse; those in the package's lib folder do neither.

    Raises:
        FileNotFoundError: RabbitMQ or Erlang is not installed.
    """
    packaged = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin"))
    on_path = shutil.which("rabbitmq-server")
    folder = packaged[-1] if packaged else Path(on_path).resolve().parent if on_path else None
    if folder is None or shutil.which("epmd") is None:
        raise FileNotFoundError("rabbitmq-server")
    return folder


def answers(url: str) -> bool:
    """Whether a client can connect, log in and open the virtual host; a busy broker is given time."""
    parameters = pika.URLParameters(url)
    parameters.socket_timeout, parameters.stack_timeout = 10, 30
    try:
        pika.BlockingConnection(parameters).close()
    except (pika.exceptions.AMQPError, AMQPConnectorException, OSError):
        return False
    return True


def run(command: list[str], environment: Mapping[str, str]) -> str:
    """Run a program and return what it prints; raises CalledProcessError."""
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120).stdout
