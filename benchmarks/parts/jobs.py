"""One-query jobs through each system: jobs a second against jobs in flight, and how long one takes alone.

All that search search the same graph for the same queries, through a broker on this machine. nearmq's jobs and the
guaranteed echo's are persistent, in a quorum queue, confirmed, and acknowledged once their reply is confirmed; the
others do what they do by default, which is less.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from benchmarks import peers
from benchmarks.data import LIMIT
from benchmarks.findings import Findings, Line, Measure, Panel, Plot, Spread, Table, figure
from benchmarks.load import with_futures
from benchmarks.measuring import Figures, Samples, in_turns, spread
from benchmarks.peers import Drive
from benchmarks.peers.graph import EF, open_graph
from benchmarks.stage import Built, Stage

IN_FLIGHT = (1, 16, 256)
NEARMQ = "nearmq"
_RAW = "raw hnswlib, in process"
ECHO = "guaranteed_echo"

#: How many times the jobs a second of each at 256 in flight: at least, and as a guard.
_TIMES = {"celery_tasks": (9, 2), "dramatiq_actors": (5, 1.5), "tutorial": (5, 1.5)}


def run(stage: Stage) -> Findings:
    """Measure."""
    graph = stage.graph(stage.synth)
    loaded, missing = peers.load(peers.ECHOES + (peers.SEARCHES if stage.scale.is_full else peers.SEARCHES[:1]))
    names = {NEARMQ: NEARMQ} | {key: peer.NAME for key, peer in loaded.items()}
    with ExitStack() as stack:
        drives: dict[str, Drive] = {NEARMQ: nearmq_drive(stage, graph)}
        for key, peer in loaded.items():
            drives[key] = stack.enter_context(peer.serving(stage, graph))
        samples = compare(stage, graph, drives, IN_FLIGHT)
    return Findings(
        tables=[_table(names, missing, samples, graph)],
        measures=[*_against_peers(names, missing, samples[256]), *against_the_echo(samples)],
        plots=[_plot(names, samples)],
    )


def compare(stage: Stage, graph: Built, drives: Mapping[str, Drive], depths: Sequence[int]) -> dict[int, Samples]:
    """Take turns between the systems at each depth of jobs in flight, and at depth 1 with raw searches."""
    rounds, seconds = stage.scale.rounds, stage.scale.seconds
    samples = {}
    for depth in depths:
        runs = {
            key: partial(drive, depth, seconds)
            for key, drive in drives.items()
            if depth <= peers.MOST_IN_FLIGHT.get(key, depth)
        }
        if depth == 1:
            runs[_RAW] = partial(raw_singles, graph, seconds)
        samples[depth] = in_turns(rounds, runs)
    return samples


def nearmq_drive(stage: Stage, graph: Built, *, threads: int = 2) -> Drive:
    """Return the client of one worker process that has the graph in memory."""
    collection = stage.served(graph, threads=threads)
    queries = graph.data.queries

    def drive(in_flight: int, seconds: float) -> Figures:
        return with_futures(
            lambda number: collection.submit(queries[number % len(queries)], limit=LIMIT, params={"ef": EF}),
            in_flight,
            seconds,
        )

    drive(16, 0.2)
    return drive


def raw_singles(graph: Built, seconds: float) -> Figures:
    """Search query by query in this process."""
    index = open_graph(graph, EF)
    took: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        query = graph.data.queries[len(took) % len(graph.data.queries)]
        began = time.perf_counter()
        index.knn_query(query, k=LIMIT, num_threads=1)
        took.append(time.perf_counter() - began)
    return {"jobs/s": len(took) / sum(took), "p50 ms": statistics.median(took) * 1_000}


def against_the_echo(samples: dict[int, Samples]) -> list[Measure]:
    """Compare with the echo that keeps the same promises and searches nothing."""
    alone = samples[1]
    ours, echo, raw = (alone.values(name, "p50 ms") for name in (NEARMQ, ECHO, _RAW))
    return [
        Measure(
            name="one-query jobs, 256 in flight: of the guaranteed echo's jobs a second",
            bound=0.60,
            guard=0.10,
            spread=samples[256].ratio("jobs/s", NEARMQ, ECHO),
            note=f"ef {EF}, packed vectors",
        ),
        Measure(
            name="one job in flight, p50: times the echo's p50 and one raw search",
            bound=1.20,
            guard=5,
            side="at most",
            spread=spread([mine / (wire + search) for mine, wire, search in zip(ours, echo, raw, strict=True)]),
        ),
    ]


def _against_peers(names: dict[str, str], missing: dict[str, str], samples: Samples) -> list[Measure]:
    def compared(key: str) -> Spread | None:
        return samples.ratio("jobs/s", NEARMQ, key) if key in names else None

    return [
        Measure(
            name=f"one-query jobs, 256 in flight: times {names.get(key, key)}'s jobs a second",
            bound=bound,
            guard=guard,
            spread=compared(key),
            note=missing.get(key, "its defaults promise less"),
        )
        for key, (bound, guard) in _TIMES.items()
        if key in names or key in missing
    ]


def _table(names: dict[str, str], missing: dict[str, str], samples: dict[int, Samples], graph: Built) -> Table:
    def row(key: str, name: str) -> list[str]:
        rates = [figure(samples[depth].median(key, "jobs/s")) for depth in IN_FLIGHT if key in samples[depth]]
        return [name, figure(samples[1].median(key, "p50 ms")), " / ".join(rates)]

    def most(key: str) -> float:
        return max(samples[depth].median(key, "jobs/s") for depth in IN_FLIGHT if key in samples[depth])

    order = sorted(names, key=most, reverse=True)
    rows = [row(key, names[key]) for key in order] + [row(_RAW, _RAW)]
    rows += [[key, "not installed", reason] for key, reason in missing.items()]
    return Table(
        name="jobs",
        title=f"One-query jobs; {graph.data.name}, HNSW, ef {EF}, limit {LIMIT}",
        columns=["system", "p50 ms alone", "jobs a second at 1 / 16 / 256 in flight"],
        rows=rows,
    )


def _plot(names: dict[str, str], samples: dict[int, Samples]) -> Plot:
    lines = [
        Line(
            label=name,
            x=[depth for depth in IN_FLIGHT if key in samples[depth]],
            y=[samples[depth].median(key, "jobs/s") for depth in IN_FLIGHT if key in samples[depth]],
            ours=key == NEARMQ,
        )
        for key, name in names.items()
    ]
    panel = Panel(title="", x_label="jobs in flight", y_label="jobs a second", lines=lines, log_x=True, log_y=True)
    return Plot(name="jobs", title="One-query jobs", panels=[panel])
