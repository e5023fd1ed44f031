"""One version of a collection, or some of its partitions, out of the store into Parquet.

A file is written whole or not at all. A folder gets a file for every few segments; an export that a kill left
unfinished in it is finished by the same call, which keeps the files that are there (`export_folder.py`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from nearmq_index_store.catalog import Catalog
from nearmq_index_store.describing import describe_schema
from nearmq_index_store.errors import BlobNotFound, Incomplete, IndexCorrupt, InvalidArgument
from nearmq_index_store.export_folder import ExportState, begin, finish, locked
from nearmq_index_store.manifest import Snapshot
from nearmq_index_store.pages import Segments
from nearmq_index_store.parquet_parts import read_part, write_part
from nearmq_index_store.search import plan
from nearmq_index_store.sources import row_bytes

#: Told how many rows are written, and how many there will be.
OnRows = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What is exported.

    Attributes:
        partitions: their names; None is all.
        version: None is the newest, or the one that an unfinished folder began with.
        part_bytes: vectors of one file of a folder, which holds one segment at the least.
        replace: write over a file that is there.
    """

    partitions: tuple[str, ...] | None = None
    version: int | None = None
    part_bytes: int = 1 << 30
    replace: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export wrote; `kept` of the files were there already."""

    version: int
    rows: int
    files: tuple[Path, ...]
    kept: int


@dataclass(frozen=True, slots=True)
class _Part:
    """A file to be, and what its metadata says."""

    path: Path
    segments: Segments
    facts: dict[str, Any]

    @property
    def rows(self) -> int:
        return sum(entry.live_rows for entry in self.segments)


def export_rows(
    catalog: Catalog,
    collection: str,
    out: Path,
    options: ExportOptions,
    *,
    on_rows: OnRows = lambda _done, _total: None,
) -> Exported:
    """Write the live rows of one version: to a file where its name ends in .parquet, else to a folder of such files.

    Raises:
        CollectionNotFound, PartitionNotFound: there is none of this name.
        VersionExpired: the version has been removed, perhaps meanwhile.
        InvalidArgument: the file is there already, or the folder holds something else.
        IndexCorrupt: a blob is missing or fails its digest.
        Incomplete: the files have another number of rows than the version.
    """
    newest = catalog.snapshot(collection)
    snapshot = _at_version(catalog, newest, options.version)
    segments = plan(snapshot, options.partitions)
    if out.suffix == ".parquet":
        if out.exists() and not options.replace:
            raise InvalidArgument(f"{out} exists already, --force replaces it", field="out")
        out.parent.mkdir(parents=True, exist_ok=True)
        return _write(catalog, snapshot, [_Part(out, segments, _facts(snapshot, options.partitions))], on_rows)
    with locked(out):
        state = begin(out, _state(snapshot, options), any_version=options.version is None)
        snapshot = _at_version(catalog, newest, state.version)
        exported = _write(catalog, snapshot, list(_parts(out, snapshot, options)), on_rows)
        finish(out, state)
    return exported


def _state(snapshot: Snapshot, options: ExportOptions) -> ExportState:
    return ExportState(
        collection=snapshot.manifest.name,
        collection_id=snapshot.manifest.collection_id,
        version=snapshot.manifest.version,
        partitions=options.partitions,
        part_bytes=options.part_bytes,
    )


def _at_version(catalog: Catalog, newest: Snapshot, version: int | None) -> Snapshot:
    if version is None or version == newest.manifest.version:
        return newest
    if not 1 <= version < newest.manifest.version:
        raise InvalidArgument(
            f"version must be 1 to {newest.manifest.version}, the newest, got {version}", field="version"
        )
    heads = catalog.readers.heads
    return heads.open(heads.manifest(newest.manifest.collection_id, version))


def _parts(folder: Path, snapshot: Snapshot, options: ExportOptions) -> Iterator[_Part]:
    """Group segments into files, each of one partition; there is one file at the least."""
    segments = sorted(plan(snapshot, options.partitions), key=lambda entry: entry.partition)
    most = max(1, options.part_bytes // row_bytes(snapshot.manifest.schema))
    groups: list[tuple[tuple[str, ...] | None, Segments]] = []
    for partition, entries in groupby(segments, key=lambda entry: entry.partition):
        groups += [((partition,), group) for group in _grouped(tuple(entries), most)]
    for number, (partitions, group) in enumerate(groups or [(options.partitions, ())]):
        facts = {**_facts(snapshot, partitions), "part": number}
        yield _Part(folder / f"part-{number:05}.parquet", group, facts)


def _grouped(segments: Segments, most_rows: int) -> Iterator[Segments]:
    start = rows = 0
    for place, entry in enumerate(segments):
        if rows and rows + entry.live_rows > most_rows:
            yield segments[start:place]
            start, rows = place, 0
        rows += entry.live_rows
    yield segments[start:]


def _facts(snapshot: Snapshot, partitions: tuple[str, ...] | None) -> dict[str, Any]:
    manifest = snapshot.manifest
    names = manifest.partitions if partitions is None else partitions
    return {
        "collection": manifest.name,
        "collection_id": manifest.collection_id,
        "version": manifest.version,
        "partitions": list(names),
        **describe_schema(manifest.schema),
    }


def _write(catalog: Catalog, snapshot: Snapshot, parts: Sequence[_Part], on_rows: OnRows) -> Exported:
    done = kept = 0
    total = sum(part.rows for part in parts)

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        on_rows(done, total)

    with _expired_or_corrupt(catalog, snapshot):
        for part in parts:
            if read_part(part.path) == (part.rows, part.facts):
                kept += 1
                count(part.rows)
            else:
                write_part(part.path, catalog.readers, snapshot.manifest, part.segments, part.facts, on_rows=count)
    _check(parts)
    return Exported(version=snapshot.manifest.version, rows=total, files=tuple(part.path for part in parts), kept=kept)


def _check(parts: Sequence[_Part]) -> None:
    """Count the rows that the files have now, whoever wrote them."""
    for part in parts:
        found = read_part(part.path)
        rows = 0 if found is None else found[0]
        if rows != part.rows:
            raise Incomplete(f"{part.path} has {rows} rows, the version has {part.rows} for it", field="out")


@contextmanager
def _expired_or_corrupt(catalog: Catalog, snapshot: Snapshot) -> Iterator[None]:
    """Tell a version whose blobs were collected, since it was removed meanwhile, from a damaged one."""
    try:
        yield
    except IndexCorrupt as error:
        if isinstance(error.__cause__, BlobNotFound):
            catalog.readers.heads.manifest(snapshot.manifest.collection_id, snapshot.manifest.version)
        raise
