"""The README's embedded examples run as they stand."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_embedded_examples_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    text = README.read_text()
    create, search, change = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    command = next(line.strip() for line in text.splitlines() if line.strip().startswith("nearmq store import books"))
    names: dict[str, object] = {}
    exec(create, names)
    program, *arguments = shlex.split(command)
    subprocess.run([str(Path(sys.executable).parent / program), *arguments], check=True, timeout=120)
    exec(search, names)
    printed = capsys.readouterr().out
    assert printed.startswith("[  0 ")  # the first row is nearest to itself
    assert "TimingMs" in printed
    exec(change, names)
    found, read, *batches = capsys.readouterr().out.splitlines()
    assert all(int(year) > 2000 for year in re.findall(r"\d{4}", found))
    assert read == "144 {'id': 60, 'year': 2010}"
    assert "(100, 64)" in " ".join(batches)
