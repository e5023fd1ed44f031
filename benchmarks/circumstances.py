"""When, where and with what a run was made: nothing that names the machine's owner or folders."""

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.data import ROOT
from benchmarks.findings import Circumstances

_PACKAGES = ("hnswlib", "faiss-cpu", "numpy", "pika", "redis", "hiredis", "celery", "dramatiq", "milvus-lite")


def describe(scale: str, *, is_full: bool, seconds: float, servers: Mapping[str, str]) -> Circumstances:
    """Describe the run that has just been made, with these versions of its servers."""
    return Circumstances(
        date=datetime.now(tz=UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=_commit(),
        machine=f"{os.cpu_count()} cores of {_processor()}, shared by client, broker, store and workers",
        versions={"Python": platform.python_version(), **servers, **_packages()},
        scale=scale,
        is_full=is_full,
        seconds=round(seconds, 1),
    )


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def _packages() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
