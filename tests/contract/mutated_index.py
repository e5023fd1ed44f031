"""Opens and searches damaged copies of an index file, in a process of its own that a native crash would end.

Usage: python mutated_index.py KIND FILE ROWS DIM SEED. Prints how many copies were refused, and how many searched.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from nearmq_index_store.errors import IndexCorrupt
from nearmq_index_store.indexes import index_kind
from nearmq_index_store.mapped import map_file
from nearmq_index_store.schema import IndexSpec, VectorField

MUTANTS = 200


def mutate(data: bytes, random: np.random.Generator, number: int) -> bytes:
    """A truncation, a flip in the first 128 bytes, or three flips anywhere, in turn."""
    if number % 4 == 0:
        return data[: random.integers(0, len(data))]
    damaged = bytearray(data)
    last = min(128, len(data)) if number % 4 == 1 else len(data)
    for at in random.integers(0, last, 1 if number % 4 == 1 else 3):
        damaged[at] ^= 1 << random.integers(0, 8)
    return bytes(damaged)


def main(kind_name: str, file: str, rows: int, dim: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((rows, dim)).astype(np.float32)
    kind = index_kind(kind_name)
    declared = {} if kind_name == "HNSW" else {"nlist": 8}
    params = kind.check_build_params(declared, dim)
    field = VectorField(name="vector", dim=dim, metric="L2", index=IndexSpec(kind=kind_name, params=params))
    search_params = kind.resolve({}, field, 10)
    data = Path(file).read_bytes()
    refused = searched = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(MUTANTS):
            path = Path(folder, str(number))
            path.write_bytes(mutate(data, random, number))
            try:
                index = kind.open(map_file(path), params, vectors, "L2")
            except IndexCorrupt:
                refused += 1
                continue
            for candidates in index.candidates(vectors[:20], 10, search_params):
                assert len(candidates) >= 10
                assert set(candidates) <= set(range(rows))
            searched += 1
    sys.stdout.write(f"{refused} {searched}\n")


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:6]))
