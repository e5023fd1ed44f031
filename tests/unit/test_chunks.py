"""Parts cut into chunks."""

from hypothesis import given
from hypothesis import strategies as st

from nearmq_index_store.blobs.chunks import chunked


@given(st.lists(st.binary(max_size=20)), st.integers(1, 25))
def test_chunks_are_of_one_size_and_join_to_the_parts(parts: list[bytes], size: int):
    chunks = list(chunked(parts, size))
    assert b"".join(chunks) == b"".join(parts)
    assert all(len(chunk) == size for chunk in chunks[:-1])
    assert all(0 < len(chunk) <= size for chunk in chunks[-1:])


def test_a_chunk_inside_a_part_is_a_view_of_it():
    part = bytearray(b"abcdef")
    first, second = chunked([part], 4)
    part[:] = b"ABCDEF"
    assert (bytes(first), bytes(second)) == (b"ABCD", b"EF")
