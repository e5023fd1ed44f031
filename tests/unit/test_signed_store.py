"""What somebody can do who writes a signed store without its key: nothing that is believed."""

import json
from pathlib import Path

import numpy as np
import pytest

from nearmq.cli import run
from nearmq_index_store.blobs import BlobStore, SignedStore, open_store
from nearmq_index_store.blobs.protocol import MAX_CONDITIONAL_BYTES, is_put_once
from nearmq_index_store.blobs.signed import MAGIC, read_signing_keys
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.compaction.claims import claimed
from nearmq_index_store.errors import CollectionNotFound, IndexCorrupt, InvalidArgument
from nearmq_index_store.gc import collect_garbage
from nearmq_index_store.holds import hold
from nearmq_index_store.manifest import manifest_key
from nearmq_index_store.schema import Schema
from nearmq_index_store.signing import Signed, sign_all
from tests.segments import vector_field
from tests.world import embedded_world, fill

OLD, NEW, FOREIGN = (bytes([number]) * 32 for number in (1, 2, 3))
SCHEMA = Schema(vector_fields=(vector_field(2, "L2", "FLAT"),))


@pytest.fixture
def origin() -> BlobStore:
    """The store as who has no key sees it."""
    return open_store("memory:")


@pytest.fixture
def signed(origin: BlobStore) -> SignedStore:
    return SignedStore(origin, [OLD])


def made(store: BlobStore, *names: str) -> list[str]:
    """Create collections, with rows in two versions each; return their ids."""
    for name in names:
        Catalog(store).create(name, SCHEMA, job_id=f"create {name}")
        fill(store, name, [1, 2], np.eye(2))
        fill(store, name, [3, 4], np.eye(2))
    return [Catalog(store).collection_id(name) for name in names]


def small(store: BlobStore, collection_id: str) -> set[str]:
    return {*store.list("names/"), *(key for key in store.list(f"{collection_id}/") if not is_put_once(key))}


def test_everything_that_is_read_by_its_place_is_signed_and_bound_to_it(origin: BlobStore, signed: SignedStore):
    [books] = made(signed, "books")
    collect_garbage(Catalog(signed), [books], keep_s=0, grace_s=0, on_problem=pytest.fail)
    with claimed(signed, books, "_default", owner="me"), hold(signed, books) as renew:
        renew()
        keys = small(origin, books)
        kinds = {key.split("/")[0 if key.startswith("names/") else 1] for key in keys}
        assert kinds == {"names", "m", "floor", "claims", "hold"}
        for key in keys:
            stored = bytes(origin.get(key))
            assert stored.startswith(MAGIC)
            origin.put(f"{books}/elsewhere", stored)
            with pytest.raises(IndexCorrupt, match="signed for another place"):
                signed.get(f"{books}/elsewhere")


def test_a_version_made_up_without_the_key_is_refused(origin: BlobStore, signed: SignedStore):
    [books] = made(signed, "books")
    unsigned = bytes(signed.get(manifest_key(books, 3)))
    forged = unsigned.replace(b'"version":3', b'"version":4')
    for version in (unsigned, forged, bytes(SignedStore(origin, [FOREIGN])._signed(manifest_key(books, 4), forged))):
        origin.put(manifest_key(books, 4), version)
        with pytest.raises(IndexCorrupt, match="is not signed"):
            Catalog(signed).snapshot("books")
        with pytest.raises(IndexCorrupt):
            fill(signed, "books", [5], np.ones((1, 2)))  # nor is one built upon it


def test_a_changed_cut_or_endless_object_is_refused(origin: BlobStore, signed: SignedStore):
    [books] = made(signed, "books")
    key = manifest_key(books, 3)
    stored = bytes(origin.get(key))
    flipped = [stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :] for at in (0, 20, len(MAGIC) + 64, 200)]
    for damaged in (*flipped, stored[:-1], stored[:40], b"", stored + b"x", stored + bytes(MAX_CONDITIONAL_BYTES)):
        origin.put(key, damaged)
        with pytest.raises(IndexCorrupt):
            signed.get(key)
    origin.put(key, stored)
    assert len(Catalog(signed).snapshot("books").segments) == 2


def test_a_manifest_or_name_of_another_collection_is_refused(origin: BlobStore, signed: SignedStore):
    books, news = made(signed, "books", "news")
    [of_books, of_news] = [
        next(key for key in origin.list("names/") if name in bytes(signed.get(key))) for name in (b"books", b"news")
    ]
    origin.put(of_news, origin.get(of_books))
    with pytest.raises(IndexCorrupt, match="another place"):
        Catalog(signed).snapshot("news")
    origin.put(manifest_key(books, 3), origin.get(manifest_key(news, 3)))
    with pytest.raises(IndexCorrupt, match="another place"):
        Catalog(signed).snapshot("books")


def test_a_process_without_keys_neither_reads_nor_writes_a_signed_store(origin: BlobStore, signed: SignedStore):
    made(signed, "books")
    with pytest.raises(IndexCorrupt, match="is signed, and this process has no key"):
        Catalog(origin).snapshot("books")
    with pytest.raises(IndexCorrupt, match="is signed, and this process has no key"):
        Catalog(origin).drop("books", job_id="drop")
    assert len(Catalog(signed).snapshot("books").segments) == 2


def test_keys_are_changed_while_others_read(origin: BlobStore, signed: SignedStore):
    made(signed, "books")
    both = SignedStore(origin, [NEW, OLD])
    fill(both, "books", [5, 6], np.eye(2))
    with pytest.raises(IndexCorrupt):
        Catalog(signed).snapshot("books")  # which is why every process is given both before the new one is the first
    assert sign_all(origin, [NEW, OLD], trust_unsigned=False, dry_run=True) == Signed(first=1, other=4, unsigned=0)
    assert sign_all(origin, [NEW, OLD], trust_unsigned=False) == Signed(first=1, other=4, unsigned=0)
    assert sign_all(origin, [NEW, OLD], trust_unsigned=False) == Signed(first=5, other=0, unsigned=0)
    assert len(Catalog(SignedStore(origin, [NEW])).snapshot("books").segments) == 3


def test_an_unsigned_store_is_signed_only_by_who_trusts_it(origin: BlobStore):
    [books] = made(origin, "books")
    with pytest.raises(IndexCorrupt, match="is not signed"):
        sign_all(origin, [NEW], trust_unsigned=False)
    damaged = bytes(origin.get(manifest_key(books, 2)))
    origin.put(manifest_key(books, 2), damaged.replace(b"books", b"bocks"))
    with pytest.raises(IndexCorrupt, match="does not match its digest"):
        sign_all(origin, [NEW], trust_unsigned=True)
    origin.put(manifest_key(books, 2), damaged)
    assert sign_all(origin, [NEW], trust_unsigned=True).unsigned <= 4
    catalog = Catalog(SignedStore(origin, [NEW]))
    assert len(catalog.snapshot("books").segments) == 2
    assert catalog.drop("books", job_id="drop").version == 4


def test_what_was_signed_once_can_be_brought_back_in_its_own_place(origin: BlobStore, signed: SignedStore):
    """Not covered, as docs/security.md says: who deletes the newest version rolls back to the one before."""
    [books] = made(signed, "books")
    origin.delete(manifest_key(books, 3))
    assert len(Catalog(signed).snapshot("books").segments) == 1
    for key in list(origin.list("names/")):
        origin.delete(key)
    with pytest.raises(CollectionNotFound):
        Catalog(signed).snapshot("books")


@pytest.mark.parametrize("content", ["", "\n", "00" * 31, "zz" * 32, "00" * 32 + "\nsecret", "é"])
def test_a_file_that_holds_no_keys_is_refused_without_showing_it(tmp_path: Path, content: str):
    file = tmp_path / "keys"
    file.write_text(content)
    with pytest.raises(InvalidArgument) as caught:
        open_store("memory:", signing_key_file=file)
    assert caught.value.field == "signing_key_file"
    assert str(file) in caught.value.message
    assert not content.strip() or content.strip().splitlines()[-1] not in str(caught.value)


def test_a_worker_and_the_commands_use_a_signed_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    keys, store = tmp_path / "keys", f"file:{tmp_path / 'store'}"
    keys.write_text(OLD.hex() + "\n")
    with embedded_world(store, signing_key_file=keys) as world:
        books = world.client.create_collection("books", dim=2, index="FLAT")
        books.upsert([1, 2], np.eye(2, dtype=np.float32))
        assert books.search([[1.0, 0.0]], limit=1)[0].ids.tolist() == [1]
    assert run(["store", "show", "books", "--store", store]) == 1
    assert "INDEX_CORRUPT" in capsys.readouterr().err
    monkeypatch.setenv("NEARMQ_SIGNING_KEY_FILE", str(keys))
    assert run(["store", "show", "books", "--store", store]) == 0
    assert run(["count", "books", "--url", f"local:{tmp_path / 'store'}"]) == 0
    keys.write_text(f"{NEW.hex()}\n{OLD.hex()}\n")
    capsys.readouterr()
    assert run(["store", "sign", "--store", store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"dry_run": False, "first": 0, "other": 3, "unsigned": 0}
    keys.write_text(FOREIGN.hex())
    run(["doctor", "--url", "local:", "--store", store, "--json"])
    findings = {finding["check"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["signatures"]["status"] == "problem"
    assert read_signing_keys(keys) == (FOREIGN,)
