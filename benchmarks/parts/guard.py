"""The few ratios by which CI notices that something became much slower: to the guaranteed echo, and to raw hnswlib.

Small sizes, so the bounds are generous; they are no claims. `tests/integration/test_speed.py` runs this.
"""

from benchmarks import peers
from benchmarks.findings import Findings
from benchmarks.parts import batches, indexes, jobs
from benchmarks.stage import Stage


def run(stage: Stage) -> Findings:
    """Measure."""
    graph = stage.graph(stage.synth)
    loaded, _ = peers.load([jobs.ECHO])
    with loaded[jobs.ECHO].serving(stage, graph) as echo:
        drives = {jobs.NEARMQ: jobs.nearmq_drive(stage, graph, threads=1), jobs.ECHO: echo}
        samples = jobs.compare(stage, graph, drives, (1, 256))
    points = indexes.hnsw_points(stage, graph.data)
    recalls = indexes.recalls_of(graph.data, points)
    return Findings(
        measures=[
            *jobs.against_the_echo(samples),
            batches.measure(batches.compare(stage, graph, 1, stage.scale.seconds), 1),
            indexes.equal_recall(points, recalls, graph.data.name),
        ]
    )
