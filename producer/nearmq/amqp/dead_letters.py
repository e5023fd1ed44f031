"""The dead letters' queue, looked through and put back: whatever is not settled on the way is in it afterwards."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from nearmq.amqp.connection import Connection
from nearmq.amqp.faults import lost_fault
from nearmq.amqp.messages import all_headers, from_delivery
from nearmq.amqp.publisher import Outgoing, Publisher
from nearmq.dead_letters import DeadLetter
from nearmq.errors import BrokerUnavailable, InvalidArgument, NearmqError
from nearmq.futures import confirmed
from nearmq.topology import Names, check_reply_to

#: Letters of the first page; each is twice as long as the one before, up to the most. RabbitMQ 3.10 gives back in their
#: order what at most 32 consumers held, which so are enough for 800,000 letters.
_FIRST_PAGE = 256
_MOST_PAGE = 32_768
#: A page of more bytes is followed by a shorter one.
_PAGE_BYTES = 32 << 20
#: A page is given up when nothing of it has come for so long: somebody else has taken what was counted.
_SILENCE_S = 5.0
_POLL_S = 0.01

T = TypeVar("T")


class DeadLetterQueue:
    """The dead letters, from entering to leaving; for one thread.

    A letter that was taken and is neither put back nor dropped is in the queue again when the channel closes, also when
    the process is killed. Leaving waits for that, and keeps the order; a kill may put those that were taken behind the
    others. Each is then counted as delivered once more, which does no harm: the queue has no delivery limit. Meanwhile
    nobody else sees it.

    A connection that is lost is not made again: what was taken is back in the queue, so begin anew.

    Args:
        url: `amqp[s]://…`.
        names: of the installation.
        reply_pattern: of workers in hardened mode; replies then go back through the exchange of replies, as theirs do.

    Raises:
        BrokerUnavailable, PermissionDenied: from entering, and from every method once the connection is lost.
    """

    def __init__(self, url: str, names: Names, *, reply_pattern: re.Pattern[str] | None = None) -> None:
        self._names = names
        self._reply_pattern = reply_pattern
        self._connection = Connection(url, name="nearmq dead letters", on_open=self._open, on_lost=self._lose)
        self._publisher = Publisher(self._connection)
        self._pages = 0
        # In the connection's thread only:
        self._channel: Any = None  # to publish and count
        self._letters: Any = None  # another, to take: all go back in their order when it closes, and not by a nack
        self._held = 0
        self._fault: NearmqError | None = None
        self._asked: Future[Any] = Future()

    def __enter__(self) -> Self:
        self._connection.start()
        return self

    def __exit__(
        self, failed: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._fault is None:
                self._give_back()
        finally:
            self._connection.stop()

    def count(self) -> int:
        """How many letters wait; those that are taken are not among them."""

        def ask(answer: Future[int]) -> None:
            def counted(frame: Any) -> None:
                answer.set_result(frame.method.message_count)

            self._channel.queue_declare(self._names.dead, passive=True, callback=counted)

        return self._ask(ask).result()

    def letters(self) -> Iterator[DeadLetter]:
        """Take the letters that wait now, oldest first; what is put back meanwhile and returns is not among them."""
        size, left = _FIRST_PAGE, self.count()
        while left and (waiting := self.count()):
            page = self._take(min(size, left, waiting))
            if not page:
                raise BrokerUnavailable(
                    f"{waiting} dead letters wait, but none came within {_SILENCE_S:g} s: try again when no other "
                    "process looks at them"
                )
            left -= len(page)
            is_large = sum(len(letter.message.body) for letter in page) > _PAGE_BYTES
            size = max(1, len(page) // 2) if is_large else min(2 * size, _MOST_PAGE)
            yield from page

    def put_back(self, letter: DeadLetter) -> Future[None]:
        """Publish a letter to where it came from, and take it out of the queue once that is confirmed.

        The future fails as `Outgoing` says, and with InvalidArgument for a reply to an address that none is
        sent to; the letter then stays. Who is killed between the confirm and the acknowledgement has the job in both
        places; it is the same job, by its id.
        """
        message = letter.again()
        if letter.is_reply:
            try:
                check_reply_to(message.routing_key, self._names, hardened=self._reply_pattern)
            except InvalidArgument as error:
                refused: Future[None] = Future()
                refused.set_exception(error)
                return refused
        exchange = self._exchange_of(letter)
        sent = confirmed(
            lambda on_end: self._publisher.publish(Outgoing(exchange, message, mandatory=True, on_end=on_end))
        )
        sent.add_done_callback(partial(self._on_confirm, letter))
        return sent

    def drop(self, letter: DeadLetter) -> None:
        """Take a letter out of the queue for good."""

        def ask(answer: Future[None]) -> None:
            self._ack(letter)
            answer.set_result(None)

        self._ask(ask).result()

    def _exchange_of(self, letter: DeadLetter) -> str:
        if not letter.is_reply:
            return self._names.jobs
        return "" if self._reply_pattern is None else self._names.replies

    def _take(self, wanted: int) -> list[DeadLetter]:
        """Take so many letters, or those that came before none did for a while.

        By a consumer of its own, since RabbitMQ takes a prefetch count for new ones only; it is cancelled before its
        letters are settled, which would make room for more.
        """
        letters: list[DeadLetter] = []
        end: Future[None] | None = None  # None before the consumer is there, and once it is being cancelled
        self._pages += 1
        tag = f"page-{self._pages:06}"

        def ask(answer: Future[None]) -> None:
            nonlocal end
            end = answer
            self._letters.basic_qos(prefetch_count=wanted)
            self._letters.basic_consume(self._names.dead, on_letter, consumer_tag=tag)

        def on_letter(_: Any, method: Any, properties: Any, body: bytes) -> None:
            self._held += 1
            message = from_delivery(method, properties, body)
            letters.append(DeadLetter(message=message, headers=all_headers(properties), tag=method.delivery_tag))
            if len(letters) == wanted:
                cancel()

        def cancel() -> None:
            nonlocal end
            answer, end = end, None
            if answer is not None and self._letters is not None:
                self._letters.basic_cancel(tag, callback=lambda _: answer.set_result(None))

        cancelled, seen = self._ask(ask), 0
        while True:
            try:
                cancelled.result(_SILENCE_S)
            except TimeoutError:
                if len(letters) == seen:
                    self._connection.call(cancel)
                seen = len(letters)
            else:
                return letters

    def _ask(self, ask: Callable[[Future[T]], None]) -> "Future[T]":
        """Run in the connection's thread what will set the future that is returned; it fails if the connection does."""
        answer: Future[T] = Future()

        def begin() -> None:
            if self._fault is not None:
                answer.set_exception(self._fault)
                return
            self._asked = answer
            ask(answer)

        self._connection.call(begin)
        return answer

    def _on_confirm(self, letter: DeadLetter, confirmed: Future[None]) -> None:
        if confirmed.exception() is None and self._letters is not None:
            self._ack(letter)

    def _ack(self, letter: DeadLetter) -> None:
        self._letters.basic_ack(letter.tag)
        self._held -= 1

    def _give_back(self) -> None:
        """Take the rest, close the channel of the letters, and wait until all that are left are in the queue again.

        RabbitMQ keeps what was given back before in a queue of its own, before all others, and adds to its end: only
        when all go back together do they keep their order. It does so after it has confirmed the close; who looked
        meanwhile would find some missing.
        """

        def close(answer: Future[int]) -> None:
            letters, self._letters = self._letters, None
            letters.add_on_close_callback(lambda *_: answer.set_result(self._held))
            letters.close()

        for _ in self.letters():
            pass
        waiting = self.count()
        waiting += self._ask(close).result()
        give_up_s = time.monotonic() + _SILENCE_S
        while self.count() < waiting and time.monotonic() < give_up_s:
            time.sleep(_POLL_S)

    def _open(self, channel: Any, ready: Callable[[], None]) -> None:
        if self._fault is not None:  # tags of a channel that was lost mean other letters on the next
            return

        def opened(letters: Any) -> None:
            self._channel, self._letters = channel, letters
            letters.add_on_close_callback(self._on_letters_closed)
            self._publisher.open(channel, ready)

        channel.connection.channel(on_open_callback=opened)

    def _on_letters_closed(self, _: Any, error: Exception) -> None:
        if self._letters is not None:  # it was not we who closed it
            self._connection.drop(lost_fault(error, self._connection.address))

    def _lose(self, fault: NearmqError) -> None:
        self._fault = self._fault or fault
        self._channel = self._letters = None
        self._publisher.lose(fault)
        if not self._asked.done():
            self._asked.set_exception(fault)
