"""A worker that answers every job with the job's own body, on the real receive and settle path."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from nearmq.amqp import apply_topology
from nearmq.topology import Names, declarations
from nearmq_worker.receive import Delivery, Receiver
from nearmq_worker.settle import AmqpSettler


@contextmanager
def echo_worker(url: str, *, part_bytes: int = 1 << 20) -> Iterator[None]:
    """Apply the topology to a virtual host and answer jobs there."""
    apply_topology(url, declarations())
    names = Names()

    def answer(deliveries: Sequence[Delivery]) -> None:
        settler.answer_all([(delivery, delivery.message.body) for delivery in deliveries])

    receiver = Receiver(url, names=names, worker="echo", on_deliveries=answer)
    settler = AmqpSettler(url, receiver, names=names, worker="echo", part_bytes=part_bytes)
    settler.start()
    try:
        receiver.start()
        yield
        assert receiver.stop_taking(timeout_s=30)
        assert settler.flush(timeout_s=30)
    finally:
        receiver.stop()
        settler.stop()
