"""Nearest-neighbour search as a message-queue job: the client.

client = nearmq.connect("amqp://guest:guest@localhost/")
results = client.collection("books").search(vectors, limit=10)
results[0].ids, results[0].distances
"""

from importlib.metadata import version

from nearmq import errors
from nearmq.client import Client, connect
from nearmq.collection import Collection
from nearmq.errors import NearmqError
from nearmq.jobs import ScalarFieldSpec, VectorFieldSpec
from nearmq.results import Hit, QueryHits, SearchResults
from nearmq.row_results import Rows, WriteResult
from nearmq.schema import Schema

__version__ = version("nearmq")

__all__ = [
    "Client",
    "Collection",
    "Hit",
    "NearmqError",
    "QueryHits",
    "Rows",
    "ScalarFieldSpec",
    "Schema",
    "SearchResults",
    "VectorFieldSpec",
    "WriteResult",
    "__version__",
    "connect",
    "errors",
]
