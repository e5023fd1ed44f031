"""TLS to a real RabbitMQ and a real Redis, both of which ask for a certificate too."""

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest

import nearmq
from nearmq.amqp import AmqpTransport, apply_topology
from nearmq.cli import run
from nearmq.errors import BrokerUnavailable, InvalidArgument
from nearmq.tls_files import TlsFiles
from nearmq.topology import declarations
from nearmq_index_store import errors as store_errors
from nearmq_index_store.blobs import open_store
from nearmq_index_store.blobs.redis_server import RedisServer
from tests import servers
from tests.servers.certificates import Authority, Certificate
from tests.servers.processes import free_ports
from tests.world import amqp_world

pytestmark = [pytest.mark.broker, pytest.mark.redis]

NAMES = ("127.0.0.1", "broker.test")


@dataclass(frozen=True)
class Encrypted:
    """The two servers, and whom they trust and are trusted by."""

    authority: Authority
    client: Certificate
    amqps: str
    rediss: str

    def files(self, **other: Path | None) -> TlsFiles:
        ours = {"ca_file": self.authority.path, "cert_file": self.client.cert, "key_file": self.client.key}
        return TlsFiles(**(ours | other))


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    server, client = authority.sign(*NAMES), authority.sign("client")
    broker_port, redis_port = free_ports(2)
    config = [
        f"listeners.ssl.tests = 127.0.0.1:{broker_port}",
        f"ssl_options.cacertfile = {authority.path}",
        f"ssl_options.certfile = {server.cert}",
        f"ssl_options.keyfile = {server.key}",
        "ssl_options.verify = verify_peer",
        "ssl_options.fail_if_no_peer_cert = true",
    ]
    files = {"--tls-ca-cert-file": authority.path, "--tls-cert-file": server.cert, "--tls-key-file": server.key}
    options = ["--tls-port", str(redis_port), *(str(word) for pair in files.items() for word in pair)]
    with (
        contextlib.closing(servers.private_broker(config=config)) as broker,
        contextlib.closing(servers.private_redis(options=options)) as redis,
    ):
        redis.start()
        broker.start()
        yield Encrypted(
            authority=authority,
            client=client,
            amqps=f"amqps://guest:guest@127.0.0.1:{broker_port}",
            rediss=f"rediss://127.0.0.1:{redis_port}",
        )


@contextlib.contextmanager
def presenting(certificate: Certificate) -> Iterator[int]:
    """Listen with a certificate that no server would keep for long; the port. Nobody comes past the handshake."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.cert, certificate.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        context.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def refused_by_broker(url: str) -> str:
    transport = AmqpTransport(url)
    with pytest.raises(BrokerUnavailable) as caught:
        transport.start(on_reply=lambda _: None, on_connected=lambda: None)
    with pytest.raises(BrokerUnavailable) as also:
        apply_topology(url, declarations())
    assert also.value.message == caught.value.message
    return caught.value.message


def refused_by_redis(url: str) -> str:
    with pytest.raises(store_errors.StoreUnavailable) as caught:
        open_store(url)
    return caught.value.message


def test_jobs_and_blobs_go_encrypted_through_verified_connections(encrypted: Encrypted):
    files = encrypted.files()
    with amqp_world(files.completed(encrypted.amqps), files.completed(encrypted.rediss), threads=1) as world:
        books = world.client.create_collection("books", dim=4, index="HNSW")
        books.upsert([1, 2], np.eye(2, 4, dtype=np.float32))
        assert books.search(np.eye(1, 4, dtype=np.float32), limit=1)[0].ids.tolist() == [1]


def test_a_broker_is_refused_for_its_authority_its_name_and_its_age(encrypted: Encrypted, tmp_path: Path):
    other, url = Authority(tmp_path, "somebody else"), encrypted.amqps
    for files in (encrypted.files(ca_file=None), encrypted.files(ca_file=other.path)):
        assert "name the authority that signed it (--tls-ca-file, or ?cacertfile=" in refused_by_broker(
            files.completed(url)
        )
    by_name = encrypted.files().completed(url.replace("127.0.0.1", "localhost"))
    assert "connect by a name that it has, or say which with ?server_name_indication=" in refused_by_broker(by_name)
    apply_topology(f"{by_name}&server_name_indication=broker.test", declarations())
    for days, named in {(-9, -2): "certificate has expired", (2, 9): "certificate is not yet valid"}.items():
        with presenting(encrypted.authority.sign(*NAMES, days=days)) as port:
            aged = encrypted.files().completed(f"amqps://127.0.0.1:{port}")
            assert f"{named}): let the broker have a new one" in refused_by_broker(aged)


def test_a_redis_is_refused_for_its_authority_its_name_and_its_age(encrypted: Encrypted, tmp_path: Path):
    other, url = Authority(tmp_path, "somebody else"), encrypted.rediss
    for files in (encrypted.files(ca_file=None), encrypted.files(ca_file=other.path)):
        assert "name the authority that signed it (--tls-ca-file, or ?ssl_ca_certs=" in refused_by_redis(
            files.completed(url)
        )
    by_name = encrypted.files().completed(url.replace("127.0.0.1", "localhost"))
    assert "connect by a name that it has" in refused_by_redis(by_name)
    with presenting(encrypted.authority.sign(*NAMES, days=(-9, -2))) as port:
        aged = refused_by_redis(encrypted.files().completed(f"rediss://127.0.0.1:{port}"))
    assert "certificate has expired): let the server have a new one" in aged


def test_a_server_that_wants_a_certificate_gets_one_or_the_fault_says_so(encrypted: Encrypted):
    without = encrypted.files(cert_file=None, key_file=None)
    for message in (
        refused_by_broker(without.completed(encrypted.amqps)),
        refused_by_redis(without.completed(encrypted.rediss)),
    ):
        assert "asks for a certificate of ours, name it and its key (--tls-cert-file and --tls-key-file" in message


def test_a_port_that_does_not_speak_tls_or_only_tls_is_named(encrypted: Encrypted, broker_url: str, redis_url: str):
    files = encrypted.files()
    assert "is it a TLS port" in refused_by_broker(files.completed(broker_url.replace("amqp:", "amqps:")))
    silent = files.completed(redis_url.replace("redis:", "rediss:"))
    with pytest.raises(store_errors.StoreUnavailable, match="is it a TLS port, or should the scheme be redis"):
        RedisServer(silent, connect_timeout_s=0.5, reply_timeout_s=0.5, retries=0).command("PING")
    assert "is it a TLS port (scheme amqps)" in refused_by_broker(encrypted.amqps.replace("amqps:", "amqp:"))
    assert "is it a TLS port (scheme rediss)" in refused_by_redis(encrypted.rediss.replace("rediss:", "redis:"))


@pytest.mark.parametrize("name", ["ca_file", "cert_file", "key_file"])
def test_a_file_that_is_missing_is_named_before_anything_connects(encrypted: Encrypted, tmp_path: Path, name: str):
    files = encrypted.files(**{name: tmp_path / "gone.pem"})
    with pytest.raises(InvalidArgument, match=r"TLS files cannot be read: .*No such file"):
        nearmq.connect(files.completed(encrypted.amqps))
    with pytest.raises(store_errors.InvalidArgument, match=r"of the redis url cannot be read: .*No such file"):
        open_store(files.completed(encrypted.rediss))


def test_the_command_takes_the_files_for_all_its_servers_and_the_doctor_explains(
    encrypted: Encrypted, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    def diagnosed(*options: str) -> dict[str, tuple[str, str]]:
        run([*options, "doctor", "--json"])
        found = json.loads(capsys.readouterr().out)["findings"]
        return {finding["check"]: (finding["status"], finding["message"]) for finding in found}

    monkeypatch.setenv("NEARMQ_URL", encrypted.amqps)
    monkeypatch.setenv("NEARMQ_STORE", encrypted.rediss)
    blind = diagnosed()
    assert "--tls-ca-file" in blind["broker TLS"][1]
    assert "--tls-ca-file" in blind["store"][1]
    shown = ["--tls-cert-file", str(encrypted.client.cert), "--tls-key-file", str(encrypted.client.key)]
    seeing = diagnosed("--tls-ca-file", str(encrypted.authority.path), *shown)
    assert [seeing[check][0] for check in ("broker TLS", "broker login", "store access")] == ["ok"] * 3
    assert seeing["broker TLS"][1].startswith("TLSv1.3, as 127.0.0.1")
    monkeypatch.setenv("NEARMQ_TLS_CA_FILE", str(encrypted.authority.path))
    assert "--tls-cert-file" in diagnosed()["broker login"][1]
    monkeypatch.chdir(tmp_path)
    Path("nearmq.toml").write_text(f'tls_cert_file = "{shown[1]}"\ntls_key_file = "{shown[3]}"\n')
    assert diagnosed()["broker login"][0] == "ok"
    monkeypatch.setenv("NEARMQ_URL", f"{encrypted.amqps}?{urlencode({'verify': 'verify_none'})}")
    assert diagnosed()["broker TLS"][0] == "problem"


def test_a_url_says_more_than_the_files_that_are_named_for_all_servers():
    files = TlsFiles(ca_file=Path("a b.pem"))
    assert files.completed("amqps://h/v?heartbeat=5") == "amqps://h/v?heartbeat=5&cacertfile=a+b.pem"
    assert files.completed("rediss://h/1?ssl_ca_certs=own.pem") == "rediss://h/1?ssl_ca_certs=own.pem"
    assert files.completed("local:rediss://h/1") == "local:rediss://h/1?ssl_ca_certs=a+b.pem"
    for plain in ("amqp://h", "redis://h", "file:./x", "local:./x", "s3://b/p"):
        assert files.completed(plain) == plain
