"""The command line as people and scripts meet it: streams, exit codes, errors; each test runs the installed command."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import EntryPoint
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from nearmq.doctor import findings
from nearmq.errors import InvalidArgument
from nearmq.root_command import COMMANDS_GROUP, _load

NEARMQ = Path(sys.executable).with_name("nearmq")


def nearmq(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [NEARMQ, *arguments],
        env=dict(os.environ) | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_help_lists_every_command_and_the_version_is_one_line():
    result = nearmq("-h")
    assert result.returncode == 0
    for command in ("doctor", "search", "store", "topology", "worker"):
        assert f"\n  {command} " in result.stdout
    assert "not available" not in result.stdout
    version = nearmq("--version")
    assert (version.returncode, version.stderr) == (0, "")
    assert version.stdout.startswith("nearmq ")


def test_a_mistyped_command_or_option_is_a_usage_error_with_the_nearest_one():
    command = nearmq("topolgy")
    assert (command.returncode, command.stdout) == (2, "")
    assert "Did you mean 'topology'?" in command.stderr
    option = nearmq("topology", "show", "--prefx", "a", "--json")
    assert option.returncode == 2
    assert "--prefix" in json.loads(option.stderr)["error"]["message"]


def test_a_refused_connection_exits_3_and_says_so_as_json():
    result = nearmq("topology", "check", "--json", "--url", "amqp://user:secret@127.0.0.1:1")
    assert (result.returncode, result.stdout) == (3, "")
    error = json.loads(result.stderr)["error"]
    assert error["code"] == "BROKER_UNAVAILABLE"
    assert "refused" in error["message"]
    assert "doctor" in error["hint"]
    assert "secret" not in result.stderr


def test_a_setting_of_the_projects_file_reaches_a_command_and_a_flag_wins_over_it(tmp_path: Path):
    (tmp_path / "nearmq.toml").write_text('prefix = "from-file"\n')
    in_project = [NEARMQ, "topology", "show", "--json"]
    from_file = subprocess.run(in_project, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    from_flag = subprocess.run(
        [*in_project, "--prefix", "flag"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert "from-file.jobs" in from_file
    assert "flag.jobs" in from_flag
    assert "from-file" not in from_flag


def test_a_reader_that_closes_early_is_met_with_silence():
    read_end, write_end = os.pipe()
    os.close(read_end)
    result = subprocess.run([NEARMQ, "topology", "show"], stdout=write_end, stderr=subprocess.PIPE, check=False)
    os.close(write_end)
    assert result.stderr == b""


def test_ctrl_c_exits_130_without_a_traceback(tmp_path: Path):
    fifo = tmp_path / "queries.npy"
    os.mkfifo(fifo)
    process = subprocess.Popen([NEARMQ, "search", "books", fifo], stderr=subprocess.PIPE, cwd=tmp_path)
    try:
        writer = open_once_it_reads(fifo, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        os.close(writer)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, errors) == (130, b"")


def open_once_it_reads(fifo: Path, process: subprocess.Popen[bytes]) -> int:
    """Open a FIFO for writing, which fails until somebody has it open for reading."""
    give_up = time.monotonic() + 60
    while True:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.02)


@pytest.mark.broker
@pytest.mark.redis
def test_the_doctor_finds_the_missing_topology_and_then_nothing(broker_url: str, redis_url: str):
    ill = nearmq("doctor", "--json", NEARMQ_URL=broker_url, NEARMQ_STORE=redis_url)
    assert ill.returncode == 1
    by_check = {finding["check"]: finding for finding in json.loads(ill.stdout)["findings"]}
    assert by_check["topology"]["status"] == "problem"
    assert "nearmq topology apply" in by_check["topology"]["message"]
    assert by_check["store access"]["status"] == "ok"
    assert nearmq("topology", "apply", NEARMQ_URL=broker_url).returncode == 0
    well = nearmq("doctor", NEARMQ_URL=broker_url, NEARMQ_STORE=redis_url)
    assert (well.returncode, well.stderr) == (0, "")


@pytest.mark.broker
@pytest.mark.parametrize(
    ("url", "check", "status"),
    [
        ("amqp://nowhere.invalid", "broker name", "unreachable"),
        ("amqp://127.0.0.1:1", "broker port", "unreachable"),
        ("amqps://{address}", "broker TLS", "unreachable"),
        ("amqp://guest:wrong@{address}", "broker login", "problem"),
        ("amqp://{address}/no-such-host", "broker login", "problem"),
        ("http://{address}", "broker url", "problem"),
    ],
)
def test_the_doctor_stops_at_the_step_that_fails(broker_url: str, url: str, check: str, status: str):
    address = urlsplit(broker_url).netloc.rpartition("@")[2]
    found = list(findings({"url": url.format(address=address)}, prefix="nearmq"))
    assert [(one.check, one.status) for one in found if one.status not in {"ok", "note"}] == [(check, status)]


def test_a_command_whose_part_is_not_installed_says_what_to_install():
    command = _load(EntryPoint("gone", "no_such_package:app", COMMANDS_GROUP))
    with pytest.raises(InvalidArgument, match=r"No module named 'no_such_package'; try pip install"):
        command.main(["any", "--arguments"], standalone_mode=False)
