"""The README's embedded example runs as it stands."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_embedded_example_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    text = README.read_text()
    create, search = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    command = next(line.strip() for line in text.splitlines() if line.strip().startswith("nearmq store import books"))
    names: dict[str, object] = {}
    exec(create, names)
    program, *arguments = shlex.split(command)
    subprocess.run([str(Path(sys.executable).parent / program), *arguments], check=True, timeout=120)
    exec(search, names)
    printed = capsys.readouterr().out
    assert printed.startswith("[  0 ")  # the first row is nearest to itself
    assert "TimingMs" in printed
