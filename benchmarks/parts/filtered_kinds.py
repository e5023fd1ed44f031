"""Searches among some rows beside searches of all, for every index kind at its defaults, filters that were used before.

For each share of allowed rows, and for rows allowed at random, those most like the queries and those least like them:
the median time of a batch of 64 and of single queries, as multiples of the unfiltered ones taken in turns with them,
and the recall of both. The same for deleted rows. All on one thread; what is measured is its processor time, which
other programs disturb least. `filters.py` compares with other ways of doing it.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.data import LIMIT, Data, Matrix, Truth
from benchmarks.findings import Findings, Line, Panel, Plot, Table, figure
from benchmarks.parts.filters import SPREADS
from benchmarks.stage import Built, Stage
from nearmq_index_store.deletes import DeletedRows
from nearmq_index_store.indexes import INDEX_KINDS
from nearmq_index_store.search import Hits, read_expr, resolve, search_part

_BATCH = 64
_SHARES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.9)
_DELETED = (0.01, 0.05, 0.1, 0.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One measurement: medians in milliseconds, of the search among some rows and of all beside it."""

    spread: str
    share: float
    batch_ms: float
    batch_all_ms: float
    single_ms: float
    single_all_ms: float
    recall: float
    recall_all: float
    way: str
    exact_queries: int
    kept_mb: float

    @property
    def batch_ratio(self) -> float:
        """How many times as long a batch takes."""
        return self.batch_ms / self.batch_all_ms

    @property
    def single_ratio(self) -> float:
        """How many times as long a single query takes."""
        return self.single_ms / self.single_all_ms


def run(stage: Stage) -> Findings:
    """Measure."""
    points: dict[str, list[Point]] = {}
    with threadpool_limits(1):
        for kind in INDEX_KINDS:
            sweep = Sweep(stage.built(stage.real, kind))
            points[kind] = [*sweep.filters(), *sweep.deletes()]
    return Findings(
        tables=[_table(kind, stage.real, found) for kind, found in points.items()],
        plots=[Plot(name="filtered-kinds", title=f"Batches of {_BATCH}; {stage.real.name}", panels=_panels(points))],
    )


class Sweep:
    """Measures one kind against the true hits."""

    def __init__(self, built: Built) -> None:
        self._data, self._schema = built.data, built.schema
        self._queries = built.data.likest
        self._segment = built.open()
        self._params = resolve(built.schema, field=None, metric_type=None, params={}, limit=LIMIT)[1]
        everything = np.ones(len(self._data.rows), dtype=bool)
        self._recall_all = self._recall(everything, search_part(self._segment, self._queries, LIMIT, self._params))

    def filters(self) -> Iterator[Point]:
        """Measure each spread and share of allowed rows."""
        for spread, column in SPREADS.items():
            for share in _SHARES:
                allowed = max(LIMIT, round(share * len(self._data.rows)))
                condition = read_expr(self._schema, f"{column} < {allowed}", {})
                yield self._measure(spread, share, self._data.scalars[column] < allowed, condition=condition)

    def deletes(self) -> Iterator[Point]:
        """Measure each share of rows deleted at random."""
        for share in _DELETED:
            deleted = self._data.scalars["at_random"] < round(share * len(self._data.rows))
            # Rows that are sorted by cell have other numbers than ids.
            numbers = np.flatnonzero(deleted[self._segment.rows.ids])
            yield self._measure("deleted", share, ~deleted, deleted=DeletedRows(numbers.tolist()))

    def _measure(self, spread: str, share: float, allowed: np.ndarray, **among: Any) -> Point:
        def some(queries: Matrix) -> Hits:
            return search_part(self._segment, queries, LIMIT, self._params, **among)

        def all_rows(queries: Matrix) -> Hits:
            return search_part(self._segment, queries, LIMIT, self._params)

        found = some(self._queries)
        batches = [self._queries[start : start + _BATCH] for start in range(0, _BATCH + 1, _BATCH // 8)]
        singles = [self._queries[i : i + 1] for i in range(len(self._queries))]
        batch_ms, batch_all_ms = in_shuffled_turns((some, all_rows), batches)
        single_ms, single_all_ms = in_shuffled_turns((some, all_rows), singles)
        assert found.explanation is not None
        point = Point(
            spread=spread,
            share=share,
            batch_ms=batch_ms,
            batch_all_ms=batch_all_ms,
            single_ms=single_ms,
            single_all_ms=single_all_ms,
            recall=self._recall(allowed, found),
            recall_all=self._recall_all,
            way=found.explanation.way,
            exact_queries=found.explanation.exact_queries,
            kept_mb=self._segment.kept_bytes / 1e6,
        )
        self._segment.trim()
        return point

    def _recall(self, allowed: np.ndarray, found: Hits) -> float:
        truth = Truth(np.ascontiguousarray(self._data.rows[allowed]), self._queries)
        return truth.recall(self._data.rows, found.ids)


def in_shuffled_turns(searches: Sequence[Callable[[Matrix], Hits]], batches: Sequence[Matrix]) -> list[float]:
    """Run each search on each batch, one after the other; return each one's median in milliseconds.

    Each in an order of its own, for who follows another on the same batch finds its rows in the processor's cache.
    """
    took: list[list[float]] = [[] for _ in searches]
    orders = [np.random.default_rng(seed).permutation(len(batches)) for seed in range(len(searches))]
    for turn in zip(*orders, strict=True):
        for search, times, number in zip(searches, took, turn, strict=True):
            began = time.thread_time()
            search(batches[number])
            times.append(time.thread_time() - began)
    return [statistics.median(times) * 1_000 for times in took]


def _table(kind: str, data: Data, points: Sequence[Point]) -> Table:
    def row(point: Point) -> list[str]:
        exact = f", {point.exact_queries} exact" if point.way == "index" and point.exact_queries else ""
        return [
            point.spread,
            f"{point.share:.1%}",
            f"{point.batch_ratio:.2f} of {figure(point.batch_all_ms)} ms",
            f"{point.single_ratio:.2f} of {figure(point.single_all_ms)} ms",
            f"{point.recall:.3f}",
            f"{max(0, point.recall_all - point.recall):.3f}",
            point.way + exact,
            f"{point.kept_mb:.1f}",
        ]

    return Table(
        name=f"filtered-{kind}",
        title=f"{kind}, {data.name}; {LIMIT} hits, defaults; times as multiples of an unfiltered search",
        columns=["rows", "share", f"batch of {_BATCH}", "single", "recall", "less", "way", "kept MB"],
        rows=[row(point) for point in points],
    )


def _panels(points: dict[str, list[Point]]) -> list[Panel]:
    panels = []
    for kind, found in points.items():
        lines = []
        for spread in SPREADS:
            chosen = [point for point in found if point.spread == spread]
            x, y = [point.share for point in chosen], [point.batch_ratio for point in chosen]
            lines.append(Line(label=spread, x=x, y=y, ours=True))
        panels.append(
            Panel(title=kind, x_label="share of rows allowed", y_label="times unfiltered", lines=lines, log_x=True)
        )
    return panels
