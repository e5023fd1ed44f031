"""Mutants of given inputs, the same for the same seed: what is cut, flipped, repeated, and spliced with others."""

import random
from collections.abc import Iterator, Sequence

#: What parsers of numbers, texts and structures stumble over.
TOKENS = (
    *(b"0", b"-0", b"-1", b"1e999", b"-1e308", b"9223372036854775808", b"18446744073709551616", b"0.1", b"1e-999"),
    *(b"null", b"true", b"NaN", b"Infinity", b"{}", b"[]", b"[[", b"]}", b'""', b'"\\ud800"', b'"\\u0000"'),
    *(b",", b":", b'"', b"\\", b"\n", b" ", b"\xff", b"\xc3", b"\xef\xbb\xbf", b"\x00", b"\xed\xa0\x80"),
    *(b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\xff\xff\xff\x7f", b"\x00\x00\xc0\x7f", b"\x01\x00\x00\x00"),
    *(b" and ", b" or ", b"not ", b" in ", b" like ", b"(", b")", b"**", b"%", b"{a}", b"meta['a']", b"is null"),
)
_MOST_EDITS = 4
_MOST_BYTES = 1 << 16


def mutants(seeds: Sequence[bytes], rng: random.Random) -> Iterator[bytes]:
    """Give mutants without end, each of one seed and up to four edits."""
    while True:
        data = rng.choice(seeds)
        for _ in range(rng.randint(1, _MOST_EDITS)):
            data = _edited(data, seeds, rng)
        yield data[:_MOST_BYTES]


def _edited(data: bytes, seeds: Sequence[bytes], rng: random.Random) -> bytes:
    start = rng.randint(0, len(data))
    stop = min(len(data), start + rng.choice((0, 1, 1, 2, 4, 8, 64)))
    before, between, after = data[:start], data[start:stop], data[stop:]
    other = rng.choice(seeds)
    return rng.choice(
        (
            _flipped(data, rng),
            before,
            before + after,
            before + rng.choice(TOKENS) + rng.choice((between, b"")) + after,
            before + between * rng.choice((2, 3, 50)) + after,
            before + rng.randbytes(len(between)) + after,
            before + other[rng.randint(0, len(other)) :],
        )
    )


def _flipped(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)
