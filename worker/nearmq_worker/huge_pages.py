"""Huge pages for what a worker allocates, above all its graphs: a walk jumps about in them, and finds each page sooner.

Where the kernel gives huge pages to who asks, glibc asks for them only if its environment said so when the program
started; nothing can tell it later. So the program is started anew in such an environment.
"""

import os
import sys
from pathlib import Path

#: Whether programs have all memory in huge pages, what they ask for, or none; the mode stands in brackets.
_MODES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_ON_REQUEST = "[madvise]"
#: The environment that this program was started with.
_ENVIRONMENT = Path("/proc/self/environ")
_TUNABLES = "GLIBC_TUNABLES"
_TUNABLE = "glibc.malloc.hugetlb"
#: Set in a program that was started anew: of one with privileges of its own, glibc drops the tunables each time.
_IS_ANEW = "_NEARMQ_STARTED_ANEW"


def have_huge_pages() -> None:
    """Have glibc ask for huge pages; starts the program anew unless that is no use, or its environment has decided."""
    modes = _MODES.read_text() if _MODES.exists() else ""
    asking = asking_tunables(os.environ.get(_TUNABLES, ""), modes)
    if asking is not None and _IS_ANEW not in os.environ:
        # Not in `os.environ`: settings were added to it that are read from files, passwords among them.
        entries = (entry.split(b"=", 1) for entry in _ENVIRONMENT.read_bytes().split(b"\0") if b"=" in entry)
        environment = {**dict(entries), _TUNABLES.encode(): asking.encode(), _IS_ANEW.encode(): b"1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606 - this very program


def asking_tunables(tunables: str, modes: str) -> str | None:
    """Return the tunables with which glibc asks for huge pages; None where asking is no use, or is decided there.

    Args:
        tunables: those that glibc has been told.
        modes: the kernel's, the one in force in brackets.
    """
    if _ON_REQUEST not in modes or _TUNABLE in tunables:
        return None
    return ":".join(filter(None, [tunables, f"{_TUNABLE}=1"]))
