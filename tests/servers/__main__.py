"""Say which servers the tests will use; install Debian's packages when there are none and that is allowed."""

import contextlib
import os
import shutil
import subprocess
import sys

from tests.servers import find, rabbitmq, redis


def main() -> int:
    """Print one line a server; return 1 when there is none and none can be installed."""
    missing = missing_private_server()
    if missing is not None and install():
        missing = missing_private_server()
    configured = {"RabbitMQ": rabbitmq.answers(find.BROKER_URL), "Redis": redis.answers(find.REDIS_URL)}
    if missing is not None and not all(configured.values()):
        sys.stderr.write(f"{missing}\n")
        return 1
    for name, answered in configured.items():
        shared = "the configured one" if answered else "a private one"
        breakable = f"; tests that break one will fail: {missing}" if missing else ", private ones to break"
        sys.stdout.write(f"{name}: {shared}{breakable}\n")
    return 0


def missing_private_server() -> find.MissingServer | None:
    """Return why no private server can be started; None when both can."""
    try:
        for private in (find.private_broker, find.private_redis):
            with contextlib.closing(private()):
                pass
    except find.MissingServer as missing:
        return missing
    return None


def install() -> bool:
    """Install Debian's packages as root, or through sudo when it asks for no password; whether that was done."""
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if shutil.which("apt-get") is None or (sudo and shutil.which("sudo") is None):
        return False
    apt = [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"]
    sys.stderr.write(f"installing {' and '.join(find.PACKAGES)}\n")
    commands = ([*apt, "update"], [*apt, "install", "-y", "--no-install-recommends", *find.PACKAGES])
    quiet = subprocess.DEVNULL
    return all(subprocess.run(each, stdin=quiet, stdout=quiet, check=False).returncode == 0 for each in commands)


if __name__ == "__main__":
    sys.exit(main())
