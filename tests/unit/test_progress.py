"""How far a long run is, on a terminal and elsewhere."""

import io
import time

import pytest

from nearmq_index_store import progress
from nearmq_index_store.progress import ProgressDisplay


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")

    with ProgressDisplay("rows") as display:
        display.show("building", 500, 2_000)

    assert "building" in terminal.getvalue()
    assert "500/2000" in terminal.getvalue()
    assert "rows/s" in terminal.getvalue()


def test_what_is_no_terminal_gets_lines_even_when_colour_is_forced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.01)
    monkeypatch.setenv("FORCE_COLOR", "1")

    with ProgressDisplay("rows") as display:
        display.show("building", 500, 2_000)
        time.sleep(0.2)

    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("building: 500 of 2,000 rows, ")
    assert lines[-1].endswith("s left")
    assert "\x1b" not in "".join(lines)


def test_a_run_shorter_than_the_first_line_writes_nothing(capsys: pytest.CaptureFixture[str]):
    with ProgressDisplay("rows") as display:
        display.show("building", 2_000, 2_000)

    assert capsys.readouterr().err == ""
