"""Going through the dead letters: the selected ones are looked at, put back or dropped, the others left in place."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

from nearmq.amqp import DeadLetterQueue
from nearmq.dead_letters import DeadLetter, Selection, cause_of
from nearmq.errors import NearmqError

#: Puts that await their confirm at a time.
_IN_FLIGHT = 1_000
#: The broker closes the channel of who holds a letter for 30 minutes: well before, all are given back and taken anew.
_HOLD_S = 600.0

#: Told how many letters were looked at, and how many there are.
OnProgress = Callable[[int, int], None]
#: Opens the queue anew.
Open = Callable[[], DeadLetterQueue]


@dataclass(slots=True)
class Outcome:
    """What became of the selected letters so far.

    Attributes:
        failed: how many were not put back and stay, by cause.
    """

    done: int = 0
    failed: Counter[str] = field(default_factory=Counter)


def look(open_queue: Open, selection: Selection, *, limit: int | None, on_progress: OnProgress) -> Iterator[DeadLetter]:
    """Give the selected letters, oldest first; all are back in the queue, in their order, at the end."""
    given = 0
    with open_queue() as queue:
        for letter in _letters(queue, on_progress):
            if given == limit:
                return
            if selection.takes(letter):
                given += 1
                yield letter


def drop(
    open_queue: Open, selection: Selection, outcome: Outcome, *, limit: int | None, on_progress: OnProgress
) -> None:
    """Drop the selected letters, oldest first; `outcome` is kept as they go."""
    with open_queue() as queue:
        for letter in _letters(queue, on_progress):
            if outcome.done == limit:
                return
            if selection.takes(letter):
                queue.drop(letter)
                outcome.done += 1


def put_back(
    open_queue: Open,
    selection: Selection,
    outcome: Outcome,
    *,
    limit: int | None,
    rate: float | None,
    on_progress: OnProgress,
    hold_s: float = _HOLD_S,
) -> None:
    """Put the selected letters back to where they came from, oldest first and each once; see `DeadLetterQueue`.

    Whatever ends it, Ctrl-C too, waits for the confirms of what was published; `outcome` is kept as they come.

    Args:
        limit: letters at most; those that cannot be put back are counted.
        rate: letters a second at most.
        hold_s: after so long, all that was taken is given back and taken anew.
    """
    run = _PutBack(selection, outcome, limit, rate)
    while not run.go_through(open_queue, hold_s, on_progress):
        pass


class _PutBack:
    def __init__(self, selection: Selection, outcome: Outcome, limit: int | None, rate: float | None) -> None:
        self._selection = selection
        self._outcome = outcome
        self._limit = limit
        self._gap_s = 1 / rate if rate else 0.0
        self._next_s = time.monotonic()
        self._published = 0
        self._earlier: set[tuple[str, object]] = set()  # what was tried before the queue was opened again

    def go_through(self, open_queue: Open, hold_s: float, on_progress: OnProgress) -> bool:
        """Open the queue and put back what was not tried before; False when it took too long to get through."""
        tried: set[tuple[str, object]] = set()
        in_flight: deque[Future[None]] = deque()
        give_up_s = time.monotonic() + hold_s
        with open_queue() as queue:
            try:
                for letter in _letters(queue, on_progress):
                    if self._published == self._limit:
                        return True
                    if time.monotonic() > give_up_s and tried:
                        return False
                    if _identity(letter) in self._earlier or not self._selection.takes(letter):
                        continue
                    self._keep_pace()
                    in_flight.append(queue.put_back(letter))
                    tried.add(_identity(letter))
                    self._published += 1
                    while len(in_flight) >= _IN_FLIGHT or (in_flight and in_flight[0].done()):
                        self._note(in_flight.popleft())
            finally:
                while in_flight:
                    self._note(in_flight.popleft())
                self._earlier |= tried
        return True

    def _keep_pace(self) -> None:
        wait_s = self._next_s - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
        self._next_s = max(self._next_s, time.monotonic() - self._gap_s) + self._gap_s

    def _note(self, confirmed: Future[None]) -> None:
        error = confirmed.exception()
        if error is None:
            self._outcome.done += 1
        elif isinstance(error, NearmqError):
            self._outcome.failed[cause_of(error.message)] += 1
        else:
            raise error


def _letters(queue: DeadLetterQueue, on_progress: OnProgress) -> Iterator[DeadLetter]:
    total = queue.count()
    for number, letter in enumerate(queue.letters(), start=1):
        on_progress(number, total)
        yield letter


def _identity(letter: DeadLetter) -> tuple[str, object]:
    """What tells a letter from others; the parts of a reply share their message id."""
    return letter.message.message_id, letter.message.headers.get("nearmq-part")
