"""What a run found, as plain values: printed, drawn, kept as JSON, and filled into the documentation from there."""

from typing import Literal

import msgspec


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """The median of what each round gave, and its ends."""

    median: float
    low: float
    high: float


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """A ratio, or another figure, that has to be on one side of a bound.

    Attributes:
        bound: for a full run, which compares at the sizes that matter.
        guard: a generous one for the small sizes of quick runs; None where they cannot judge.
        spread: None where it was not measured.
        note: what was compared, or why it was not measured.
    """

    name: str
    bound: float
    guard: float | None = None
    side: Literal["at least", "at most"] = "at least"
    spread: Spread | None = None
    unit: str = ""
    note: str = ""

    def holds(self, *, is_full: bool) -> bool | None:
        """Whether the median is on the right side of the bound; None where nothing can be said."""
        bound = self.bound if is_full else self.guard
        if bound is None or self.spread is None:
            return None
        return self.spread.median >= bound if self.side == "at least" else self.spread.median <= bound


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of cells as they are shown; the first column names the row.

    Attributes:
        name: by which the documentation asks for it.
    """

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a plot; nearmq's own are drawn so that they stand out."""

    label: str
    x: list[float]
    y: list[float]
    ours: bool = False


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """One pair of axes."""

    title: str
    x_label: str
    y_label: str
    lines: list[Line]
    log_x: bool = False
    log_y: bool = False


class Bars(msgspec.Struct, frozen=True, kw_only=True):
    """A bar a label."""

    title: str
    x_label: str
    values: dict[str, float]
    ours: list[str]


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """A picture, `out/<name>.png`: panels of lines, or bars."""

    name: str
    title: str
    panels: list[Panel] = []
    bars: Bars | None = None


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What one part found."""

    tables: list[Table] = []
    measures: list[Measure] = []
    plots: list[Plot] = []


class Circumstances(msgspec.Struct, frozen=True, kw_only=True):
    """When, where and with what a run was made."""

    date: str
    commit: str
    machine: str
    versions: dict[str, str]
    scale: str
    is_full: bool
    seconds: float = 0.0


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """All of a run: out/bench.json."""

    circumstances: Circumstances
    parts: dict[str, Findings]

    @property
    def measures(self) -> list[Measure]:
        """Those of all parts."""
        return [measure for part in self.parts.values() for measure in part.measures]


def figure(value: float) -> str:
    """Write a figure with the digits that mean something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
