"""Which index kinds there are."""

from difflib import get_close_matches

from nearmq_index_store.errors import InvalidArgument
from nearmq_index_store.indexes.flat import Flat
from nearmq_index_store.indexes.hnsw import Hnsw
from nearmq_index_store.indexes.ivf_faiss import IvfPq, IvfSq8
from nearmq_index_store.indexes.ivf_flat import IvfFlat
from nearmq_index_store.indexes.protocol import IndexKind

INDEX_KINDS: dict[str, IndexKind] = {kind.name: kind for kind in (Flat(), Hnsw(), IvfFlat(), IvfSq8(), IvfPq())}


def index_kind(name: str) -> IndexKind:
    """Return the index kind of this name, which is upper case.

    Raises:
        InvalidArgument: there is none; names the nearest one, or all.
    """
    kind = INDEX_KINDS.get(name)
    if kind is not None:
        return kind
    close = get_close_matches(name.upper(), INDEX_KINDS, n=1)
    hint = f"did you mean {close[0]!r}" if close else f"known are {', '.join(INDEX_KINDS)}"
    raise InvalidArgument(f"no index kind {name!r}, {hint}", field="index")
