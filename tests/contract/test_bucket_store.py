"""What is a bucket's own: how its absence is told."""

import socket
import time
from datetime import timedelta

import pytest

from nearmq_index_store.blobs import open_store
from nearmq_index_store.errors import StoreUnavailable


def test_a_bucket_that_is_not_there_is_said_when_it_is_opened(s3_url: str):
    assert open_store(s3_url).durability is None
    with pytest.raises(StoreUnavailable, match=r"s3://nothing/here cannot list .*404"):
        open_store("s3://nothing/here")


def test_a_server_that_refuses_connections_is_unavailable(s3_url: str, monkeypatch: pytest.MonkeyPatch):
    store = open_store(s3_url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StoreUnavailable, match="cannot list"):
        open_store(s3_url)
    assert not store.exists("c/1")  # opened before, so with the endpoint of then


def test_a_server_that_never_answers_is_unavailable_within_a_bound(s3_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nearmq_index_store.blobs.object_store.REQUEST_TIMEOUT", timedelta(seconds=0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        begin = time.monotonic()
        with pytest.raises(StoreUnavailable):
            open_store(s3_url)
        assert 0.2 <= time.monotonic() - begin < 30
