"""What the figures share: colours and names of classes, scatters, and checks."""

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from ..checks import check_counts, check_largest_class

UNLABELLED = -1


class NotebookFigure(Figure):
    """A figure that a notebook shows even if pyplot was never imported."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, whose layout leaves room for all labels."""
    return NotebookFigure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06))


def to_numpy(tensor: Tensor) -> np.ndarray:
    """An array of the tensor's values, from any device and with or without gradients."""
    return torch.as_tensor(tensor).detach().cpu().numpy()


def check_rows(x: Tensor) -> None:
    """Raise ValueError unless x is (N, D) with at least one row."""
    if x.ndim != 2 or len(x) == 0:
        raise ValueError(f"x must be of shape (N, D) with N > 0, got {tuple(x.shape)}; pass x.flatten(1) for images")


def class_labels(y: Tensor, num_rows: int) -> np.ndarray:
    """Integer labels (N,) as an array; ValueError for another shape or type, or labels that are no classes."""
    labels = torch.as_tensor(y)
    if labels.shape != (num_rows,) or labels.is_floating_point():
        raise ValueError(
            f"y must be integers of shape ({num_rows},), one per row of x, -1 where unlabelled, "
            f"got {labels.dtype} of shape {tuple(labels.shape)}; pass y.argmax(-1) for one-hot labels"
        )
    if num_rows and labels.min() < UNLABELLED:
        raise ValueError(f"y must hold classes from 0 up, or -1 where unlabelled, got {labels.min().item()}")
    if num_rows:
        check_largest_class("y", int(labels.max()), num_rows)
    return to_numpy(labels.long())


def names_of_classes(class_names: Sequence[str] | None, num_classes: int, argument: str = "class_names") -> list[str]:
    """A name for each class: those given, or else "0", "1", and so on. Errors call them by the name of `argument`."""
    check_counts(num_classes=num_classes)
    if class_names is None:
        return [str(index) for index in range(num_classes)]
    if len(class_names) != num_classes:
        raise ValueError(f"{argument} must be {num_classes} names, one per class, got {len(class_names)}")
    return [str(name).replace("$", r"\$") for name in class_names]


def class_colours(num_classes: int) -> list[str]:
    """A colour for each class: ten hues, then their light variants, then twenty muted ones; a colour map beyond 40."""
    if num_classes > 40:
        return [to_hex(colour) for colour in matplotlib.colormaps["viridis"](np.linspace(0, 1, num_classes))]
    strong, light, muted = np.arange(0, 20, 2), np.arange(1, 20, 2), np.arange(20)
    pairs, shades = matplotlib.colormaps["tab20"], matplotlib.colormaps["tab20b"]
    return [to_hex(colour) for colour in (*pairs(strong), *pairs(light), *shades(muted))][:num_classes]


def by_class(labels: np.ndarray, names: Sequence[str]) -> list[tuple[int, str, str]]:
    """Label, name and colour of each class that occurs, the unlabelled first, in light grey."""
    colours = ["#cccccc", *class_colours(len(names))]
    entries = zip(range(UNLABELLED, len(names)), ["unlabelled", *names], colours, strict=True)
    return [entry for entry in entries if entry[0] in labels]


def scatter_classes(axes: Axes, points: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> None:
    """Draw points (N, 2), one colour and one legend entry per class that occurs; unlabelled ones light grey, below."""
    size = float(np.clip(4000 / len(points), 6, 30))
    for label, name, colour in by_class(labels, names):
        chosen = points[labels == label]
        axes.scatter(chosen[:, 0], chosen[:, 1], s=size, color=colour, alpha=0.8, linewidths=0, label=name)
    axes.locator_params(nbins=5)  # few, as numbers such as -0.075 are wide


def add_legend(figure: Figure, num_entries: int, title: str | None = None) -> None:
    """Put the legend to the right of the axes, in as many columns as it needs."""
    columns = -(-num_entries // 18)
    figure.set_size_inches(figure.get_figwidth() + 0.8 * (columns - 1), figure.get_figheight())
    legend = figure.legend(loc="outside right upper", title=title, ncols=columns, frameon=False)
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_alpha(1)
            handle.set_sizes([30])
