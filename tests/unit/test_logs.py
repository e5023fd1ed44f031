"""What the worker program's log shows, and what it never shows."""

import subprocess
import sys

import pytest

PROGRAM = """
import logging
from nearmq_worker.logs import configure_logging

configure_logging("info", {log_format!r})
password = "not for the log"
try:
    raise ValueError("what went wrong")
except ValueError:
    logging.getLogger("nearmq_worker").exception("job failed", extra={{"job_id": "job-1"}})
logging.getLogger("nearmq_worker").debug("too fine")
"""


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_traceback_is_logged_without_the_values_of_variables(log_format: str):
    program = PROGRAM.format(log_format=log_format)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == ""
    for shown in ("job failed", "job-1", "ValueError: what went wrong"):
        assert shown in done.stderr
    for hidden in ("not for the log", "too fine"):
        assert hidden not in done.stderr
