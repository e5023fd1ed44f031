"""What a reader of the document is told first, and what no schema can say."""

from nearmq.topology import DEFAULT_PREFIX, Names
from scripts.asyncapi.values import MOST

_NAMES = Names()

#: The description of the document, in CommonMark.
INTRODUCTION = f"""\
Nearest-neighbour search as jobs over RabbitMQ, seen from a producer: publish a job to the exchange `{_NAMES.jobs}`,
with confirms and the mandatory flag, and read its reply from the queue that its `reply_to` names. What each job does
and what is promised is in [wire.md](wire.md); this document says for programs what each message holds.

AMQP carries no object of properties, so here the `headers` of a message are its basic properties by their AMQP names
(`message_id`, `correlation_id`, `reply_to`, `type`, …) together with the entries of its header table: those with a dash
in their names, and `traceparent`, `tracestate`.

The routing key is the channel's address. A third word, `search.books.s017`, is a slot for cache affinity: a queue that
is bound to `search.*.s017` gets the job, and the shared one where none is; so does a pool's queue that is bound to the
key of a collection. `{DEFAULT_PREFIX}` in names of exchanges and queues is a prefix that an installation may change.

Readers of replies let unknown keys and codes pass: later releases add some. Of a job an unknown key is refused.

What no schema says of a job, and workers check:

- a body is UTF-8 without a byte order mark, at most {MOST.body_bytes:,} bytes, nested {MOST.depth} levels deep, with
  {MOST.items:,} lists and objects, and as many strings; {MOST.row_lists:,} and {MOST.row_strings:,} of an upsert or
  insert, whose values may be nested {MOST.json_depth} levels more;
- no key stands twice in an object, and `10.0` is no integer;
- vectors are of one dimension, and packed `data` has the bytes that its `shape` takes, none of them NaN or infinite;
- offset + limit is at most {MOST.limit:,}, as is (offset + limit) x group_size; queries x (offset + limit) at most
  {MOST.hits:,};
- a write has as many vectors, and values of each field, as ids; the fields of a collection have different names;
- lengths of strings are bounded in bytes of UTF-8.
"""
