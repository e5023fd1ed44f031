"""Plots as PNG files: nearmq's lines drawn through, the others' dashed."""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.findings import Bars, Panel, Plot

mpl.use("Agg")

_OURS, _THEIRS = "tab:blue", "tab:grey"


def draw(plot: Plot, folder: Path) -> Path:
    """Draw a plot into a file of its name."""
    columns = max(1, len(plot.panels))
    figure, axes = plt.subplots(1, columns, figsize=(max(6.4, 4.8 * columns), 4.2), squeeze=False)
    for axis, panel in zip(axes[0], plot.panels, strict=False):
        _draw_panel(axis, panel)
    if plot.bars is not None:
        _draw_bars(axes[0][0], plot.bars)
    figure.suptitle(plot.title)
    figure.tight_layout()
    path = folder / f"{plot.name}.png"
    figure.savefig(path, dpi=90)
    plt.close(figure)
    return path


def _draw_panel(axis: Axes, panel: Panel) -> None:
    for line in panel.lines:
        style, width = ("-", 2.2) if line.ours else ("--", 1.2)
        axis.plot(line.x, line.y, style, linewidth=width, marker="o", markersize=3.5, label=line.label)
    if panel.log_x:
        axis.set_xscale("log")
    if panel.log_y:
        axis.set_yscale("log")
    axis.set_title(panel.title, fontsize=9)
    axis.set_xlabel(panel.x_label)
    axis.set_ylabel(panel.y_label)
    axis.grid(visible=True, which="both", alpha=0.25)
    axis.legend(fontsize=7)


def _draw_bars(axis: Axes, bars: Bars) -> None:
    names = list(reversed(bars.values))
    drawn = axis.barh(
        names, [bars.values[name] for name in names], color=[_OURS if name in bars.ours else _THEIRS for name in names]
    )
    axis.bar_label(drawn, fmt="{:,.0f}", padding=3, fontsize=8)
    axis.margins(x=0.12)
    axis.set_title(bars.title, fontsize=9)
    axis.set_xlabel(bars.x_label)
