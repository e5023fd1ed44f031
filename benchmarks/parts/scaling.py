"""Compute-bound jobs through one, two and three workers of one compute thread each, on the cores there are."""

from functools import partial

from benchmarks.data import LIMIT
from benchmarks.findings import Findings, Line, Measure, Panel, Plot, Table, figure
from benchmarks.load import with_futures
from benchmarks.measuring import Figures, in_turns
from benchmarks.stage import Stage

_WORKERS = (1, 2, 3)
_QUERIES = 200
_EF = 256
_IN_FLIGHT = 12


def run(stage: Stage) -> Findings:
    """Measure."""
    graph = stage.graph(stage.synth)
    queries = graph.data.queries[:_QUERIES]
    collections = {count: stage.served(graph, workers=count, threads=1) for count in _WORKERS}

    def drive(count: int, seconds: float) -> Figures:
        submit = collections[count].submit
        jobs = with_futures(lambda _: submit(queries, limit=LIMIT, params={"ef": _EF}), _IN_FLIGHT, seconds)
        return {"queries/s": jobs["jobs/s"] * len(queries)}

    for count in _WORKERS:
        drive(count, 0)
    samples = in_turns(
        stage.scale.rounds, {str(count): partial(drive, count, 2 * stage.scale.seconds) for count in _WORKERS}
    )
    rates = [samples.median(str(count), "queries/s") for count in _WORKERS]
    line = Line(label="nearmq", x=list(_WORKERS), y=rates, ours=True)
    ideal = Line(label="as many times one worker", x=list(_WORKERS), y=[count * rates[0] for count in _WORKERS])
    panel = Panel(title="", x_label="workers of one thread", y_label="queries a second", lines=[line, ideal])
    return Findings(
        tables=[
            Table(
                name="scaling",
                title=f"{_QUERIES}-query jobs, {_IN_FLIGHT} in flight; {graph.data.name}, HNSW, ef {_EF}",
                columns=["workers of one thread", "queries a second", "times one worker"],
                rows=[
                    [str(count), figure(rate), figure(samples.ratio("queries/s", str(count), "1").median)]
                    for count, rate in zip(_WORKERS, rates, strict=True)
                ],
            )
        ],
        measures=[
            Measure(
                name="two workers of one compute thread each: times one",
                bound=1.7,
                guard=1.1,
                spread=samples.ratio("queries/s", "2", "1"),
                note=f"{_QUERIES}-query jobs, ef {_EF}",
            )
        ],
        plots=[Plot(name="scaling", title="Scaling by workers", panels=[panel])],
    )
