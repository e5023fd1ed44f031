"""Searches among the rows that a filter allows, beside each single way of doing them, at every share of allowed rows.

nearmq chooses by itself; each single way is the best that can be made of it for the filter at hand, on one thread:

    exact       faiss's flat index over a copy of the allowed rows
    over-fetch  hnswlib walks so much wider that, cut to the allowed rows, recall is that of an unfiltered search
    filter      hnswlib with its own filter, a Python function

A way counts where its recall is at least the unfiltered search's, less 0.01. Allowed rows lie at random, or are those
most like the queries, or least like them.

So that the choice itself is seen, apart from what any search takes, it is also compared with nearmq made to go
each of its own two ways, exactly or by its index.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import faiss
import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from benchmarks.data import LIMIT, Data, Matrix, Truth
from benchmarks.findings import Findings, Line, Measure, Panel, Plot, Spread, Table, figure
from benchmarks.measuring import Figures, Samples, at_once, in_turns, rate
from benchmarks.peers.graph import open_graph
from benchmarks.stage import Built, Stage
from nearmq_index_store.filters import Filter
from nearmq_index_store.search import read_expr, resolve, search_part

#: Row numbers of the hits, a line a query; -1 where they are too few.
Search = Callable[[Matrix], npt.NDArray[np.int64]]

SPREADS = {"random": "at_random", "like the queries": "by_likeness", "unlike the queries": "by_unlikeness"}
SHARES = (0.001, 0.01, 0.1, 0.5, 0.9)
_EF = 64
_SIZES = (1, 64)
_RECALL_LOST = 0.01
#: How much wider than the inverse of the allowed share a walk is, and how wide at most.
_WIDER = (0.75, 1, 1.5, 2, 3)
_WIDEST = 4_096
#: Where fewer are allowed, neither a walk nor a Python function called for each row met is the best way by far.
_LEAST_SHARE_WALKED = 0.1
#: nearmq made to go one way: how many rows it is told an exact scan would rank.
_FORCED = {"nearmq, exactly": 0, "nearmq, by its index": 1 << 62}
_SINGLE = ("exact", "over-fetch", "filter")
_SECONDS_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One filter, and what was measured of it."""

    spread: str
    share: float
    samples: Samples
    recalls: dict[str, float]
    wanted: float

    def best(self, ways: Iterable[str], size: int) -> str:
        """Return the fastest of some ways that finds enough."""
        good = [way for way in ways if self.recalls.get(way, 0.0) >= self.wanted]
        return max(good, key=lambda way: self.samples.median(way, at_once(size)))

    def ratio(self, ways: Iterable[str], size: int) -> Spread:
        """Return the time of nearmq's search as a multiple of the best of some ways."""
        return self.samples.ratio(at_once(size), self.best(ways, size), "nearmq")


def run(stage: Stage) -> Findings:
    """Measure."""
    with threadpool_limits(1):
        cases = list(_cases(stage))
    return Findings(
        tables=[_table(size, stage.synth, cases) for size in _SIZES],
        measures=[
            _measure(
                f"filters, {spread}, {at_once(size)}: times as long as the best {of}, the worst share",
                ways,
                size,
                [case for case in cases if (case.spread == "random") == (spread == "random")],
                bound,
            )
            for of, ways in (("single way", _SINGLE), ("of nearmq's own two ways", _FORCED))
            for spread, bound in (("random", 1.15), ("correlated", 1.5))
            for size in _SIZES
        ],
        plots=[Plot(name="filters", title=f"Searches among allowed rows; {stage.synth.name}", panels=_panels(cases))],
    )


def _cases(stage: Stage) -> Iterator[Case]:
    graph = stage.graph(stage.synth)
    data = graph.data
    segment = graph.open()
    _, params = resolve(graph.schema, field=None, metric_type=None, params={"ef": _EF}, limit=LIMIT)
    unfiltered = Truth(data.rows, data.likest).recall(data.rows, search_part(segment, data.likest, LIMIT, params).ids)
    wanted = unfiltered - _RECALL_LOST

    def ours(condition: Filter, queries: Matrix) -> npt.NDArray[np.int64]:
        return search_part(segment, queries, LIMIT, params, condition=condition).ids

    for spread, column in SPREADS.items():
        for share in SHARES:
            allowed = max(LIMIT, round(share * len(data.rows)))
            condition = read_expr(graph.schema, f"{column} < {allowed}", {})
            mask = data.scalars[column] < allowed
            truth = Truth(np.ascontiguousarray(data.rows[mask]), data.likest)
            search_ours = partial(ours, condition)
            searches = {"nearmq": search_ours, **_single_ways(graph, mask, truth, wanted)}
            seconds = _SECONDS_SHARE * stage.scale.seconds
            rates = {name: partial(_rates, search, data.likest, seconds) for name, search in searches.items()}
            recalls = {name: truth.recall(data.rows, search(data.likest)) for name, search in searches.items()}
            for name, told in _FORCED.items():
                if told == 0 or share >= _LEAST_SHARE_WALKED:
                    with _forced(told):
                        recalls[name] = truth.recall(data.rows, search_ours(data.likest))
                    rates[name] = partial(_forced_rates, told, search_ours, data.likest, seconds)
            samples = in_turns(min(3, stage.scale.rounds), rates)
            segment.forget()
            yield Case(spread=spread, share=share, samples=samples, recalls=recalls, wanted=wanted)


def _single_ways(graph: Built, mask: npt.NDArray[np.bool_], truth: Truth, wanted: float) -> dict[str, Search]:
    ways: dict[str, Search] = {"exact": _exact(graph.data, mask)}
    for search in _walks(graph, mask):
        ways["over-fetch"] = search
        if truth.recall(graph.data.rows, search(graph.data.likest)) >= wanted:
            break
    if mask.mean() >= _LEAST_SHARE_WALKED:
        ways["filter"] = _filtered(graph, mask)
    return ways


def _exact(data: Data, mask: npt.NDArray[np.bool_]) -> Search:
    numbers = np.flatnonzero(mask)
    index = faiss.IndexFlatL2(data.dim)
    index.add(data.rows[numbers])
    return lambda queries: numbers[index.search(queries, LIMIT)[1]]


def _walks(graph: Built, mask: npt.NDArray[np.bool_]) -> Iterator[Search]:
    index = open_graph(graph, 1)

    def walk(width: int, queries: Matrix) -> npt.NDArray[np.int64]:
        labels = index.knn_query(queries, k=width, num_threads=1)[0].astype(np.int64)
        found = np.full((len(queries), LIMIT), -1)
        for line, rows in zip(found, labels, strict=True):
            kept = rows[mask[rows]][:LIMIT]
            line[: len(kept)] = kept
        return found

    for wider in _WIDER:
        width = math.ceil(wider * _EF / mask.mean())
        if width <= min(_WIDEST, len(mask) // 2):
            yield partial(walk, width)


def _filtered(graph: Built, mask: npt.NDArray[np.bool_]) -> Search:
    index = open_graph(graph, _EF)
    allowed = mask.tolist()
    return lambda queries: index.knn_query(queries, k=LIMIT, num_threads=1, filter=allowed.__getitem__)[0].astype(
        np.int64
    )


def _rates(search: Search, queries: Matrix, seconds: float) -> Figures:
    figures = {}
    for size in _SIZES:
        batches = [queries[start : start + size] for start in range(0, len(queries), size)]
        search(batches[0])

        def search_all(batches: list[Matrix] = batches) -> None:
            for batch in batches:
                search(batch)

        figures[at_once(size)] = rate(search_all, least_s=seconds, amount=len(queries))
    return figures


def _forced(told: int) -> Any:
    return patch("nearmq_index_store.ways.scanned_rows", lambda _: told)


def _forced_rates(told: int, search: Search, queries: Matrix, seconds: float) -> Figures:
    with _forced(told):
        return _rates(search, queries, seconds)


def _measure(name: str, ways: Iterable[str], size: int, cases: list[Case], bound: float) -> Measure:
    worst = max(cases, key=lambda case: case.ratio(ways, size).median)
    best, recall = worst.best(ways, size), worst.recalls["nearmq"]
    return Measure(
        name=name,
        bound=bound,
        side="at most",
        spread=worst.ratio(ways, size),
        note=f"{worst.share:.1%} allowed, {worst.spread}: {best}; recall {recall:.3f}",
    )


def _table(size: int, data: Data, cases: list[Case]) -> Table:
    def cell(case: Case, way: str) -> str:
        if way not in case.recalls:
            return ""
        return f"{figure(case.samples.median(way, at_once(size)))} at {case.recalls[way]:.3f}"

    return Table(
        name=f"filters-{size}",
        title=f"Queries a second at recall among the allowed rows, {at_once(size)}; {data.name}, HNSW, ef {_EF}",
        columns=[
            "allowed",
            "rows",
            "nearmq",
            "exactly",
            "by its index",
            "times the best",
            "exact",
            "over-fetch",
            "hnswlib's filter",
            "times the best single way",
        ],
        rows=[
            [
                f"{case.share:.1%}",
                case.spread,
                *(cell(case, way) for way in ("nearmq", *_FORCED)),
                f"{case.ratio(_FORCED, size).median:.2f}",
                *(cell(case, way) for way in _SINGLE),
                f"{case.ratio(_SINGLE, size).median:.2f}",
            ]
            for case in cases
        ],
    )


def _panels(cases: list[Case]) -> list[Panel]:
    panels = []
    for spread in SPREADS:
        chosen = [case for case in cases if case.spread == spread]
        lines = []
        for way in ("nearmq", *_SINGLE):
            measured = [case for case in chosen if way in case.recalls]
            if measured:
                y = [case.samples.median(way, at_once(1)) for case in measured]
                lines.append(Line(label=way, x=[case.share for case in measured], y=y, ours=way == "nearmq"))
        panels.append(
            Panel(
                title=f"{spread}, {at_once(1)}",
                x_label="share of rows allowed",
                y_label="queries a second",
                lines=lines,
                log_x=True,
                log_y=True,
            )
        )
    return panels
