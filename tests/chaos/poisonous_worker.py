"""A worker that one query kills: the vector of 666s. Run as a program; its suspects' process imports it too."""

import signal
import sys
from typing import Any

from nearmq_worker import search_jobs
from nearmq_worker.commands import app

search_part = search_jobs.search_part


def deadly_search_part(segment: Any, queries: Any, *arguments: Any, **options: Any) -> Any:
    if (queries == 666).any():
        signal.raise_signal(signal.SIGSEGV)
    return search_part(segment, queries, *arguments, **options)


search_jobs.search_part = deadly_search_part

if __name__ == "__main__":
    app(args=["run", *sys.argv[1:]])
