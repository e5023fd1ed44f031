"""What a message in the dead letters tells of itself: why it is there, whose it was, and where it goes again."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from nearmq.topology import TYPES_WITHOUT_COLLECTION
from nearmq.transport import Message

#: As workers write them: why a message is there, and the queue that its job came from.
REASON_HEADER = "nearmq-reason"
QUEUE_HEADER = "nearmq-queue"
#: How often a message was put back, of jobs and replies alike.
RETRIES_HEADER = "nearmq-retries"

#: The reason of what no queue took: it came by the alternate exchanges, which say nothing.
UNROUTABLE = "unroutable"

REPLY_TYPE = "reply"

#: The broker's own headers, on what it dead-lettered itself.
_BROKERS = "x-"
#: Names and values in a reason are quoted.
_QUOTED = re.compile(r"'[^']*'")
#: What a message has from its time in the dead letters, or would fail by again: who puts a job back wants it done,
#: however long ago its publisher stopped waiting.
_NOT_AGAIN = frozenset({REASON_HEADER, QUEUE_HEADER, "nearmq-deadline"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message in the dead letters.

    Attributes:
        message: the job or reply; its headers are those of the wire contract's types only.
        headers: all of them as they came, `x-death` of the broker among them.
        tag: the delivery's, by which it is settled.
    """

    message: Message
    headers: Mapping[str, Any]
    tag: int

    @property
    def reason(self) -> str:
        """Why it is here: a worker's words, else the broker's word in `x-death`, else UNROUTABLE."""
        return str(self.headers.get(REASON_HEADER) or self._death("reason") or UNROUTABLE)

    @property
    def cause(self) -> str:
        """The reason as `cause_of` has it."""
        return cause_of(self.reason)

    @property
    def queue(self) -> str | None:
        """The queue that the job was in; None where nobody says."""
        name = self.headers.get(QUEUE_HEADER) or self._death("queue")
        return None if name is None else str(name)

    @property
    def is_reply(self) -> bool:
        """Whether it is a reply that no queue took, not a job."""
        return self.message.type == REPLY_TYPE

    @property
    def job_id(self) -> str:
        """The id of the job; of a reply, the id that its job was to be answered under."""
        return (self.message.correlation_id or "") if self.is_reply else self.message.message_id

    @property
    def collection(self) -> str | None:
        """The collection that the job's routing key names; a reply names none."""
        words = self.message.routing_key.split(".")
        has_one = not self.is_reply and len(words) > 1 and words[0] not in TYPES_WITHOUT_COLLECTION
        return words[1] if has_one else None

    @property
    def retries(self) -> int:
        """How often it was put back before."""
        count = self.headers.get(RETRIES_HEADER, 0)
        return count if isinstance(count, int) else 0

    def again(self) -> Message:
        """Return the message to publish: the same id, body and address, without what made it a dead letter."""
        kept = {
            name: value
            for name, value in self.message.headers.items()
            if name not in _NOT_AGAIN and not name.startswith(_BROKERS)
        }
        return msgspec.structs.replace(self.message, headers=kept | {RETRIES_HEADER: self.retries + 1})

    def _death(self, fact: str) -> Any:
        """Return a fact of the broker's newest record, which it puts first."""
        deaths = self.headers.get("x-death")
        newest = deaths[0] if isinstance(deaths, list) and deaths else None
        return newest.get(fact) if isinstance(newest, dict) else None


def cause_of(reason: str) -> str:
    """Return a reason without the names and values that it quotes, so that equal faults have equal causes."""
    return _QUOTED.sub("'…'", reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which dead letters are meant: those that match one value of each list that is not empty.

    Attributes:
        causes: how the cause or the reason begins.
        types: of jobs, or `reply`.
        collections: of jobs.
        job_ids: of jobs, and of the jobs that replies are to.
    """

    causes: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    collections: tuple[str, ...] = ()
    job_ids: tuple[str, ...] = ()

    def takes(self, letter: DeadLetter) -> bool:
        """Say whether a dead letter is meant."""
        return (
            (not self.causes or letter.cause.startswith(self.causes) or letter.reason.startswith(self.causes))
            and (not self.types or letter.message.type in self.types)
            and (not self.collections or letter.collection in self.collections)
            and (not self.job_ids or letter.job_id in self.job_ids)
        )


@dataclass(slots=True)
class Group:
    """The dead letters of one cause.

    Attributes:
        types: how many of each.
        collections: how many of each; replies are of none.
        first_s, last_s: when the oldest and the newest were published, seconds since 1970; 0 where none says.
    """

    cause: str
    letters: int = 0
    bytes: int = 0
    types: Counter[str] = field(default_factory=Counter)
    collections: Counter[str] = field(default_factory=Counter)
    first_s: int = 0
    last_s: int = 0

    def add(self, letter: DeadLetter) -> None:
        """Count one."""
        self.letters += 1
        self.bytes += len(letter.message.body)
        self.types[letter.message.type] += 1
        if letter.collection is not None:
            self.collections[letter.collection] += 1
        published_s = letter.message.timestamp_s
        if published_s:
            self.first_s = min(self.first_s or published_s, published_s)
            self.last_s = max(self.last_s, published_s)


def by_cause(letters: Iterable[DeadLetter]) -> list[Group]:
    """Group dead letters by their causes, the largest group first; keeps none of them."""
    groups: dict[str, Group] = {}
    for letter in letters:
        groups.setdefault(letter.cause, Group(letter.cause)).add(letter)
    return sorted(groups.values(), key=lambda group: -group.letters)
