"""Where `nearmq search` writes hits: a table for people, JSON Lines, or Parquet."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nearmq.collection import Collection, SearchOptions
from nearmq.printing import Printer
from nearmq.result_files import ResultsFile
from nearmq.results import QueryHits

#: Takes the number of a query, its hits, and the version that was searched.
WriteHits = Callable[[int, QueryHits, int], None]

_ALL_FIELDS = "*"


@contextmanager
def hits_writer(
    collection: Collection, options: SearchOptions, output: Path | None, *, as_json: bool
) -> Iterator[WriteHits]:
    """Give a function that writes the hits of one query after the other.

    Args:
        options: of the searches.
        output: a file: of Parquet where its name ends in .parquet, else of JSON Lines. None is stdout.
        as_json: JSON Lines on stdout, not a table.
    """
    if output is not None and output.suffix == ".parquet":
        with _results_file(collection, options, output) as file:
            yield file.add
        return
    with Printer(output, as_json=as_json, columns=("query", "rank", "id", "distance")) as printer:
        yield lambda number, hits, _version: printer.write(_line(number, hits), _ranked(number, hits))


def _results_file(collection: Collection, options: SearchOptions, output: Path) -> ResultsFile:
    described = collection.describe(timeout_s=options.get("timeout_s"))
    wanted = options.get("output_fields") or []
    types = {
        field["name"]: field["type"]
        for field in described["scalar_fields"]
        if field["name"] in wanted or _ALL_FIELDS in wanted
    }
    fields = described["vector_fields"]
    searched = next((field for field in fields if options.get("field") in (None, field["name"])), fields[0])
    facts = {"collection": collection.name, "field": searched["name"], "metric_type": searched["metric_type"]}
    return ResultsFile(output, facts, types)


def _line(number: int, hits: QueryHits) -> dict[str, Any]:
    line = {"query": number, "ids": hits.ids.tolist(), "distances": hits.distances.tolist()}
    return {**line, "fields": hits.fields} if hits.fields else line


def _ranked(number: int, hits: QueryHits) -> Iterator[dict[str, Any]]:
    for rank, hit in enumerate(hits):
        fields = {name: values[rank] for name, values in hits.fields.items()}
        yield {"query": number, "rank": rank + 1, "id": hit.id, "distance": hit.distance, **fields}
