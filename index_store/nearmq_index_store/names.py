"""Collection names: which collection has a name now, and how it gets and loses one.

A name has a chain of entries, `names/<BLAKE3 of the name>/<generation>`, each made by put-if-absent and never changed.
An entry announces a step; the step itself happens in the collection's own chain of manifests, under the entry's job id,
so that it takes effect at most once whoever does it, and is visible to all readers at once:

    create   the first manifest of a new collection
    rename   a manifest with the new name; announced in the new name's chain, then noted (`leave`) in the old name's
    drop     the final, `dropped` manifest

Whoever wants to add an entry finishes the last one's step first. So a process killed between the two leaves no name
stuck, every entry but the last is decided, and at most one live collection has a name.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, Literal
from uuid import uuid4

import msgspec
from blake3 import blake3
from ulid import ULID

from nearmq_index_store import intents
from nearmq_index_store.commit import Committer, Outcome
from nearmq_index_store.errors import AlreadyExists, CollectionNotFound, InvalidArgument, StoreUnavailable
from nearmq_index_store.head import Heads, newest
from nearmq_index_store.ledger import WINDOW_S
from nearmq_index_store.manifest import (
    DEFAULT_PARTITION,
    CollectionId,
    Manifest,
    Name,
    Ulid,
    encode_manifest,
    manifest_key,
)
from nearmq_index_store.schema import Schema, check_name
from nearmq_index_store.sealed import FORMAT, Reader, seal

PREFIX = "names/"


class NameEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a name's chain.

    Attributes:
        job: the id of the job whose step this is.
        attempt: a ULID, by which an unclear put is told from a lost race.
        schema: of a `create`, so that anyone can finish it.
        old_name: of a `rename`.
    """

    format: int = FORMAT
    act: Literal["create", "rename", "drop", "leave"]
    name: Name
    collection_id: CollectionId
    job: Annotated[str, msgspec.Meta(max_length=255)]
    attempt: Ulid
    schema: Schema | None = None
    old_name: Name | None = None


_ENTRIES = Reader(NameEntry)

History = list[tuple[int, NameEntry]]


class Names:
    """The names of a store's collections; may be used by any number of threads."""

    def __init__(self, heads: Heads, committer: Committer) -> None:
        self._heads = heads
        self._committer = committer
        self._store = heads.store

    def resolve(self, name: str) -> Manifest | None:
        """Return the newest manifest of the collection that has this name, None when none has; writes nothing."""
        return self._holder(self._history(name, window_s=0))

    def create(self, name: str, schema: Schema, *, job_id: str) -> Outcome:
        """Make an empty collection, once for this job id; its first version is 1.

        Raises:
            AlreadyExists: a collection has this name.
        """
        while True:
            history = self._history(name)
            own = _find(history, "create", job_id)
            if own is not None:
                return self._finish(own)
            if self._settled_holder(history) is not None:
                raise AlreadyExists(f"collection {name!r} exists already", field="collection")
            self._announce(history, act="create", name=name, collection_id=str(uuid4()), job=job_id, schema=schema)

    def rename(self, name: str, new_name: str, *, job_id: str) -> Outcome:
        """Give a collection another name, once for this job id, and return the version that has it first.

        Raises:
            CollectionNotFound: no collection has the old name.
            AlreadyExists: a collection has the new name.
        """
        if name == new_name:
            raise InvalidArgument(f"the new name {new_name!r} is the old one", field="new_name")
        while True:
            current = self._settled_holder(self._history(name))
            history = self._history(new_name)  # read after: what took the old name away may have been this very job
            own = _find(history, "rename", job_id)
            if own is not None:
                outcome = self._finish(own)
                self._leave(own)
                return outcome
            collection_id = _found(current, name).collection_id
            if self._settled_holder(history) is not None:
                raise AlreadyExists(f"collection {new_name!r} exists already", field="new_name")
            self._announce(history, act="rename", name=new_name, collection_id=collection_id, job=job_id, old_name=name)

    def drop(self, name: str, *, job_id: str) -> Outcome:
        """End a collection, once for this job id, and return its last version, which is `dropped`.

        Raises:
            CollectionNotFound: no collection has this name.
        """
        while True:
            history = self._history(name)
            current = self._settled_holder(history)
            own = _find(self._history(name), "drop", job_id)  # read after, as for a rename
            if own is not None:
                return self._finish(own)
            collection_id = _found(current, name).collection_id
            self._announce(history, act="drop", name=name, collection_id=collection_id, job=job_id)

    def holders(self, name: str) -> list[str]:
        """The ids of the collections that have or had the name within the ledger's window, newest first."""
        return list(dict.fromkeys(entry.collection_id for _, entry in self._history(name)))

    def collections(self) -> list[Manifest]:
        """The newest manifests of all collections, sorted by name.

        A collection that is made, renamed or dropped meanwhile may be there or not, under its old or its new name.
        """
        listed: dict[str, int] = {}
        for chain, generation in self._listed():
            listed[chain] = max(listed.get(chain, 0), generation)
        latest = [self._read(chain, self._latest(chain, base)) for chain, base in listed.items()]
        heads = [self._heads.head(collection_id) for collection_id in {entry.collection_id for entry in latest}]
        return sorted((head for head in heads if head and head.state == "live"), key=lambda head: head.name)

    def every_id(self) -> set[str]:
        """The ids of all collections that ever had a name; reads every entry of every chain."""
        return {self._read(chain, generation).collection_id for chain, generation in self._listed()}

    def _listed(self) -> Iterator[tuple[str, int]]:
        for key in self._store.list(PREFIX):
            chain, _, generation = key.removeprefix(PREFIX).partition("/")
            if generation.isdecimal():
                yield chain, int(generation)

    def _history(self, name: str, window_s: int = WINDOW_S) -> History:
        """The last entry and those before it that are no older than the window, newest first."""
        chain = _chain(name)
        since = time.time() - window_s
        history: History = []
        for generation in range(self._latest(chain, 0), 0, -1):
            entry = self._read(chain, generation)
            history.append((generation, entry))
            if ULID.from_str(entry.attempt).timestamp < since:
                break
        return history

    def _holder(self, history: History) -> Manifest | None:
        if not history:
            return None
        _, last = history[0]
        head = self._heads.head(last.collection_id)
        return head if head is not None and head.state == "live" and head.name == last.name else None

    def _settled_holder(self, history: History) -> Manifest | None:
        if history and history[0][1].act != "leave":
            # A job that is refused leaves the last entry as settled as one that took effect.
            with suppress(CollectionNotFound):
                self._finish(history[0][1])
        return self._holder(history)

    def _finish(self, entry: NameEntry) -> Outcome:
        """Do what an entry announced, or find it done; return or raise what its job is answered with."""
        if entry.act == "create":
            self._make(entry)
            return Outcome(collection_id=entry.collection_id, version=1, counts={})
        intent = intents.drop(entry.name) if entry.old_name is None else intents.rename(entry.old_name, entry.name)
        return self._committer.commit(entry.collection_id, intent, job_id=entry.job)

    def _make(self, entry: NameEntry) -> None:
        """Put the first manifest, unless the collection was made before.

        It may have lived on since, so garbage collection must leave the last manifest of a dropped one.
        """
        assert entry.schema is not None
        if self._heads.head(entry.collection_id) is not None:
            return
        first = Manifest(
            collection_id=entry.collection_id,
            version=1,
            attempt=entry.attempt,
            name=entry.name,
            schema=entry.schema,
            partitions=(DEFAULT_PARTITION,),
        )
        try:
            self._store.put_if_absent(manifest_key(entry.collection_id, 1), encode_manifest(first))
        except StoreUnavailable:
            if self._heads.head(entry.collection_id) is None:
                raise

    def _announce(self, history: History, **facts: Any) -> None:
        """Add an entry after the last one, whose step is finished; who loses the race for its place looks again."""
        generation = history[0][0] + 1 if history else 1
        entry = NameEntry(attempt=str(ULID()), **facts)
        key = _key(_chain(entry.name), generation)
        try:
            self._store.put_if_absent(key, seal(entry))
        except StoreUnavailable:
            if not self._store.exists(key):
                raise

    def _leave(self, own: NameEntry) -> None:
        """Note in the old name's chain that its collection has another name now; nothing depends on the note."""
        assert own.old_name is not None
        history = self._history(own.old_name, window_s=0)
        is_free = self._settled_holder(history) is None
        last = history[0][1]
        if is_free and last.act != "leave" and last.collection_id == own.collection_id:
            self._announce(history, act="leave", name=own.old_name, collection_id=own.collection_id, job=own.job)

    def _latest(self, chain: str, base: int) -> int:
        return newest(self._store, partial(_key, chain), base)

    def _read(self, chain: str, generation: int) -> NameEntry:
        key = _key(chain, generation)
        return _ENTRIES.read(self._store, key, f"name entry {key}")


def _chain(name: str) -> str:
    return blake3(check_name("collection", name).encode()).hexdigest()


def _key(chain: str, generation: int) -> str:
    return f"{PREFIX}{chain}/{generation:020d}"


def _find(history: History, act: str, job_id: str) -> NameEntry | None:
    return next((entry for _, entry in history if entry.act == act and entry.job == job_id), None)


def _found(manifest: Manifest | None, name: str) -> Manifest:
    if manifest is None:
        raise CollectionNotFound(f"no collection {name!r}", field="collection")
    return manifest
