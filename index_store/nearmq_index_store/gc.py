"""Garbage collection: old versions go, and with them every blob that no version names any more.

It is a commit: a manifest whose horizon says that blobs staged before it may be gone. From then on whoever commits puts
its own older blobs again, so what was staged before the horizon, and is named neither by that manifest nor by one that
is retained, is never named again. Neither clocks nor other collectors need agree for that. Clocks decide only how long
old versions can be read, and how long what is staged can be committed without being put again.

At every moment each version from the floor to the head is whole: the floor is raised first, then the manifests below it
go, then the blobs. A kill in between leaves nothing that the next run does not find.

Of a dropped collection the last manifest stays, with its ledger and the floor: they fence late writers, and answer jobs
that are delivered again.
"""

import itertools
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import msgspec
from ulid import ULID

from nearmq_index_store.blobs.protocol import BlobStore
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.draft import Draft
from nearmq_index_store.errors import CollectionNotFound, IndexCorrupt, VersionExpired
from nearmq_index_store.head import Heads, floor_prefix
from nearmq_index_store.holds import begin_of_holds, holds_prefix
from nearmq_index_store.import_job import abandoned_imports
from nearmq_index_store.intents import Counts, Intent
from nearmq_index_store.manifest import Manifest, manifest_key, manifest_prefix
from nearmq_index_store.pages import read_page

#: Removals at a time: a bucket takes some 20 ms each.
THREADS = 8

_BLOB = re.compile(r"[^/]+/([0-9A-HJKMNP-TV-Z]{26})-[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """What of one collection can go.

    Attributes:
        head: its newest version.
        oldest: the oldest version that stays.
        versions: those below `oldest` that are still there.
        before: a ULID; what was staged before it can go.
        blobs: keys of such blobs that no version from `oldest` to `head` names, of ended holds, and of the states of
            imports that nobody goes on with.
    """

    head: Manifest
    oldest: int
    versions: tuple[int, ...]
    before: str
    blobs: frozenset[str]

    def __len__(self) -> int:
        return len(self.versions) + len(self.blobs)


def collect_garbage(
    catalog: Catalog,
    collection_ids: Sequence[str],
    *,
    keep_s: float,
    grace_s: float,
    dry_run: bool = False,
    on_problem: Callable[[str, IndexCorrupt], None],
    on_progress: Callable[[str, int, int], None] = lambda _stage, _done, _total: None,
    clock: Callable[[], float] = time.time,
) -> list[Garbage]:
    """Remove the garbage of some collections, and return it: marks all, waits once, then removes.

    Args:
        keep_s: how long a version is kept after the next one replaced it, in seconds.
        grace_s: for readers, in seconds; not waited where there is no version to remove.
        dry_run: look, and change nothing.
        on_problem: given the id of a collection of which nothing was removed, since it could not be read.
        on_progress: given a stage, and how many of how many collections or removals are done.

    Raises:
        StoreUnavailable: the store did not answer; the same again goes on.
    """
    heads = catalog.readers.heads
    marked: list[Garbage] = []
    for number, collection_id in enumerate(collection_ids):
        on_progress("looking at collections", number, len(collection_ids))
        try:
            garbage = find_garbage(heads, collection_id, keep_s=keep_s, clock=clock)
            if garbage is not None:
                marked.append(garbage if dry_run else mark(catalog, garbage))
        except IndexCorrupt as error:
            on_problem(collection_id, error)
    if dry_run:
        return marked
    if any(garbage.versions for garbage in marked):
        on_progress(f"waiting {grace_s:g} s for readers", 0, 0)
        time.sleep(grace_s)
    total = sum(map(len, marked))
    done = itertools.count(1)
    for garbage in marked:
        sweep(heads, garbage, on_removed=lambda: on_progress("removing", next(done), total))
    return marked


def find_garbage(
    heads: Heads, collection_id: str, *, keep_s: float, clock: Callable[[], float] = time.time
) -> Garbage | None:
    """Look for what can go; None before the first version. Changes nothing.

    Args:
        keep_s: how long a version is kept after the next one replaced it, in seconds.

    Raises:
        IndexCorrupt: a version that is to be kept cannot be read; nothing may be removed then.
    """
    while True:
        head = heads.head(collection_id)
        if head is None:
            return None
        garbage = _find(heads, head, keep_s, clock())
        if garbage is not None:
            return garbage


def mark(catalog: Catalog, garbage: Garbage) -> Garbage:
    """Commit the horizon, so that nobody names the blobs again, and return what still can go then.

    Raises:
        IndexCorrupt: as `find_garbage`.
    """
    head = garbage.head
    if not garbage.blobs or head.state == "dropped" or garbage.before <= head.horizon:
        return garbage
    heads = catalog.readers.heads
    try:
        marked = catalog.commit(head.collection_id, _raise_horizon(garbage.before), job_id=str(ULID())).version
    except CollectionNotFound:
        return replace(garbage, blobs=frozenset())  # dropped meanwhile: the next run takes all of it
    named: set[str] = set()
    is_whole = False
    for version in range(head.version + 1, marked + 1):
        manifest = _retained(heads, head.collection_id, version)
        is_whole = manifest is not None and _name(heads, manifest, named)
        head = manifest or head
    # Where another collector has removed the mark already, this one does not know what later versions name.
    return replace(garbage, head=head, blobs=garbage.blobs - named if is_whole else frozenset())


def sweep(
    heads: Heads, garbage: Garbage, *, threads: int = THREADS, on_removed: Callable[[], None] = lambda: None
) -> None:
    """Remove what was marked, after the grace for readers; may be repeated, also by others at the same time.

    Args:
        on_removed: called in this thread after each manifest and blob.
    """
    collection_id = garbage.head.collection_id
    if garbage.versions:
        heads.raise_floor(collection_id, garbage.oldest)
    manifests = [manifest_key(collection_id, version) for version in garbage.versions]
    for keys in (manifests, sorted(garbage.blobs)):
        for _ in _removed(heads.store, keys, threads):
            on_removed()


def _find(heads: Heads, head: Manifest, keep_s: float, now_s: float) -> Garbage | None:
    """Look for what can go beside the newest version; None when it was removed meanwhile."""
    collection_id = head.collection_id
    since = _first_ulid(now_s - keep_s)
    listed = list(heads.store.list(f"{collection_id}/"))
    holds = [key for key in listed if key.startswith(holds_prefix(collection_id))]
    begin, ended = begin_of_holds(heads.store, holds, now_s)
    # Not up to the head's horizon, which may have come from a clock that is ahead: a hold counts by its maker's.
    before = min(since, begin)
    named: set[str] = set()
    oldest = _name_kept(heads, head, since, named)
    if oldest is None:
        return None
    prefix = manifest_prefix(collection_id)
    numbers = (key.removeprefix(prefix) for key in listed if key.startswith(prefix))
    if head.state == "dropped" and oldest == head.version:
        # Nothing can be committed any more, so whatever else is there is of no use: late blobs, holds, claims, ...
        lasting = (prefix, floor_prefix(collection_id))
        gone = {key for key in listed if not key.startswith(lasting) and key not in named}
    else:
        unnamed = {key for key in listed if _is_staged_before(before, key) and key not in named}
        gone = unnamed.union(ended, abandoned_imports(heads.store, listed, before))
    return Garbage(
        head=head,
        oldest=oldest,
        versions=tuple(sorted(int(number) for number in numbers if number.isdecimal() and int(number) < oldest)),
        before=before,
        blobs=frozenset(gone),
    )


def _name_kept(heads: Heads, head: Manifest, since: str, named: set[str]) -> int | None:
    """Add what the versions name that were the newest at `since` or later, and return the oldest of them.

    None when another collector has removed the newest meanwhile.
    """
    last = max(heads.floor(head.collection_id), 1)
    if not _name(heads, head, named):
        return None
    kept = head
    while kept.attempt >= since and kept.version > last:
        older = _retained(heads, head.collection_id, kept.version - 1)
        if older is None or not _name(heads, older, named):
            break
        kept = older
    return kept.version


def _retained(heads: Heads, collection_id: str, version: int) -> Manifest | None:
    """Read a version, None when it is below the floor."""
    try:
        return heads.manifest(collection_id, version)
    except VersionExpired:
        if heads.floor(collection_id) > version:
            return None
        raise IndexCorrupt(f"manifest {version} of collection {collection_id} is missing") from None


def _name(heads: Heads, manifest: Manifest, named: set[str]) -> bool:
    """Add the keys of all blobs that a version needs; False when another collector has removed it meanwhile."""
    named.update(old.blob.key for old in manifest.ledger.older)
    if manifest.state == "dropped":
        return True  # nobody reads its rows
    try:
        for ref in manifest.pages:
            if ref.blob.key not in named:
                segments = read_page(heads.store, manifest.collection_id, ref)
                named.update(blob.key for segment in segments for blob in segment.blobs())
                named.add(ref.blob.key)
    except IndexCorrupt:
        if heads.floor(manifest.collection_id) <= manifest.version:
            raise
        return False
    return True


def _raise_horizon(horizon: str) -> Intent:
    def intent(draft: Draft) -> Counts:
        later = max(horizon, draft.manifest.horizon)
        draft.manifest = msgspec.structs.replace(draft.manifest, horizon=later)
        return {}

    return intent


def _removed(store: BlobStore, keys: Collection[str], threads: int) -> Iterator[None]:
    if threads == 1:
        yield from map(store.delete, keys)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="nearmq-gc") as executor:
        yield from executor.map(store.delete, keys)


def _is_staged_before(before: str, key: str) -> bool:
    match = _BLOB.match(key)
    return match is not None and match[1] < before


def _first_ulid(timestamp_s: float) -> str:
    """The lowest ULID of a time."""
    return str(ULID.from_timestamp(timestamp_s))[:10] + "0" * 16
