"""Curves of the terms of an objective, epoch by epoch."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .common import new_figure

BOOKKEEPING = ("epoch", "step", "seconds", "learning_rate", "kl_weight")
VALIDATION = "validation_"


def training_curves(history: Sequence[Mapping[str, float]]) -> Figure:
    """One panel per term of the history, with its training and its validation curve.

    Args:
        history: one mapping per epoch, with `epoch` and any number of metrics; the key `validation_X` is drawn
            in the panel of `X`. A metric may be missing, None or NaN in some rows. Metrics are taken to be in nats
            per data point, but for those whose name ends with `accuracy`.

    Raises:
        ValueError: there is no row, a row without `epoch`, or nothing to draw.

    Example:
        >>> figure = training_curves([{"epoch": 1, "loss": 3.0, "validation_loss": 3.5}, {"epoch": 2, "loss": 2.0}])
        >>> [axes.get_title() for axes in figure.axes]
        ['loss']
    """
    epochs, curves = _read(history)
    terms = list(dict.fromkeys(key.removeprefix(VALIDATION) for key in curves))
    columns = min(3, len(terms))
    rows = -(-len(terms) // columns)
    figure = new_figure(max(3.2 * columns, 4.2), 2.5 * rows + 0.4)
    for index, term in enumerate(terms):
        axes = figure.add_subplot(rows, columns, index + 1)
        _draw(axes, term, curves)
        margin = 0.04 * (epochs[-1] - epochs[0]) or 0.5
        axes.set_xlim(epochs[0] - margin, epochs[-1] + margin)
    _legend(figure)
    return figure


def _read(history: Sequence[Mapping[str, float]]) -> tuple[list[float], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """The epochs in order, and for every metric the epochs at which it has a value, with the values."""
    if not history:
        raise ValueError("history must hold a mapping per epoch, such as {'epoch': 1, 'loss': 2.5}, got none")
    if any("epoch" not in row for row in history):
        raise ValueError(
            "history must have an 'epoch' in each row, such as {'epoch': 1, 'loss': 2.5}, got a row without one"
        )
    keys = dict.fromkeys(key for row in history for key in row if key.removeprefix(VALIDATION) not in BOOKKEEPING)
    curves = {key: _finite([(row["epoch"], row.get(key)) for row in history]) for key in keys}
    curves = {key: curve for key, curve in curves.items() if len(curve[0])}
    if not curves:
        raise ValueError(f"history must have a finite value beside {', '.join(BOOKKEEPING)}, got no metric to draw")
    return sorted(float(row["epoch"]) for row in history), curves


def _finite(points: list[tuple[float, float | None]]) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and values of those points that have a value."""
    pairs = [(float(epoch), np.nan if value is None else float(value)) for epoch, value in points]
    epochs, values = np.array(pairs).T
    return epochs[np.isfinite(values)], values[np.isfinite(values)]


def _draw(axes: Axes, term: str, curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    for key, label, colour, line in ((term, "training", "C0", "-"), (VALIDATION + term, "validation", "C1", "--")):
        if key in curves:
            marker = "o" if len(curves[key][0]) <= 20 else None
            axes.plot(*curves[key], line, color=colour, marker=marker, markersize=3.5, label=label)
    axes.set_title(term.replace("_", " "), fontsize="medium")
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy" if term.endswith("accuracy") else "nats per data point")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def _legend(figure: Figure) -> None:
    """One legend for all panels."""
    handles = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    entries = [(handles[label], label) for label in ("training", "validation") if label in handles]
    figure.legend(*zip(*entries, strict=True), loc="outside upper right", ncols=2, frameon=False)
