"""`nearmq store gc`: garbage collection, run by hand or by a timer."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from nearmq_index_store.catalog import Catalog
from nearmq_index_store.command_options import (
    DEFAULT_STORE,
    AsJson,
    Cache,
    DryRun,
    SigningKey,
    Store,
    hinting,
    open_catalog,
    print_answer,
    read_duration,
)
from nearmq_index_store.errors import IndexCorrupt
from nearmq_index_store.gc import Garbage, collect_garbage
from nearmq_index_store.progress import ProgressDisplay

#: Iterators read one version to their end. Longer costs the store what was compacted or deleted meanwhile, and gc the
#: read of every version of that time; shorter makes long scans start over, and running imports put their blobs again.
_KEEP = "1h"

#: Counts from the new horizon, whatever the clocks say. A reader that takes longer looks for the head again.
_GRACE = "1m"


def gc(
    collection: Annotated[
        list[str] | None,
        typer.Argument(metavar="[COLLECTION]...", help="The collections.", show_default="all, and the dropped ones"),
    ] = None,
    *,
    keep: Annotated[str, typer.Option(help="How long a version can be read after the next one replaced it.")] = _KEEP,
    grace: Annotated[
        str, typer.Option(help="What readers are given before the first removal, whatever the clocks say.")
    ] = _GRACE,
    store: Store = DEFAULT_STORE,
    cache: Cache = None,
    signing_key_file: SigningKey = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Remove old versions, and what no version names any more: replaced segments, killed imports, dropped collections.

    May be killed, and run by several at a time. What cannot be read is left alone and exits 1.
    """
    keep_s, grace_s = read_duration(keep), read_duration(grace)
    catalog = open_catalog(store, cache, signing_key_file, for_writing=not dry_run)
    problems: list[dict[str, str]] = []

    def on_problem(collection_id: str, error: IndexCorrupt) -> None:
        problems.append({"id": collection_id, "message": error.message})

    with ProgressDisplay("done") as display:
        found = collect_garbage(
            catalog,
            [_id_of(catalog, name) for name in collection] if collection else sorted(catalog.every_id()),
            keep_s=keep_s,
            grace_s=grace_s,
            dry_run=dry_run,
            on_problem=on_problem,
            on_progress=display.show,
        )
    facts = [_facts(garbage) for garbage in found if garbage or collection]
    totals = {name: sum(part[name] for part in facts) for name in ("versions", "blobs")}
    answer = {"dry_run": dry_run, "collections": facts, **totals, "problems": problems}
    print_answer(answer, "\n".join(_lines(answer)), as_json=as_json)
    if problems:
        raise typer.Exit(1)


def _id_of(catalog: Catalog, name: str) -> str:
    with hinting(catalog, name):
        return catalog.collection_id(name)


def _facts(garbage: Garbage) -> dict[str, Any]:
    head = garbage.head
    return {
        "collection": head.name,
        "id": head.collection_id,
        "state": head.state,
        "version": head.version,
        "oldest_version": garbage.oldest,
        "versions": len(garbage.versions),
        "blobs": len(garbage.blobs),
    }


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    for problem in answer["problems"]:
        yield f"{problem['id']}: nothing removed: {problem['message']}"
    for part in answer["collections"]:
        name = part["collection"] if part["state"] == "live" else f"{part['collection']} (dropped, {part['id']})"
        yield f"{name}: {part['versions']:,} versions, {part['blobs']:,} blobs"
    verb = "would remove" if answer["dry_run"] else "removed"
    yield f"{verb} {answer['versions']:,} versions and {answer['blobs']:,} blobs"
