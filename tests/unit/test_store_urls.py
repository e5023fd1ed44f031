"""From a URL to a store, and what a wrong one is answered."""

import traceback
from pathlib import Path

import pytest

from nearmq_index_store.blobs import CachedStore, FolderStore, open_store
from nearmq_index_store.errors import InvalidArgument, StoreUnavailable


@pytest.mark.parametrize("url", ["file:{}", "file://{}"])
def test_a_folder_is_absolute_when_it_starts_with_a_slash(tmp_path: Path, url: str):
    store = open_store(url.format(tmp_path / "a%20b"))
    assert isinstance(store, FolderStore)
    assert store.id == f"file:{tmp_path}/a%20b"


def test_a_folder_is_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert open_store("file:./nearmq-data").id == f"file:{tmp_path}/nearmq-data"


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path):
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(StoreUnavailable, match="taken"):
        open_store(f"file:{tmp_path}/taken")


def test_each_memory_is_its_own():
    assert open_store("memory:").id != open_store("memory:").id


def test_a_cache_is_not_connected_to_before_it_is_used():
    store = open_store("memory:", "redis://:s3cret@127.0.0.1:1/0")
    assert isinstance(store, CachedStore)
    assert repr(store).endswith("RedisCache('redis://127.0.0.1:1/0'))")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://user:s3cret@host/", "'ftp', known are file:, memory:, s3://, redis:// and rediss://"),
        ("./nearmq-data", "no scheme, known are file:"),
        ("", "no scheme"),
        ("file:", "no folder"),
        ("file://host/folder", "names a host"),
        ("s3:///prefix", "s3://BUCKET"),
        ("s3://bucket/a?b=s3cret", "s3://BUCKET"),
        ("redis://user:s3/cret@host:6379/0", "redis url"),
        ("redis://user:s3cret@host:port/0", "redis url"),
        ("redis://user:s3cret/0", "redis url"),
        ("redis://user:s3cret@host/books", "redis url is no database number"),
        ("redis://user:s3cret@host/0?password_file=s3cret", "redis url"),
        ("redis://user:s3cret@[host/0", "cannot be parsed"),
    ],
)
def test_a_wrong_url_is_named_by_what_is_wrong_and_never_quoted(url: str, said: str):
    with pytest.raises(InvalidArgument) as refused:
        open_store(url)
    assert said in str(refused.value)
    assert refused.value.field == "store"
    assert "s3cret" not in "".join(traceback.format_exception(refused.value)).replace(repr(url), "")


def test_a_cache_is_a_redis():
    with pytest.raises(InvalidArgument, match="cache url has scheme 's3', known are redis:// and rediss://"):
        open_store("memory:", "s3://bucket")
