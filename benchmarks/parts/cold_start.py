"""From a segment in Redis, and from one in the spool, to the first answer, beside the plain way of loading a graph.

A worker is started (embedded, so that no broker is in the figure), then asked for the first time. It checks digests and
headers on the way; the plain way, one GET, a file and `load_index`, checks nothing.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import hnswlib
import redis

from benchmarks.data import LIMIT
from benchmarks.findings import Bars, Findings, Measure, Plot, Table, figure
from benchmarks.measuring import Figures, in_turns, timed
from benchmarks.peers.graph import EF
from benchmarks.stage import Built, Stage, embedded

_KEY = "bench:plain-graph"
_KINDS = ("HNSW", "IVF_FLAT", "FLAT")
_PLAIN = "GET, file, load_index"
_FROM_REDIS = "HNSW, from Redis"

#: So many times the usual rounds. Each side fills 400 MB and more of pages that are new to it, and in a virtual machine
#: whose host takes back what has been free for seconds, these cost up to five times as much as others: single rounds
#: differ by twice. So the two that are compared take turns by themselves, each in what the other has just left.
_MORE_ROUNDS = 3


def run(stage: Stage) -> Findings:
    """Measure."""
    segments = {kind: stage.graph(stage.synth) if kind == "HNSW" else stage.built(stage.synth, kind) for kind in _KINDS}
    graph = segments["HNSW"]
    runs: dict[str, Callable[[], Figures]] = {_PLAIN: _plain_way(stage, graph)}
    for kind, built in segments.items():
        runs[f"{kind}, from Redis"] = partial(_first_answer, stage, built, None)
        runs[f"{kind}, in the spool"] = partial(_first_answer, stage, built, _lasting_spool(stage, built))
    runs["HNSW, after load()"] = partial(_first_answer, stage, graph, None, loaded=True)
    for run_once in runs.values():
        run_once()
    rounds = _MORE_ROUNDS * stage.scale.rounds
    compared = in_turns(rounds, {name: runs.pop(name) for name in (_PLAIN, _FROM_REDIS)})
    samples = in_turns(rounds, runs)
    took = {name: compared.median(name, "ms") for name in (_PLAIN, _FROM_REDIS)}
    took |= {name: samples.median(name, "ms") for name in runs}
    size = graph.graph_path.stat().st_size / 1e6
    return Findings(
        tables=[
            Table(
                name="cold-start",
                title=f"To the first answer; {graph.data.name}, the graph {size:.0f} MB",
                columns=["", "ms"],
                rows=[[name, figure(ms)] for name, ms in took.items()],
            )
        ],
        measures=[
            Measure(
                name=f"a {size:.0f} MB HNSW segment from Redis to the first answer: of GET + file + load_index",
                bound=0.45,
                guard=4,
                side="at most",
                spread=compared.ratio("ms", _FROM_REDIS, _PLAIN),
                note="digest and header checked",
            ),
            *(
                Measure(
                    name=f"an {kind} segment in the spool to the first answer" if kind != "FLAT" else "a FLAT one",
                    bound=20,
                    guard=500,
                    side="at most",
                    unit="ms",
                    spread=samples.spread(f"{kind}, in the spool", "ms"),
                )
                for kind in ("IVF_FLAT", "FLAT")
            ),
        ],
        plots=[
            Plot(
                name="cold-start",
                title="To the first answer",
                bars=Bars(title="", x_label="ms", values=took, ours=[name for name in took if name != _PLAIN]),
            )
        ],
    )


def _plain_way(stage: Stage, graph: Built) -> Callable[[], Figures]:
    server = redis.Redis.from_url(stage.store_url)
    server.set(_KEY, graph.graph_path.read_bytes())
    query = graph.data.queries[0]

    def load() -> Figures:
        with tempfile.TemporaryDirectory() as folder, timed() as timer:
            path = Path(folder, "graph")
            path.write_bytes(server.get(_KEY))
            index = hnswlib.Index(space="l2", dim=graph.data.dim)
            index.load_index(str(path), max_elements=len(graph.data.rows))
            index.set_ef(EF)
            index.knn_query(query, k=LIMIT, num_threads=1)
        return {"ms": timer.seconds * 1_000}

    return load


def _lasting_spool(stage: Stage, built: Built) -> Path:
    """Return a folder in which one worker leaves the segment for those that come after it."""
    spool = stage.folder / f"spool-{stage.stored(built)}"
    spool.mkdir(mode=0o700)
    return spool


def _first_answer(stage: Stage, built: Built, spool: Path | None, *, loaded: bool = False) -> Figures:
    """Start a worker, and search once; without a spool, it has one of its own, which is empty."""
    with embedded(stage, spool=spool) as client:
        collection = client.collection(stage.stored(built))
        if loaded:
            collection.load()
        with timed() as timer:
            collection.search(built.data.queries[:1], limit=LIMIT)
    return {"ms": timer.seconds * 1_000}
