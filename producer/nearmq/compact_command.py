"""`nearmq compact COLLECTION`: ask a worker to merge segments and build indexes, and wait until it has."""

from typing import Annotated

import typer

from nearmq.administration import MAINTENANCE_TIMEOUT_S
from nearmq.command_options import DEFAULT_URL, AsJson, CollectionName, Partitions, Url, connected, print_answer
from nearmq.printing import progress_bar


def compact(
    collection: CollectionName,
    *,
    url: Url = DEFAULT_URL,
    build: Annotated[
        bool, typer.Option("--build", help="Merge all small segments, and build every index that is not built yet.")
    ] = False,
    partition: Partitions = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds to wait.")] = MAINTENANCE_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Merge small segments and drop deleted rows, as workers do by themselves when it is due."""
    with connected(url, collection, timeout_s=timeout) as client, progress_bar() as progress:
        bar = progress.add_task("building" if build else "compacting", total=1.0)
        stored = client.collection(collection)
        run = stored.build if build else stored.compact
        done = run(partition, timeout_s=timeout, on_progress=lambda part: progress.update(bar, completed=part))
    text = (
        f"{collection}: {done['segments_before']:,} segments became {done['segments_after']:,}, {done['rows']:,} rows "
        f"written, {done['dropped']:,} deleted ones dropped"
    )
    print_answer(done, text, as_json=as_json)
