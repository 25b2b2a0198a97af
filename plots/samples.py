"""What a model generates: samples of every class, and analogies of given data."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from ..checks import check_counts
from ..contract import Guide, Model, encode
from ..inference.evaluation import sample
from ..inference.evaluation.sampling import draw_classes
from ..modules import evaluating
from .common import (
    add_legend,
    check_rows,
    names_of_classes,
    new_figure,
    scatter_classes,
    to_numpy,
)
from .grid import GAP, check_shape, draw_grid

ROUNDS = 100  # of 2,000 draws each, to find rows of every class where classes depend on a latent


def class_samples(
    model: Model,
    num_classes: int,
    shape: tuple[int, ...],
    *,
    per_class: int | None = None,
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Samples of p(x | y), a row for each class y; for 2-D points a scatter with a colour for each class.

    Pictures are means of p(x | y, z) with z drawn anew for each; points are drawn from p(x | y, z) itself. Where y
    depends on a latent, as in CaGeM, the latents are drawn from p(z | y) and so go with the class. A class that the
    model hardly ever draws is left empty.

    Args:
        model: a model with the site "y".
        num_classes: K.
        shape: shape of one row of x: (H, W), (2,) for points, or (D,).
        per_class: samples of each class; 10 pictures or 200 points unless given.
        class_names: K names, or the numbers from 0.

    Raises:
        ValueError: `shape` is not the shape of the model's x, or `class_names` has another length.
    """
    names = names_of_classes(class_names, num_classes)
    points = _is_points(shape)
    count = per_class if per_class is not None else 200 if points else 10
    check_counts(per_class=count)
    y = torch.arange(num_classes).repeat_interleave(count)  # (K · count,)
    x, missing = draw_classes(model, y, num_classes, mean=not points, rounds=ROUNDS)  # (K · count, D)
    check_shape(shape, x, "x")
    if points:
        return _scatter(to_numpy(x[~missing]), to_numpy(y[~missing]), names, "Samples of each class")
    return draw_grid(x, num_classes, count, shape, names, None, "Samples of each class")


def analogies(
    model: Model,
    guide: Guide,
    x: Tensor,
    num_classes: int,
    shape: tuple[int, ...],
    *,
    class_names: Sequence[str] | None = None,
    site: str | None = None,
) -> Figure:
    """Each x again under every class: the means of p(x | y, z) for y = 0, ..., K-1 with the z that the guide infers.

    Each x has a row, with x itself set apart on the left and then a column for each class. 2-D points are scattered,
    with a line from every x to each of its analogies.

    Args:
        model: a model with the site "y".
        guide: a guide of the model, with `encode`.
        x: data (N, D), on the model's device.
        num_classes: K.
        shape: shape of one row of x: (H, W), (2,) for points, or (D,).
        class_names: K names, or the numbers from 0.
        site: the latent that is kept; "z" unless given.

    Raises:
        ValueError: `shape` is not the shape of x, or `class_names` has another length.

    Reference:
        Kingma et al., 2014, Fig. 1 (b) and (c), arXiv:1406.5298.
    """
    names = names_of_classes(class_names, num_classes)
    check_shape(shape, x, "x")
    under_class = _under_every_class(model, guide, x, num_classes, site)  # (N, K, D)
    if _is_points(shape):
        return _scatter_analogies(to_numpy(x), to_numpy(under_class), names)
    cells = torch.cat([x.unsqueeze(1), under_class.to(x)], 1).flatten(0, 1)  # (N · (1 + K), D)
    title = "Analogies: style of the left column, class of the top row"
    return draw_grid(cells, len(x), 1 + num_classes, shape, None, ["x", *names], title, gap=GAP)


def _under_every_class(model: Model, guide: Guide, x: Tensor, num_classes: int, site: str | None) -> Tensor:
    check_rows(x)
    with evaluating(model, guide):
        z = encode(guide, x, site)  # (N, L)
        y = torch.eye(num_classes, dtype=z.dtype, device=z.device).repeat(len(x), 1)  # (N · K, K)
        latents = {site or "z": z.repeat_interleave(num_classes, 0)}  # (N · K, L)
        means = sample(model, len(y), y, latents=latents, mean=True)  # (N · K, D)
    return means.reshape(len(x), num_classes, -1)


def _is_points(shape: tuple[int, ...]) -> bool:
    return tuple(shape) == (2,)


def _points_axes(title: str) -> tuple[Figure, Axes]:
    figure = new_figure(5.5, 4.2)
    axes = figure.add_subplot()
    axes.set(xlabel="x1", ylabel="x2", aspect="equal")
    axes.set_title(title, fontsize="medium")
    return figure, axes


def _scatter(points: np.ndarray, labels: np.ndarray, names: list[str], title: str) -> Figure:
    figure, axes = _points_axes(title)
    scatter_classes(axes, points, labels, names)
    axes.set_aspect("equal", adjustable="datalim")
    add_legend(figure, len(names), "class")
    return figure


def _scatter_analogies(x: np.ndarray, under_class: np.ndarray, names: list[str]) -> Figure:
    """Points (N, 2) as crosses, and their analogies (N, K, 2) in the colours of the classes."""
    figure, axes = _points_axes("Analogies: the same z under every class")
    starts = np.repeat(x[:, None], len(names), 1)  # (N, K, 2)
    lines = np.stack([starts, under_class], 2).reshape(-1, 2, 2)
    axes.add_collection(LineCollection(list(lines), colors="0.6", linewidths=0.5, alpha=0.4, zorder=0))
    axes.scatter(x[:, 0], x[:, 1], marker="x", s=18, color="black", linewidths=0.9, label="x itself")
    scatter_classes(axes, under_class.reshape(-1, 2), np.tile(np.arange(len(names)), len(x)), names)
    axes.set_aspect("equal", adjustable="datalim")
    add_legend(figure, len(names) + 1, "class")
    return figure
