"""See the package's docstring."""

import sys

import pytest

from tests.exploring.rules import RULES
from tests.exploring.runs import explore


def failures(first: int, last: int, rule: str | None) -> dict[int, str]:
    """Play the runs of the seeds first..last (not included); return what went wrong by seed."""
    failed = {}
    with pytest.MonkeyPatch.context() as patch:
        if rule is not None:
            RULES[rule](patch)
        for seed in range(first, last):
            try:
                explore(seed)
            except Exception as error:
                failed[seed] = f"{type(error).__name__}: {error}"
    return failed


def main() -> None:
    """Exit 1 when a run failed."""
    first, last, *rule = sys.argv[1:]
    failed = failures(int(first), int(last), *rule or [None])
    for seed, message in failed.items():
        sys.stdout.write(f"seed {seed}: {message}\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
