"""Job ids: of the form of a UUIDv7, and never the same twice."""

import subprocess
import sys
import time
import uuid

from nearmq.job_ids import new_job_id

_FORKED = """
import os
from nearmq.job_ids import new_job_id
new_job_id()
child = os.fork()
os.write(1, f"{new_job_id()}\\n".encode())
if child:
    os.waitpid(child, 0)
"""


def test_an_id_is_a_uuid_of_version_7_and_of_its_time():
    before_ms = time.time_ns() // 1_000_000
    job_id = new_job_id()
    read = uuid.UUID(job_id)
    assert (str(read), read.version, read.variant) == (job_id, 7, uuid.RFC_4122)
    assert before_ms <= read.int >> 80 <= time.time_ns() // 1_000_000


def test_ids_differ_in_all_that_is_random():
    ids = [uuid.UUID(new_job_id()).int & (1 << 76) - 1 for _ in range(10_000)]
    assert len(set(ids)) == len(ids)
    ever, always = 0, (1 << 76) - 1
    for job_id in ids:
        ever |= job_id
        always &= job_id
    assert ever ^ always == ((1 << 12) - 1) << 64 | (1 << 62) - 1


def test_a_forked_process_makes_ids_of_its_own():
    told = subprocess.run([sys.executable, "-c", _FORKED], check=True, capture_output=True, text=True).stdout.split()
    random = {uuid.UUID(job_id).int & (1 << 76) - 1 for job_id in told}
    assert len(told) == len(random) == 2
