"""Where a job goes, read from the declarations as the broker would, and where a reply must never go."""

import re
from itertools import combinations

import pytest

from nearmq.errors import InvalidArgument
from nearmq.jobs import JOB_TYPES
from nearmq.pools import Pool, with_pools
from nearmq.topology import (
    CONTROL_TYPES,
    DIRECT_REPLY_TO,
    QUEUE_TYPES,
    Declarations,
    Names,
    QueueLimits,
    check_reply_to,
    declarations,
    is_direct_reply_to,
    routing_key,
)

NAMES = Names()
DECLARED = declarations()


def test_every_job_type_of_the_wire_has_one_way():
    ways = [*CONTROL_TYPES, *(job_type for types in QUEUE_TYPES.values() for job_type in types)]
    assert len(ways) == len(set(ways))
    assert set(JOB_TYPES) <= set(ways)


@pytest.mark.parametrize(
    ("job_type", "key", "destination"),
    [
        ("search", "search.books", "nearmq.search"),
        ("search", "search.books.s017", "nearmq.search"),
        ("list", "list", "nearmq.search"),
        ("describe", "describe.books", "nearmq.search"),
        ("create", "create.books", "nearmq.write"),
        ("drop", "drop.books", "nearmq.write"),
        ("rename", "rename.books", "nearmq.write"),
        ("compact", "compact.books", "nearmq.maintain"),
    ],
)
def test_a_job_lands_in_the_one_queue_of_its_type(job_type: str, key: str, destination: str):
    assert landing(DECLARED, key) == [destination]
    assert NAMES.queue_of(job_type) == destination


@pytest.mark.parametrize("key", ["load.books", "release.books", "cancel.books", "ping"])
def test_a_control_job_goes_to_the_fanout_of_the_workers(key: str):
    assert landing(DECLARED, key) == ["nearmq.control"]
    assert NAMES.queue_of(key.partition(".")[0]) is None


@pytest.mark.parametrize("key", ["serch.books", "", "books", "Search.books"])
def test_what_nobody_knows_lands_in_the_dead_letters(key: str):
    assert landing(DECLARED, key) == ["nearmq.dead"]


def test_an_unknown_job_type_has_no_queue():
    with pytest.raises(InvalidArgument, match="'serch'"):
        NAMES.queue_of("serch")


def test_no_shared_queue_takes_a_routing_key_of_another():
    keys = [(queue, f"{job_type}.books") for queue, types in QUEUE_TYPES.items() for job_type in types]
    for (queue, key), (other_queue, other_key) in combinations(keys, 2):
        assert queue == other_queue or landing(DECLARED, key) != landing(DECLARED, other_key)


def test_every_job_queue_is_bounded_and_keeps_its_dead_letters():
    jobs = {queue.name: queue.arguments for queue in DECLARED.queues if queue.name != "nearmq.dead"}
    assert set(jobs) == {"nearmq.search", "nearmq.write", "nearmq.maintain"}
    for arguments in jobs.values():
        assert arguments["x-queue-type"] == "quorum"
        assert arguments["x-delivery-limit"] == 20
        assert arguments["x-max-length-bytes"] == 1 << 30
        assert arguments["x-overflow"] == "reject-publish"
        assert arguments["x-dead-letter-exchange"] == "nearmq.dead"
        assert arguments["x-dead-letter-strategy"] == "at-least-once"


def test_only_the_write_queue_has_a_single_active_consumer():
    single = [queue.name for queue in DECLARED.queues if queue.arguments.get("x-single-active-consumer")]
    assert single == ["nearmq.write"]


def test_dead_letters_are_not_dropped_however_often_they_are_looked_at():
    (dead,) = [queue.arguments for queue in DECLARED.queues if queue.name == "nearmq.dead"]
    assert dead["x-delivery-limit"] == 2**31 - 1
    assert "x-dead-letter-exchange" not in dead


def test_the_limits_are_the_operators_choice():
    limits = QueueLimits(deliveries=5, queue_bytes=1 << 20, dead_bytes=1 << 21)
    arguments = {queue.name: queue.arguments for queue in declarations("nearmq", limits).queues}
    assert arguments["nearmq.search"]["x-delivery-limit"] == 5
    assert arguments["nearmq.search"]["x-max-length-bytes"] == 1 << 20
    assert arguments["nearmq.dead"]["x-max-length-bytes"] == 1 << 21


def test_a_delivery_limit_below_the_isolation_of_poison_jobs_is_refused():
    with pytest.raises(InvalidArgument, match="deliveries is 2, allowed is 3 or more"):
        QueueLimits(deliveries=2)


def test_everything_lies_under_the_prefix():
    declared = declarations("acme.search")
    names = [item.name for item in (*declared.exchanges, *declared.queues)]
    names += [name for binding in declared.bindings for name in (binding.source, binding.destination)]
    assert all(Names("acme.search").is_own(name) for name in names)


def test_nothing_is_named_before_it_is_declared():
    exchanges = [exchange.name for exchange in DECLARED.exchanges]
    for number, exchange in enumerate(DECLARED.exchanges):
        assert set(exchange.arguments.values()) <= set(exchanges[:number])
    declared = {*exchanges, *(queue.name for queue in DECLARED.queues)}
    assert {name for binding in DECLARED.bindings for name in (binding.source, binding.destination)} <= declared


@pytest.mark.parametrize("prefix", ["", "a b", ".a", "a.", "a..b", "amq", "amq.x", "é", "a\n", "a#", "x" * 101])
def test_a_prefix_that_the_broker_or_a_pattern_would_mistake_is_refused(prefix: str):
    with pytest.raises(InvalidArgument) as caught:
        Names(prefix)
    assert caught.value.field == "prefix"


def test_a_routing_key_is_type_collection_and_slot():
    assert routing_key("list") == "list"
    assert routing_key("search", "books") == "search.books"
    assert routing_key("search", "books", "s017") == "search.books.s017"


@pytest.mark.parametrize(
    "reply_to",
    ["my.results", "reply.tenant.0192", "nearmqresults", DIRECT_REPLY_TO, f"{DIRECT_REPLY_TO}.g1h2AA5yZX==.x"],
)
def test_a_reply_may_go_to_a_queue_of_the_publishers(reply_to: str):
    check_reply_to(reply_to, NAMES)


@pytest.mark.parametrize(
    ("reply_to", "named"),
    [
        ("", "0 bytes, allowed are 1 to 255"),
        ("é" * 128, "256 bytes, allowed are 1 to 255"),
        ("nearmq.search", "own prefix 'nearmq'"),
        ("nearmq.write", "own prefix"),
        ("nearmq.dead", "own prefix"),
        ("nearmq.control.worker-1", "own prefix"),
        ("nearmq.not.declared.yet", "own prefix"),
        ("nearmq", "own prefix"),
        ("amq.gen-JzTY20BRgKO-HjmUJj0wLg", "give the reply queue a name"),
        ("amq.rabbitmq.reply-to-and-more", "broker's"),
        ("amq.rabbitmq.trace", "broker's"),
    ],
)
def test_a_reply_never_goes_to_a_queue_of_ours_or_the_brokers(reply_to: str, named: str):
    with pytest.raises(InvalidArgument, match=re.escape(named)) as caught:
        check_reply_to(reply_to, NAMES)
    assert caught.value.field == "reply_to"


def test_in_hardened_mode_the_whole_name_has_to_match_the_pattern():
    hardened = re.compile(r"reply\.acme\.[0-9a-f]+")
    check_reply_to("reply.acme.0192f0", NAMES, hardened=hardened)
    for reply_to in ("reply.acme.0192f0.more", "reply.other.0192f0", DIRECT_REPLY_TO):
        with pytest.raises(InvalidArgument, match="hardened mode"):
            check_reply_to(reply_to, NAMES, hardened=hardened)


def test_direct_reply_to_has_no_place_in_hardened_mode_whatever_the_pattern():
    with pytest.raises(InvalidArgument, match="does not serve"):
        check_reply_to(DIRECT_REPLY_TO, NAMES, hardened=re.compile(".*"))


def test_a_pool_takes_the_reads_of_its_collections_by_a_queue_like_the_shared_one():
    shared = declarations("acme")
    wanted = with_pools(shared, Names("acme"), [Pool.read("hot=books,maps"), Pool.read("slow=films")])
    hot, slow = wanted.queues[-2:]
    assert (hot.name, slow.name) == ("acme.hot", "acme.slow")
    assert hot.arguments == slow.arguments == shared.queues[1].arguments
    keys = [(binding.source, binding.routing_key) for binding in wanted.bindings if binding.destination == "acme.slow"]
    assert keys == [("acme.jobs", f"{kind}.films") for kind in ("search", "get", "count", "query", "describe")]
    assert with_pools(shared, Names("acme"), []) == shared


@pytest.mark.parametrize(
    ("pools", "message"),
    [
        (["books"], "not of the form"),
        (["hot="], "''"),
        (["ho.t=books"], "'ho.t'"),
        (["hot=a.b"], "'a.b'"),
        (["search=books"], "there is a 'nearmq.search' already"),
        (["dead=books"], "there is a 'nearmq.dead' already"),
        (["hot=a", "hot=b"], "there is a 'nearmq.hot' already"),
        (["hot=a,b", "slow=b"], "collection 'b' is there 2 times"),
        (["hot=a,a"], "collection 'a' is there 2 times"),
    ],
)
def test_a_pool_that_would_do_harm_is_refused(pools: list[str], message: str):
    with pytest.raises(InvalidArgument, match=message) as caught:
        with_pools(declarations(), Names(), [Pool.read(text) for text in pools])
    assert caught.value.field == "pool"


def test_direct_reply_to_is_known_with_the_brokers_token_and_without():
    assert is_direct_reply_to(DIRECT_REPLY_TO)
    assert is_direct_reply_to(f"{DIRECT_REPLY_TO}.g1h2AA5y")
    assert not is_direct_reply_to(f"{DIRECT_REPLY_TO}s")


def landing(declared: Declarations, key: str) -> list[str]:
    """Return where a message ends that is published to nearmq.jobs, alternate exchanges followed, as AMQP says."""
    exchange: str | None = "nearmq.jobs"
    while exchange is not None:
        matched = {
            binding.destination
            for binding in declared.bindings
            if binding.source == exchange and (is_fanout(declared, exchange) or matches(binding.routing_key, key))
        }
        if matched:
            return sorted(matched)
        (arguments,) = [item.arguments for item in declared.exchanges if item.name == exchange]
        exchange = arguments.get("alternate-exchange")  # type: ignore[assignment]
    return []


def is_fanout(declared: Declarations, exchange: str) -> bool:
    return any(item.name == exchange and item.kind == "fanout" for item in declared.exchanges)


def matches(pattern: str, key: str) -> bool:
    """Match a topic pattern of the form `word.#`, the only one that is declared."""
    assert pattern.endswith(".#")
    return key.split(".", maxsplit=1)[0] == pattern.removesuffix(".#")
