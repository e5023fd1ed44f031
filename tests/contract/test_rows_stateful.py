"""Random writes, reads, merges and collections of garbage over each kind of store: `tests/rows_machine.py`."""

import pytest

from tests.beside import run_beside

CASES = (("redis", "IP"), ("cached-file", "L2"), ("file", "L2"))


@pytest.mark.redis
@pytest.mark.timeout(600)
def test_two_workers_answer_as_a_dictionary_does():
    ended = run_beside("tests.rows_machine", *CASES)

    assert [each.returncode for each in ended] == [0] * len(CASES), "\n".join(each.output for each in ended)
