"""The rules of the commit protocol, each taken out of the real code by a patch: what the exploration must notice."""

import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pytest

from nearmq_index_store import commit, digest, gc, staged
from nearmq_index_store.commit import Committer, Outcome
from nearmq_index_store.compaction import replacing
from nearmq_index_store.deletes import DeletedRows
from nearmq_index_store.errors import IndexCorrupt, StoreUnavailable
from nearmq_index_store.head import Floor, Heads, floor_key
from nearmq_index_store.manifest import Deletes, Manifest
from nearmq_index_store.sealed import seal
from tests.exploring import runs

Patch = pytest.MonkeyPatch


def no_ledger(patch: Patch) -> None:
    """Jobs that an older version took in are taken in again."""
    taken = Committer._taken

    def taken_now(self: Committer, head: Manifest, job_ids: list[str]) -> dict[str, Outcome]:
        return {job: done for job, done in taken(self, head, job_ids).items() if done.version == head.version}

    patch.setattr(Committer, "_taken", taken_now)


def reused_bitmaps(patch: Patch) -> None:
    """Another try of a commit names the bitmaps of the try before."""
    mine = threading.local()
    commit_all, put_deletes = Committer.commit_all, commit.put_deletes

    def begin(self: Committer, *arguments: Any) -> list[Outcome]:
        mine.put = {}
        return commit_all(self, *arguments)

    def reuse(store: Any, name: str, deleted: Mapping[str, DeletedRows], **options: Any) -> dict[str, Deletes]:
        new = {segment: rows for segment, rows in deleted.items() if segment not in mine.put}
        mine.put |= put_deletes(store, name, new, **options)
        return {segment: mine.put[segment] for segment in deleted}

    patch.setattr(Committer, "commit_all", begin)
    patch.setattr(commit, "put_deletes", reuse)


def no_carry_over(patch: Patch) -> None:
    """A merge forgets what was deleted from its inputs meanwhile."""
    patch.setattr(replacing, "_deleted_since", lambda *_: pa.array([], pa.int64()))


def no_mark(patch: Patch) -> None:
    """Garbage is removed without a horizon in the chain."""
    patch.setattr(runs, "mark", lambda _catalog, garbage: garbage)


def nothing_put_again(patch: Patch) -> None:
    """What was staged before the horizon is committed as it is."""
    patch.setattr(staged, "_is_fresh", lambda *_: True)


def keys_by_the_clock(patch: Patch) -> None:
    """A clock that is behind the horizon decides under which key a blob is put."""
    patch.setattr(digest, "_ulid", lambda _: str(digest.ULID()))


def no_floor(patch: Patch) -> None:
    """Old manifests are removed under a floor that stays."""
    patch.setattr(Heads, "raise_floor", lambda *_: None)


def lowered_floors(patch: Patch) -> None:
    """The last collector decides what the floor is."""

    def overwrite(self: Heads, collection_id: str, version: int) -> None:
        while True:
            generation, _ = self._floor(collection_id)
            if self.store.put_if_absent(floor_key(collection_id, generation + 1), seal(Floor(version=version))):
                return

    patch.setattr(Heads, "raise_floor", overwrite)


def no_holds(patch: Patch) -> None:
    """What an import holds is removed."""
    patch.setattr(gc, "begin_of_holds", lambda *_: ("Z" * 26, []))


def ghosts_win(patch: Patch) -> None:
    """Whose manifest was put has won, also under the floor."""

    class Floorless:
        def __init__(self, heads: Heads) -> None:
            self._heads = heads

        def __getattr__(self, name: str) -> Any:
            return getattr(self._heads, name)

        def floor(self, _collection_id: str) -> int:
            return 0

    make = Committer.__init__

    def make_floorless(self: Committer, *arguments: Any) -> None:
        make(self, *arguments)
        self._heads = Floorless(self._heads)  # type: ignore[assignment]

    patch.setattr(Committer, "__init__", make_floorless)


def no_second_look(patch: Patch) -> None:
    """A blob that is missing fails a write at once."""
    next_version = Committer._next

    def look_once(self: Committer, *arguments: Any, **options: Any) -> Manifest:
        try:
            return next_version(self, *arguments, **options)
        except IndexCorrupt as error:
            raise AssertionError("the version is corrupt, or was collected") from error

    patch.setattr(Committer, "_next", look_once)


def unclear_puts_win(patch: Patch) -> None:
    """A put without an answer counts as done, and is not read back."""
    read_back = Committer._read_back

    def trust(self: Committer, manifest: Manifest) -> Manifest | None:
        return manifest if isinstance(sys.exc_info()[1], StoreUnavailable) else read_back(self, manifest)

    patch.setattr(Committer, "_read_back", trust)


RULES: dict[str, Callable[[Patch], None]] = {
    rule.__name__: rule
    for rule in (
        no_ledger,
        reused_bitmaps,
        no_carry_over,
        no_mark,
        nothing_put_again,
        keys_by_the_clock,
        no_floor,
        lowered_floors,
        no_holds,
        ghosts_win,
        no_second_look,
        unclear_puts_win,
    )
}
