"""A table of the true classes against the predicted ones, or against clusters."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..contract import Classifier
from ..inference.evaluation.clusters import probabilities
from .common import UNLABELLED, check_rows, class_labels, names_of_classes, new_figure, to_numpy

MOST_CLASSES_WITH_NUMBERS = 20


def confusion_matrix(
    classifier: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    clusters: bool = False,
) -> Figure:
    """Counts of true classes (rows) against predicted ones (columns), coloured by the fraction of the true class.

    The classes of a classifier that was not taught all of them are clusters (`clusters=True`), of which there may be
    any number. The columns are then sorted by the majority class of each cluster, with the empty ones last, and the
    title counts the rows that are of their cluster's majority class. Fig. 4 of Willetts et al. (2019),
    arXiv:1901.08560.

    Args:
        classifier: x (N, D) → `OneHotCategorical` of batch shape (N,), such as a guide's `classify`.
        x: data (N, D), on the classifier's device.
        y: integer classes (N,); rows with -1 are left out.
        num_classes: K; the classifier's own unless given. With clusters it is C, the number of true classes; that of
            `class_names`, or one more than the largest label, unless given.
        class_names: K names, or the numbers from 0; with clusters the C names of the true classes.
        clusters: whether the classifier's classes are clusters; each column is named by its cluster's number.

    Raises:
        ValueError: y of another shape or type or without a label, or a class outside the K.
    """
    check_rows(x)
    labels = class_labels(y, len(x))
    if (labels == UNLABELLED).all():
        raise ValueError("y must have a labelled row, got -1 in every row; give the classes of some rows")
    q = to_numpy(probabilities(classifier, x))  # (N, K)
    if q.shape[:-1] != labels.shape:
        raise ValueError(f"classifier must give a distribution of batch shape {labels.shape}, got {q.shape[:-1]}")
    predictions = q.argmax(1)
    if clusters:
        named = num_classes or (len(class_names) if class_names else labels.max() + 1)
        return _draw_clusters(labels, predictions, names_of_classes(class_names, named), q.shape[1])
    names = names_of_classes(class_names, num_classes or q.shape[1])
    counts = _count(labels, predictions, len(names))  # (K, K)
    right = np.trace(counts)
    title = f"{right} of {counts.sum()} right ({right / counts.sum():.1%})"
    return _draw(counts, names, names, "predicted class", title)


def _draw_clusters(labels: np.ndarray, predictions: np.ndarray, names: list[str], num_clusters: int) -> Figure:
    """Counts (C, K), the clusters sorted by the class that most of their rows have."""
    if labels.max() >= len(names):
        raise ValueError(f"y must hold classes 0 to {len(names) - 1}, got {labels.max()}; raise num_classes")
    counts = np.zeros((len(names), num_clusters), int)
    known = labels != UNLABELLED
    np.add.at(counts, (labels[known], predictions[known]), 1)
    order = np.argsort(np.where(counts.sum(0) > 0, counts.argmax(0), len(names)), kind="stable")
    right = counts.max(0).sum()
    title = f"{right} of {counts.sum()} in a cluster of their class ({right / counts.sum():.1%})"
    return _draw(counts[:, order], names, [str(k) for k in order], "cluster", title)


def _count(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    from sklearn.metrics import confusion_matrix as count

    known = labels != UNLABELLED
    for duty, values in (("y must hold", labels[known]), ("classifier must give", predictions[known])):
        if values.max() >= num_classes:
            raise ValueError(f"{duty} classes 0 to {num_classes - 1}, got {values.max()}; raise num_classes")
    return count(labels[known], predictions[known], labels=range(num_classes))


def _draw(counts: np.ndarray, names: list[str], columns: list[str], kind: str, title: str) -> Figure:
    """Counts of the true classes against the predictions, which are classes or clusters as `kind` says."""
    fractions = counts / counts.sum(1, keepdims=True).clip(1)  # 0 for a class without rows
    width, height = (float(np.clip(0.45 * len(labels), 2.6, 9)) for labels in (columns, names))
    figure = new_figure(width + 1.6, height + 1.0)
    axes = figure.add_subplot()
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="fraction of the true class", shrink=0.8)
    if max(counts.shape) <= MOST_CLASSES_WITH_NUMBERS:
        _write(axes, counts, fractions)
    _name_axes(axes, names, columns)
    axes.set(xlabel=kind, ylabel="true class")
    axes.set_title(title, size="medium")
    return figure


def _write(axes: Axes, counts: np.ndarray, fractions: np.ndarray) -> None:
    """Counts in the cells, white on dark ones."""
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if fractions[row, column] > 0.65 else "black" if count else "0.7"
        axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize="small")


def _name_axes(axes: Axes, names: list[str], columns: list[str]) -> None:
    size = "medium" if max(len(names), len(columns)) <= MOST_CLASSES_WITH_NUMBERS else "xx-small"
    rotation = 0 if max(map(len, columns)) <= 2 else 90
    axes.set_xticks(range(len(columns)), columns, rotation=rotation, fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
