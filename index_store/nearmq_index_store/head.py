"""The newest version of a collection, found by probing: there is no head object that could be wrong.

Versions are made by put-if-absent and have no gaps from the collection's `floor`, its oldest retained version, to its
head; garbage collection raises the floor before it removes a manifest. So what this module remembers may be too old,
and never leads astray.

The floor must never be lowered, not even for a moment: a commit that is based on a removed version would pass for won.
Two collectors at work at the same time could lower one that is overwritten, so floors are a chain by put-if-absent too.
"""

from collections.abc import Callable
from functools import partial

import msgspec

from nearmq_index_store.blobs.protocol import BlobStore
from nearmq_index_store.errors import BlobNotFound, IndexCorrupt, StoreUnavailable, VersionExpired
from nearmq_index_store.manifest import (
    Manifest,
    PageRef,
    Snapshot,
    manifest_key,
    manifest_prefix,
    read_manifest,
)
from nearmq_index_store.pages import Segments, read_page
from nearmq_index_store.recent import Recent
from nearmq_index_store.sealed import FORMAT, Reader, seal

#: Some 3 MB each when all their segments are named.
PAGES_KEPT = 64
HEADS_KEPT = 1_024

#: Numbers that are probed together where the store can: another one takes a tenth of another turn's time.
_PROBES_TOGETHER = 8

#: Up to so many numbers, the next one is probed, then twice as many: a collection that was imported once has two.
_FEW = 4

#: Looks for a head that garbage collection keeps outrunning, before the store is called unavailable.
LOOKS = 32


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """The oldest retained version of a collection: raised, then everything below it is removed."""

    format: int = FORMAT
    version: int


_FLOORS = Reader(Floor)


def floor_prefix(collection_id: str) -> str:
    """The folder of a collection's floors."""
    return f"{collection_id}/floor/"


def floor_key(collection_id: str, generation: int) -> str:
    """The key of a collection's floor after it was raised so many times; there is none before the first."""
    return f"{floor_prefix(collection_id)}{generation:020d}"


def newest(store: BlobStore, key_of: Callable[[int], str], base: int) -> int:
    """Find the last of the numbers without a gap after `base` whose key is there.

    By probing base + 1, + 2, + 3, + 4, + 8, + 16 and then between, some together where the store can.
    """
    low, high = base, None
    while probes := _probes(base, low, high):
        for number, is_there in zip(probes, store.which_exist([*map(key_of, probes)]), strict=True):
            if not is_there:
                high = number
                break
            low = number
    return low


def _probes(base: int, low: int, high: int | None) -> list[int]:
    """Return the numbers to probe next, each in case that the one before it is there; none when low is the last."""
    probes: list[int] = []
    while len(probes) < _PROBES_TOGETHER and (high is None or high - low > 1):
        if high is not None:
            low = (low + high) // 2
        else:
            low += 1 if low - base < _FEW else low - base
        probes.append(low)
    return probes


class Heads:
    """Reads the newest versions of a store's collections; may be used by any number of threads."""

    def __init__(self, store: BlobStore) -> None:
        self.store = store
        self._heads: Recent[str, Manifest] = Recent(HEADS_KEPT)
        self._pages: Recent[str, Segments] = Recent(PAGES_KEPT)
        self._floors: Recent[str, tuple[int, int]] = Recent(HEADS_KEPT)  # generation and version

    def head(self, collection_id: str) -> Manifest | None:
        """Look at the origin for the newest manifest, which may be a `dropped` one; None before the first.

        Raises:
            StoreUnavailable: also when manifests are gone that were there: the store was flushed, or is an older copy.
        """
        known = self._heads.get(collection_id)
        if known is not None and self._is_newest(known):
            return known
        base = known.version if known else 0
        for _ in range(LOOKS):
            version = newest(self.store, partial(manifest_key, collection_id), base)
            if base >= self.floor(collection_id):
                manifest = self._manifest(collection_id, version)
                if manifest is not None:
                    self.remember(manifest)
                    return manifest
            listed = self._listed(collection_id)
            if listed < base:
                self._heads.forget(collection_id)
                self._floors.forget(collection_id)
                raise StoreUnavailable(
                    f"version {base} of collection {collection_id} is gone, version {listed} is the newest: the store "
                    "was flushed, or replaced by an older copy"
                )
            if listed == 0:
                return None
            base = listed
        raise StoreUnavailable(f"no head of collection {collection_id} found in {LOOKS} looks")

    def snapshot(self, collection_id: str, head: Manifest | None = None) -> Snapshot | None:
        """Read the newest version whole, a `dropped` one without its segments; None before the first.

        Args:
            head: the newest manifest, where that was looked at just now.

        Raises:
            IndexCorrupt: a page is missing or fails its digest, and no newer version came meanwhile.
        """
        failed_version = 0
        manifest = head or self.head(collection_id)
        while manifest is not None:
            if manifest.state == "dropped":
                return Snapshot(manifest=manifest, segments=())
            try:
                return self.open(manifest)
            except IndexCorrupt:
                if manifest.version == failed_version:
                    raise
                failed_version = manifest.version
            manifest = self.head(collection_id)
        return None

    def open(self, manifest: Manifest) -> Snapshot:
        """Read the pages of a manifest."""
        pages = [self.page(manifest.collection_id, ref) for ref in manifest.pages]
        segments = pages[0] if len(pages) == 1 else tuple(segment for page in pages for segment in page)
        return Snapshot(manifest=manifest, segments=segments)

    def page(self, collection_id: str, ref: PageRef) -> Segments:
        """Read one page."""
        segments = self._pages.get(ref.blob.key)
        if segments is None:
            segments = read_page(self.store, collection_id, ref)
            self._pages.put(ref.blob.key, segments)
        return segments

    def remember_page(self, ref: PageRef, segments: Segments) -> None:
        """Take over a page that was just put."""
        self._pages.put(ref.blob.key, segments)

    def manifest(self, collection_id: str, version: int) -> Manifest:
        """Read one version.

        Raises:
            VersionExpired: it has been removed, or never was.
        """
        manifest = self._manifest(collection_id, version)
        if manifest is None:
            raise VersionExpired(f"version {version} of collection {collection_id} is not in the store")
        return manifest

    def floor(self, collection_id: str) -> int:
        """Look at the origin for the oldest retained version; 0 when none was ever removed."""
        return self._floor(collection_id)[1]

    def raise_floor(self, collection_id: str, version: int) -> None:
        """Make a version the oldest that is retained, unless a newer one is, whoever does the same at the same time."""
        while True:
            generation, present = self._floor(collection_id)
            if present >= version:
                return
            self.store.put_if_absent(floor_key(collection_id, generation + 1), seal(Floor(version=version)))

    def remember(self, manifest: Manifest) -> None:
        """Start the next look at this version, which is surely in the store."""
        known = self._heads.get(manifest.collection_id)
        if known is None or known.version < manifest.version:
            self._heads.put(manifest.collection_id, manifest)

    def _is_newest(self, known: Manifest) -> bool:
        """Look once whether there is no newer version and no higher floor, and this one is there."""
        generation, floor = self._floors.get(known.collection_id) or (0, 0)
        newer, raised, is_there = self.store.which_exist(
            [
                manifest_key(known.collection_id, known.version + 1),
                floor_key(known.collection_id, generation + 1),
                manifest_key(known.collection_id, known.version),
            ]
        )
        return is_there and not newer and not raised and known.version >= floor

    def _floor(self, collection_id: str) -> tuple[int, int]:
        known = self._floors.get(collection_id) or (0, 0)
        generation = newest(self.store, partial(floor_key, collection_id), known[0])
        if generation == known[0]:
            return known
        key = floor_key(collection_id, generation)
        found = generation, _FLOORS.read(self.store, key, f"floor {key}").version
        self._floors.put(collection_id, found)
        return found

    def _manifest(self, collection_id: str, version: int) -> Manifest | None:
        known = self._heads.get(collection_id)
        if known is not None and known.version == version:
            return known if self.store.exists(manifest_key(collection_id, version)) else None
        try:
            return read_manifest(self.store, collection_id, version)
        except BlobNotFound:
            return None

    def _listed(self, collection_id: str) -> int:
        prefix = manifest_prefix(collection_id)
        names = (key.removeprefix(prefix) for key in self.store.list(prefix))
        return max((int(name) for name in names if name.isdecimal()), default=0)
