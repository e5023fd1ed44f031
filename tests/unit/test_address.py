"""Reading AMQP URLs."""

import pytest

from nearmq.amqp import Address, parse_url, parse_urls
from nearmq.errors import InvalidArgument


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://", ("localhost", 5672, "/", "guest", "guest")),
        ("amqp://rabbit", ("rabbit", 5672, "/", "guest", "guest")),
        ("amqp://u:p@rabbit:10000/vhost", ("rabbit", 10000, "vhost", "u", "p")),
        ("amqp://u:p@rabbit/", ("rabbit", 5672, "/", "u", "p")),
        ("amqp://u@rabbit/%2F", ("rabbit", 5672, "/", "u", "")),
        ("amqp://user%61:p%40%2Fss@ra:10/v%2Fhost", ("ra", 10, "v/host", "usera", "p@/ss")),
        ("amqp://[::1]:5673", ("::1", 5673, "/", "guest", "guest")),
        ("amqps://u:p@rabbit/v", ("rabbit", 5671, "v", "u", "p")),
    ],
)
def test_a_url_is_read_as_rabbitmq_specifies_it(url: str, expected: tuple[object, ...]):
    address = parse_url(url)
    assert (address.host, address.port, address.virtual_host, address.user, address.password) == expected
    assert (address.tls is not None) == url.startswith("amqps")


def test_a_url_of_several_hosts_says_the_rest_for_all_of_them():
    addresses = parse_urls("amqp://u:p%2C@one:10,two,[::1]:30/v?heartbeat=7")
    assert [str(address) for address in addresses] == ["one:10", "two:5672", "::1:30"]
    assert {(each.user, each.password, each.virtual_host, each.heartbeat_s) for each in addresses} == {
        ("u", "p,", "v", 7)
    }


def test_query_parameters_have_rabbitmqs_units():
    address = parse_url("amqp://h?heartbeat=7&connection_timeout=2500")
    assert (address.heartbeat_s, address.connection_timeout_s) == (7, 2.5)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://u:hunter2@h", "scheme 'http' is not amqp or amqps"),
        ("amqp://u:hunter2@h:port", "the port is not a number"),
        ("amqp://u:hunter2@h/a/b", "virtual host 'a/b' holds a '/'"),
        ("amqp://u:hunter2@h?hartbeat=3", "query parameter 'hartbeat' is unknown, known are heartbeat"),
        ("amqp://u:hunter2@h?heartbeat=soon", "query parameter heartbeat is 'soon', expected a whole number"),
        ("amqps://u:hunter2@h?verify=maybe", "verify is 'maybe', allowed are verify_peer and verify_none"),
        ("amqps://u:hunter2@h?cacertfile=/no/such/file", "the TLS files cannot be read"),
    ],
)
def test_a_url_that_cannot_be_read_says_why_without_its_password(url: str, message: str):
    with pytest.raises(InvalidArgument, match=message) as caught:
        parse_url(url)
    assert caught.value.field == "url"
    assert "hunter2" not in str(caught.value)


def test_an_address_never_shows_its_password():
    address: Address = parse_url("amqp://u:hunter2@rabbit/v")
    assert "hunter2" not in f"{address} {address!r} {address.parameters('test')!r}"
