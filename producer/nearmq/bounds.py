"""What a job may hold: the bounds of the wire contract."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bounds:
    """The most that one job may hold; each is equal to itself alone, for what is kept of jobs is looked up by it.

    Attributes:
        body_bytes: the whole body; RabbitMQ 4 refuses messages over 16 MiB, and pika holds a body twice. Decoding takes
            at most some 18 times as many bytes for a while: JSON lists of numbers take 14 times, packed vectors
            twice; small objects, of which a row write may hold more than other jobs, take 30 times, but they are
            bounded in number. Measured with bodies of 8 MiB.
        depth: nesting of objects and lists.
        items: lists and objects, and strings, in the whole body; far above what the other bounds leave room for, it
            keeps a body of empty ones small in memory.
        json_depth: nesting within a value of a `json` field. A row write nests its values three levels deep itself.
        row_lists: lists and objects in the body of a row write: 16 a row, most of them in `json` and array fields.
        row_strings: strings in the body of a row write: 64 a row.
        dim: dimensions of a vector.
        queries: vectors or ids of one search.
        rows: rows of one write, ids of one get or delete, and the limit of one query.
        limit: offset + limit of one search.
        hits: queries x (offset + limit) of one search, which is what bounds the reply.
        id_bytes: UTF-8 bytes of a string primary key.
        expr_bytes: UTF-8 bytes of a filter expression.
        names: partition names or output fields of one job.
        vector_fields: vector fields of a collection.
        scalar_fields: scalar fields of a collection.
        params: search or index parameters.
    """

    body_bytes: int = 8 << 20
    depth: int = 8
    items: int = 65_536
    json_depth: int = 64
    row_lists: int = 262_144
    row_strings: int = 1_048_576
    dim: int = 32_768
    queries: int = 16_384
    rows: int = 16_384
    limit: int = 1_048_576
    hits: int = 16_777_216
    id_bytes: int = 1_024
    expr_bytes: int = 65_536
    names: int = 1_024
    vector_fields: int = 8
    scalar_fields: int = 64
    params: int = 32


DEFAULT_BOUNDS = Bounds()
