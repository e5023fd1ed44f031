"""Recall against queries a second of each index, in this process on one thread, beside hnswlib and faiss.

nearmq's searches are a segment's, with exact distances, as the worker runs them. hnswlib is asked over the very file
that nearmq built; faiss trains its own IVF with as many cells.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from benchmarks.data import LIMIT, Data, Matrix
from benchmarks.findings import Findings, Line, Measure, Panel, Plot, Spread, Table, figure
from benchmarks.measuring import Figures, Samples, at_once, in_turns, rate
from benchmarks.peers.graph import open_graph
from benchmarks.stage import Built, Stage
from nearmq_index_store.search import resolve, search_part
from nearmq_index_store.segment import Segment

#: Row numbers of the hits, a line a query.
Search = Callable[[Matrix], npt.NDArray[np.int64]]

_EFS = (16, 32, 64, 128, 256)
_NPROBES = (8, 16, 32, 64, 128)
_RECALLS = (0.90, 0.95, 0.99)
#: Of batches; and how long each is repeated, as a share of the scale's seconds.
_SIZES = (1, 256, 1_000)
_SHARE = 0.15
#: What two recalls may differ by, of 10,000 hits, when a tie at the edge falls otherwise.
_EQUAL = 0.0005
#: From where on IVF_FLAT by one product a cell is to be faster than faiss.
_NPROBE_MEASURED = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """An engine at one setting.

    Attributes:
        peer: the engine that nearmq's point is compared with at the same setting; None of a peer's own.
    """

    engine: str
    setting: int
    search: Search
    peer: str | None = None

    @property
    def name(self) -> str:
        """Of its runs."""
        return f"{self.engine} {self.setting}"


@dataclass(frozen=True, slots=True)
class Curve:
    """What was measured on some data."""

    data: Data
    points: list[Point]
    samples: Samples
    recalls: dict[str, float]


def run(stage: Stage) -> Findings:
    """Measure."""
    cells = 1_024 if stage.scale.is_full else 128
    with threadpool_limits(1):  # of BLAS, and of OpenMP, by which faiss would take all cores
        curves = [measure(stage, stage.synth, hnsw_points(stage, stage.synth) + ivf_points(stage, stage.synth, cells))]
        if stage.scale.is_full:
            curves.append(measure(stage, stage.real, _all_points(stage)))
    tables = [_table(number, curve) for number, curve in enumerate(curves)]
    return Findings(
        tables=tables + ([_recalls(stage, curves[-1])] if stage.scale.is_full else []),
        measures=[
            *(equal_recall(curve.points, curve.recalls, curve.data.name) for curve in curves),
            *_ivf_measures(curves),
        ],
        plots=[
            Plot(name="indexes", title="Recall and queries a second, one thread, 1,000 at once", panels=_panels(curves))
        ],
    )


def measure(stage: Stage, data: Data, points: list[Point]) -> Curve:
    """Search at each point, in turns."""
    seconds = _SHARE * stage.scale.seconds
    samples = in_turns(
        min(3, stage.scale.rounds), {point.name: partial(_rates, point.search, data, seconds) for point in points}
    )
    return Curve(data, points, samples, recalls_of(data, points))


def hnsw_points(stage: Stage, data: Data) -> list[Point]:
    """Return nearmq's and raw hnswlib's searches of one graph."""
    graph = stage.graph(data)
    segment = graph.open()
    points = []
    for ef in _EFS:
        points.append(Point(engine="HNSW", setting=ef, search=_ours(graph, segment, {"ef": ef}), peer="hnswlib"))
        points.append(Point(engine="hnswlib", setting=ef, search=_hnswlib(graph, ef)))
    return points


def ivf_points(stage: Stage, data: Data, nlist: int) -> list[Point]:
    """Return nearmq's and faiss's searches of as many cells."""
    built = stage.built(data, "IVF_FLAT", {"nlist": nlist})
    segment = built.open()
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(data.dim), data.dim, nlist)
    return _with_faiss(built, segment, index, "IVF_FLAT", "faiss IVFFlat")


def _all_points(stage: Stage) -> list[Point]:
    data = stage.real
    sq8 = stage.built(data, "IVF_SQ8", {"nlist": 128})
    scalar = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatL2(data.dim), data.dim, 128, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_L2
    )
    points = hnsw_points(stage, data) + ivf_points(stage, data, 128)
    points += _with_faiss(sq8, sq8.open(), scalar, "IVF_SQ8", "faiss IVF_SQ8")
    pq = stage.built(data, "IVF_PQ", {"nlist": 128})
    segment = pq.open()
    points += [
        Point(engine="IVF_PQ", setting=nprobe, search=_ours(pq, segment, {"nprobe": nprobe})) for nprobe in _NPROBES
    ]
    flat = stage.built(data, "FLAT")
    exact = faiss.IndexFlatL2(data.dim)
    exact.add(data.rows)
    points.append(Point(engine="FLAT", setting=0, search=_ours(flat, flat.open(), {}), peer="faiss Flat"))
    points.append(Point(engine="faiss Flat", setting=0, search=lambda queries: exact.search(queries, LIMIT)[1]))
    return points


def _with_faiss(built: Built, segment: Segment, index: Any, ours: str, theirs: str) -> list[Point]:
    index.train(built.data.rows)
    index.add(built.data.rows)
    points = []
    for nprobe in _NPROBES:
        points.append(Point(engine=ours, setting=nprobe, search=_ours(built, segment, {"nprobe": nprobe}), peer=theirs))
        points.append(Point(engine=theirs, setting=nprobe, search=_faiss(index, nprobe)))
    return points


def _ours(built: Built, segment: Segment, params: Mapping[str, int | float]) -> Search:
    _, resolved = resolve(built.schema, field=None, metric_type=None, params=params, limit=LIMIT)
    return lambda queries: search_part(segment, queries, LIMIT, resolved).ids


def _hnswlib(graph: Built, ef: int) -> Search:
    index = open_graph(graph, ef)
    return lambda queries: index.knn_query(queries, k=LIMIT, num_threads=1)[0].astype(np.int64)


def _faiss(index: Any, nprobe: int) -> Search:
    def search(queries: Matrix) -> npt.NDArray[np.int64]:
        index.nprobe = nprobe
        found: npt.NDArray[np.int64] = index.search(queries, LIMIT)[1]
        return found

    return search


def _rates(search: Search, data: Data, seconds: float) -> Figures:
    figures = {}
    for size in _SIZES:
        batches = [data.queries[start : start + size] for start in range(0, len(data.queries) - size + 1, size)]
        turn = iter(batches * 1_000)
        figures[at_once(size)] = rate(
            lambda turn=turn: search(next(turn)),  # type: ignore[misc]
            least_s=seconds,
            amount=size,
        )
    return figures


def recalls_of(data: Data, points: Sequence[Point]) -> dict[str, float]:
    """Return the recall at each point, by its name."""
    return {point.name: data.truth.recall(data.rows, point.search(data.queries)) for point in points}


def equal_recall(points: Sequence[Point], recalls: Mapping[str, float], of: str) -> Measure:
    """Compare recall at equal ef with raw hnswlib's over the same graph."""
    more = [recalls[p.name] - recalls[f"{p.peer} {p.setting}"] for p in points if p.engine == "HNSW"]
    return Measure(
        name="recall at equal ef, above raw hnswlib's on the same graph, the worst ef",
        bound=-_EQUAL,
        guard=-_EQUAL,
        spread=Spread(median=min(more), low=min(more), high=max(more)),
        note=of,
    )


def _ivf_measures(curves: Sequence[Curve]) -> list[Measure]:
    measures = []
    for name, sizes, bound, guard in (
        ("batches of 256 and 1,000", (256, 1_000), 1.5, 0.7),
        ("single queries", (1,), 0.9, 0.3),
    ):
        ratios = {
            f"nprobe {point.setting}, {at_once(size)}, {curve.data.name}": curve.samples.ratio(
                at_once(size), point.name, f"{point.peer} {point.setting}"
            )
            for curve in curves
            for point in curve.points
            for size in sizes
            if point.engine == "IVF_FLAT" and point.setting >= _NPROBE_MEASURED
        }
        worst = min(ratios, key=lambda key: ratios[key].median)
        measures.append(
            Measure(
                name=f"IVF_FLAT, {name}: times faiss IVFFlat at equal nprobe, 1 thread",
                bound=bound,
                guard=guard,
                spread=ratios[worst],
                note=f"the worst of nprobe {_NPROBE_MEASURED} to {_NPROBES[-1]}: {worst}",
            )
        )
    return measures


def _table(number: int, curve: Curve) -> Table:
    rows = []
    for point in curve.points:
        rates = [figure(curve.samples.median(point.name, at_once(size))) for size in _SIZES]
        setting = "" if not point.setting else f"{'ef' if 'hnsw' in point.engine.lower() else 'nprobe'} {point.setting}"
        rows.append([point.engine, setting, f"{curve.recalls[point.name]:.3f}", *rates])
    columns = ["engine", "setting", f"recall@{LIMIT}", *(f"queries a second, {at_once(size)}" for size in _SIZES)]
    return Table(name=f"indexes-{('synth', 'real')[number]}", title=curve.data.name, columns=columns, rows=rows)


def _recalls(stage: Stage, curve: Curve) -> Table:
    """Tell the recall at each setting, and what is reached where a recall is asked for."""
    rows = []
    for kind in ("HNSW", "IVF_FLAT", "IVF_SQ8", "IVF_PQ"):
        built = stage.graph(curve.data) if kind == "HNSW" else stage.built(curve.data, kind, {"nlist": 128})
        segment = built.open()
        reached = [
            curve.data.truth.recall(curve.data.rows, _ours(built, segment, {"recall": wanted})(curve.data.queries))
            for wanted in _RECALLS
        ]
        points = [point for point in curve.points if point.engine == kind]
        settings = " / ".join(str(point.setting) for point in points)
        rows.append(
            [
                kind,
                f"{'ef' if kind == 'HNSW' else 'nprobe'} {settings}",
                " / ".join(f"{curve.recalls[point.name]:.3f}" for point in points),
                " / ".join(f"{recall:.3f}" for recall in reached),
            ]
        )
    asked = " / ".join(f"{wanted:.2f}" for wanted in _RECALLS)
    return Table(
        name="recalls",
        title=f"{curve.data.name}, nlist 128",
        columns=["index", "setting", f"recall@{LIMIT} there", f"recall asked for: {asked}"],
        rows=rows,
    )


def _panels(curves: Sequence[Curve]) -> list[Panel]:
    panels = []
    for curve in curves:
        engines = dict.fromkeys(point.engine for point in curve.points)
        lines = []
        for engine in engines:
            points = [point for point in curve.points if point.engine == engine]
            lines.append(
                Line(
                    label=engine,
                    x=[curve.recalls[point.name] for point in points],
                    y=[curve.samples.median(point.name, at_once(1_000)) for point in points],
                    ours=points[0].peer is not None or engine.startswith("IVF_"),
                )
            )
        panels.append(
            Panel(
                title=curve.data.name,
                x_label=f"recall@{LIMIT}",
                y_label="queries a second",
                lines=lines,
                log_y=True,
            )
        )
    return panels
