"""A private RabbitMQ or Redis through docker compose, for machines where neither is installed."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.servers import rabbitmq, redis
from tests.servers.processes import free_ports, wait_ready

#: The first start may have to pull an image.
PULL_TIMEOUT_S = 280


def available() -> bool:
    """Whether compose is there and an engine answers; the program `docker` alone says neither."""
    for command in (["docker", "compose", "version"], ["docker", "info"]):
        try:
            if subprocess.run(command, capture_output=True, check=False, timeout=30).returncode != 0:
                return False
        except (OSError, subprocess.TimeoutExpired):
            return False
    return True


class _Service:
    """One compose project with one service; its folder holds the compose file, which is JSON and therefore YAML."""

    def __init__(self, kind: str, service: dict[str, object], *, internal_port: int) -> None:
        [self._port] = free_ports(1)
        self._folder = Path(tempfile.mkdtemp(prefix=f"nearmq-{kind}-"))
        service |= {"ports": [f"127.0.0.1:{self._port}:{internal_port}"]}
        (self._folder / "compose.json").write_text(json.dumps({"services": {"server": service}}))

    def kill(self) -> None:
        self._compose("kill", "server")

    def stop(self) -> None:
        self._compose("stop", "server")

    def close(self) -> None:
        if self._folder.exists():
            self._compose("down", "--volumes")
            shutil.rmtree(self._folder)

    def _compose(self, *args: str) -> str:
        project = ["-f", str(self._folder / "compose.json"), "-p", self._folder.name.lower()]
        command = ["docker", "compose", *project, *args]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PULL_TIMEOUT_S).stdout


class ComposeBroker(_Service):
    """A `rabbitmq.Broker` in a container."""

    def __init__(self, *, config: Sequence[str] = (), plugins: Sequence[str] = ()) -> None:
        content = {"conf": {"content": "\n".join(["loopback_users = none", *config]) + "\n"}}
        enabled = {"plugins": {"content": f"[{','.join(plugins)}].\n"}}
        service: dict[str, object] = {
            "image": "rabbitmq:4-management",
            "hostname": "nearmq",  # the node's name, and so its data, must survive a restart
            "configs": [
                {"source": "conf", "target": "/etc/rabbitmq/conf.d/90-nearmq.conf"},
                {"source": "plugins", "target": "/etc/rabbitmq/enabled_plugins"},
            ],
        }
        super().__init__("rabbitmq", service, internal_port=5672)
        file = self._folder / "compose.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"configs": content | enabled}))
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}/%2F"

    def start(self) -> None:
        self._compose("up", "-d", "server")
        wait_ready(lambda: rabbitmq.answers(self.url), None, what="RabbitMQ", timeout_s=rabbitmq.BOOT_TIMEOUT_S)

    def rabbitmqctl(self, *args: str) -> str:
        return self._compose("exec", "-T", "server", "rabbitmqctl", "-q", *args)


class ComposeRedis(_Service):
    """A `redis.Redis` in a container."""

    def __init__(self, *, options: Sequence[str] = ()) -> None:
        command = ["redis-server", "--save", "", *options]
        super().__init__("redis", {"image": "redis:8", "command": command}, internal_port=6379)
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        self._compose("up", "-d", "server")
        wait_ready(lambda: redis.answers(self.url), None, what="Redis", timeout_s=60)
