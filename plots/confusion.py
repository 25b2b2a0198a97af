"""Which classes a classifier takes for which."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pyro.distributions import OneHotCategorical
from torch import Tensor

from ..inference.evaluation import evaluating
from .common import UNLABELLED, check_rows, class_labels, names_of_classes, new_figure, to_numpy

MOST_CLASSES_WITH_NUMBERS = 20


def confusion_matrix(
    classifier: Callable[[Tensor], OneHotCategorical],
    x: Tensor,
    y: Tensor,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Counts of true classes (rows) against predicted ones (columns), coloured by the fraction of the true class.

    Args:
        classifier: x (N, D) → `OneHotCategorical` of batch shape (N,), such as a guide's `classify`.
        x: data (N, D), on the classifier's device.
        y: integer classes (N,); rows with -1 are left out.
        num_classes: K, where it is not the classifier's own.
        class_names: K names, or the numbers from 0.

    Raises:
        ValueError: y of another shape or type or without a label, or a class outside the K.
    """
    check_rows(x)
    labels = class_labels(y, len(x))
    if (labels == UNLABELLED).all():
        raise ValueError("y is -1 in every row; a confusion matrix needs labelled rows")
    with evaluating(classifier):
        probabilities = to_numpy(classifier(x).probs)  # (N, K)
    if probabilities.shape[:-1] != labels.shape:
        raise ValueError(f"the classifier gave a batch of {probabilities.shape[:-1]} for the {len(x)} rows of x")
    names = names_of_classes(class_names, num_classes or probabilities.shape[1])
    counts = _count(labels, probabilities.argmax(1), len(names))  # (K, K)
    return _draw(counts, names)


def _count(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    from sklearn.metrics import confusion_matrix as count

    known = labels != UNLABELLED
    for name, values in (("y", labels[known]), ("the classifier", predictions[known])):
        if values.max() >= num_classes:
            raise ValueError(f"{name} gives class {values.max()}, but the classes are 0 to {num_classes - 1}")
    return count(labels[known], predictions[known], labels=range(num_classes))


def _draw(counts: np.ndarray, names: list[str]) -> Figure:
    fractions = counts / counts.sum(1, keepdims=True).clip(1)  # 0 for a class without rows
    side = float(np.clip(0.45 * len(names), 2.6, 9))
    figure = new_figure(side + 1.6, side + 1.0)
    axes = figure.add_subplot()
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="fraction of the true class", shrink=0.8)
    if len(names) <= MOST_CLASSES_WITH_NUMBERS:
        _write(axes, counts, fractions)
    _name_axes(axes, names)
    axes.set_title(f"{np.trace(counts)} of {counts.sum()} right ({np.trace(counts) / counts.sum():.1%})", size="medium")
    return figure


def _write(axes: Axes, counts: np.ndarray, fractions: np.ndarray) -> None:
    """Counts in the cells, white on dark ones."""
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if fractions[row, column] > 0.65 else "black" if count else "0.7"
        axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize="small")


def _name_axes(axes: Axes, names: list[str]) -> None:
    size = "medium" if len(names) <= MOST_CLASSES_WITH_NUMBERS else "xx-small"
    rotation = 0 if max(map(len, names)) <= 2 else 90
    axes.set_xticks(range(len(names)), names, rotation=rotation, fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
