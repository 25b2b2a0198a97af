"""Guides side by side: bounds, accuracy and what a step costs."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from .common import new_figure


def compared_guides(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """A line for each guide, from its bound to its importance-weighted bound; accuracy; milliseconds a step.

    Args:
        rows: those of `compare_guides` or `compare_objectives`: `guide`, `bound` and `iw_bound` in nats, `accuracy`
            where it was measured, `seconds_per_step`.

    Raises:
        ValueError: there is no row, or one without these names.
    """
    needed = {"guide", "bound", "iw_bound", "seconds_per_step"}
    if not rows or any(missing := needed - row.keys() for row in rows):
        what = f"a row without {', '.join(sorted(missing))}" if rows else "no row"
        raise ValueError(f"rows must be those of compare_guides, got {what}")
    panels = {"accuracy": "accuracy"} if all("accuracy" in row for row in rows) else {}
    panels |= {"seconds_per_step": "milliseconds a step"}
    figure = new_figure(4.6 + 2.2 * len(panels), 1.3 + 0.34 * len(rows))
    bounds, *others = figure.subplots(1, 1 + len(panels), sharey=True, width_ratios=[2, *[1] * len(panels)])
    for height, row in enumerate(rows):
        bounds.plot([row["bound"], row["iw_bound"]], [height, height], color="C0", linewidth=1)
    _dots(bounds, [row["bound"] for row in rows], 5, label="bound", color="C0")
    iw_bounds = [row["iw_bound"] for row in rows]
    _dots(bounds, iw_bounds, 5, label="importance-weighted bound", color="C0", markerfacecolor="w")
    bounds.set_xlabel("nats per row")
    bounds.set_yticks(range(len(rows)), [row["guide"] for row in rows])
    bounds.set_ylim(len(rows) - 0.5, -0.5)  # the first guide above
    for axes, (name, label) in zip(others, panels.items(), strict=True):
        milliseconds = name == "seconds_per_step"
        values = [row[name] * (1000 if milliseconds else 1) for row in rows]
        _dots(axes, values, 3, color="C1")
        axes.set_xlabel(label)
        if milliseconds:
            axes.set_xlim(0, 1.1 * max(values))
        else:
            middle, reach = (max(values) + min(values)) / 2, 0.6 * (max(values) - min(values))
            reach = max(reach, 0.01)  # the axis spans 2 % or more, so that small differences look small
            axes.set_xlim(middle - reach, middle + reach)
            axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    figure.legend(*bounds.get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False)
    return figure


def _dots(axes: Axes, values: Sequence[float], ticks: int, **look: Any) -> None:
    """A dot in each guide's line."""
    axes.plot(values, range(len(values)), "o", **look)
    axes.margins(x=0.1)
    axes.grid(axis="x", alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(ticks))
    axes.spines[["top", "right"]].set_visible(False)
