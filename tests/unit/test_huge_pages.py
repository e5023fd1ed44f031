"""Whether a worker asks for huge pages, and that the program which is started anew for it is the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nearmq_worker.huge_pages import asking_tunables

ON_REQUEST = "always [madvise] never"
PROGRAM = """
import os, pathlib, sys
from nearmq_worker import huge_pages
huge_pages._MODES = pathlib.Path(sys.argv[1])
print(os.getpid(), flush=True)
told = [os.environ.get(name) for name in ("GLIBC_TUNABLES", "GIVEN", "NEARMQ_URL")]
os.environ["NEARMQ_URL"] = "from a file"
if "drop" in sys.argv:
    os.environ.pop("GLIBC_TUNABLES", None)
huge_pages.have_huge_pages()
print(told, sys.argv[2:])
"""


@pytest.mark.parametrize(
    ("tunables", "asking"),
    [
        ("", "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.arena_max=2", "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"),
    ],
)
def test_glibc_is_told_to_ask_beside_what_it_is_told_already(tunables: str, asking: str):
    assert asking_tunables(tunables, ON_REQUEST) == asking


@pytest.mark.parametrize("modes", ["[always] madvise never", "always madvise [never]", ""])
def test_nothing_is_asked_of_a_kernel_that_gives_them_to_all_or_none(modes: str):
    assert asking_tunables("", modes) is None


@pytest.mark.parametrize("tunables", ["glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=1"])
def test_what_the_environment_says_stands(tunables: str):
    assert asking_tunables(tunables, ON_REQUEST) is None


@pytest.mark.parametrize("arguments", [["--name", "a b"], ["drop"]])
def test_the_program_is_started_anew_once_as_the_same_process_with_what_it_was_given(
    tmp_path: Path, arguments: list[str]
):
    modes, program = tmp_path / "enabled", tmp_path / "program.py"
    modes.write_text(ON_REQUEST)
    program.write_text(PROGRAM)
    environment = {name: value for name, value in os.environ.items() if name not in ("GLIBC_TUNABLES", "NEARMQ_URL")}
    command = [sys.executable, str(program), str(modes), *arguments]
    given = environment | {"GIVEN": "x=ü"}
    first, second, told = subprocess.check_output(command, env=given, text=True).splitlines()
    assert first == second
    assert told == f"['glibc.malloc.hugetlb=1', 'x=ü', None] {arguments}"
