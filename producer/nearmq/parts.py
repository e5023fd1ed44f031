"""A reply that is too long for one message: its body in slices, put together again by the reader.

Each part is a message of its own with header `nearmq-part: <number>/<count>`, numbers from 1. All parts of one reply
carry the same `message_id`: a job that is answered twice has two replies, whose bodies differ (in their timing at the
least), so parts are only ever joined with parts of the same `message_id`.
"""

import re
from dataclasses import dataclass, field

from nearmq.errors import Internal
from nearmq.transport import Message

HEADER = "nearmq-part"

_NUMBER_OF_COUNT = re.compile(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})\Z")


def split(body: bytes, part_bytes: int) -> list[tuple[dict[str, str], bytes]]:
    """Cut a body into (headers, slice) of at most `part_bytes` bytes each; one that fits is one part without header."""
    if len(body) <= part_bytes:
        return [({}, body)]
    count = -(-len(body) // part_bytes)
    return [
        ({HEADER: f"{number + 1}/{count}"}, body[number * part_bytes : (number + 1) * part_bytes])
        for number in range(count)
    ]


def join(slices: dict[int, bytes]) -> bytes:
    """Return the body of all slices, given by their numbers."""
    return b"".join(slices[number] for number in sorted(slices))


@dataclass(slots=True)
class Parts:
    """The parts of the replies to one job, as they come: in any order, twice, or of several replies."""

    _slices: dict[tuple[str, int], dict[int, bytes]] = field(default_factory=dict)

    def add(self, message: Message) -> bytes | None:
        """Take one message that has the header; return the whole body once a reply is complete, None before.

        Raises:
            Internal: the header is not `<number>/<count>` with number at most count.
        """
        number, count = _read_header(message.headers[HEADER])
        if count == 1:
            return message.body
        slices = self._slices.setdefault((message.message_id, count), {})
        slices[number] = message.body
        if len(slices) < count:
            return None
        del self._slices[message.message_id, count]
        return join(slices)


def _read_header(header: str | int) -> tuple[int, int]:
    match = _NUMBER_OF_COUNT.match(str(header))
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise Internal(f"header {HEADER} is {header!r:.80}, expected '<number>/<count>'", field=HEADER)
    return number, count
