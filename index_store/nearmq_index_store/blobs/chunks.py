"""Data in several parts, looked at as bytes and cut into chunks of one size, without joining the parts first."""

from collections.abc import Iterable, Iterator

from nearmq_index_store.blobs.protocol import Buffer


def byte_views(parts: Iterable[Buffer]) -> list[memoryview]:
    """Look at each part as single bytes, so that `len` counts bytes whatever the part's items and shape were."""
    views = [memoryview(part) for part in parts]
    return [view.cast("B") for view in views if view.nbytes]  # an empty view of several dimensions cannot be cast


def chunked(parts: Iterable[Buffer], size: int) -> Iterator[Buffer]:
    """Yield the parts' bytes in order, `size` at a time, the last chunk shorter; nothing for no bytes.

    A chunk inside one part is a view of it; only a chunk across a border of parts is copied.
    """
    pending: list[memoryview] = []
    pending_bytes = 0
    for view in byte_views(parts):
        start = 0
        while start < len(view):
            piece = view[start : start + size - pending_bytes]
            start += len(piece)
            pending.append(piece)
            pending_bytes += len(piece)
            if pending_bytes == size:
                yield _joined(pending)
                pending, pending_bytes = [], 0
    if pending:
        yield _joined(pending)


def _joined(pieces: list[memoryview]) -> Buffer:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
