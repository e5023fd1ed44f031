"""The anonymous memory of a worker process with a segment loaded and searched, above its own before.

Before, it has searched a few rows only: what a first search takes once is no segment's. Beside it, what the manifest
says that the segment's index takes. Rows are mapped from a file and not counted.
"""

from benchmarks import data
from benchmarks.data import LIMIT
from benchmarks.findings import Findings, Measure, Table, figure
from benchmarks.load import with_futures
from benchmarks.measuring import spread
from benchmarks.peers.graph import EF
from benchmarks.process_memory import anonymous_bytes
from benchmarks.stage import Built, Stage, wait_for_workers, worker
from nearmq import Collection, connect
from nearmq.amqp import apply_topology
from nearmq.topology import declarations

_ROUNDS = 3
_FEW_ROWS = 1_000
_PREFIX = "bench-memory"


def run(stage: Stage) -> Findings:
    """Measure."""
    graph = stage.graph(stage.synth)
    apply_topology(stage.broker_url, declarations(_PREFIX))
    taken = [_taken_bytes(stage, graph) for _ in range(min(_ROUNDS, stage.scale.rounds))]
    resident = spread(taken)
    return Findings(
        tables=[
            Table(
                name="memory",
                title=f"Anonymous memory of a worker; {graph.data.name}, HNSW",
                columns=["", "MB"],
                rows=[
                    ["above what it had before, after searches", figure(resident.median / 1e6)],
                    ["what it reports of the index", figure(graph.index_bytes / 1e6)],
                ],
            )
        ],
        measures=[
            Measure(
                name="anonymous memory of a worker, above an empty one's: times the index bytes it reports",
                bound=1.15,
                side="at most",
                spread=spread([value / graph.index_bytes for value in taken]),
                note=f"{graph.index_bytes / 1e6:.0f} MB",
            )
        ],
    )


def _taken_bytes(stage: Stage, graph: Built) -> int:
    few = stage.built(data.synth(_FEW_ROWS), "FLAT")
    with (
        worker(stage.broker_url, stage.store_url, "--prefix", _PREFIX) as process,
        connect(stage.broker_url, prefix=_PREFIX, timeout_s=120) as client,
    ):
        wait_for_workers(client, 1)
        _search(client.collection(stage.stored(few)), few, {})
        before = anonymous_bytes(process.pid)
        _search(client.collection(stage.stored(graph)), graph, {"ef": EF})
        return anonymous_bytes(process.pid) - before


def _search(collection: Collection, built: Built, params: dict[str, int]) -> None:
    """Load it, and search it on every compute thread."""
    collection.load(timeout_s=120)
    queries = built.data.queries
    with_futures(lambda number: collection.submit(queries[number % len(queries)], limit=LIMIT, params=params), 16, 1)
