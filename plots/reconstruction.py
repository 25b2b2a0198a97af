"""Reconstructions of given data beside samples of the model."""

import math
from typing import Any

import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from pyro import poutine
from torch import Tensor

from ..contract import Guide, Model
from ..inference.evaluation import sample
from ..modules import evaluating
from .common import add_legend, check_rows, new_figure, to_numpy
from .grid import check_shape, draw_grid
from .mosaic import draw_mosaic

TITLES = ("inputs", "reconstructions", "samples")


def reconstructions(model: Model, guide: Guide, x: Tensor, shape: tuple[int, ...]) -> Figure:
    """Inputs x, the means of p(x | ·) at latents that the guide draws for them, and as many samples of the model.

    Images are drawn in three blocks, in which an input and its reconstruction have the same place, and vectors in
    three rows. 2-D points are scattered, with a line from each input to its reconstruction. Samples are means of
    p(x | ·) at latents drawn from the model; sampled points are drawn from p(x | ·) itself.

    Args:
        model: p, called as `model(x)`.
        guide: q, called as `guide(x)`; a class is drawn like any other latent.
        x: data (N, D), on the model's device; 25 to 100 images read well, and 10 vectors.
        shape: shape of one row of x: (H, W), (2,) for points, or (D,).

    Raises:
        ValueError: `shape` is not the shape of x.

    Reference:
        Maaløe et al., "Semi-supervised generation with cluster-aware generative models", 2017,
        arXiv:1704.00637, Fig. 6.
    """
    check_rows(x)
    check_shape(shape, x, "x")
    points = tuple(shape) == (2,)
    rows = (x, _reconstruct(model, guide, x), sample(model, len(x), mean=not points))
    if points:
        return _scatter(*map(to_numpy, rows))
    if len(shape) == 2:
        return _blocks(rows, shape)
    return draw_grid(torch.cat([row.to(x) for row in rows]), 3, len(x), shape, TITLES, None, "Reconstructions")


def _reconstruct(model: Model, guide: Guide, x: Tensor) -> Tensor:
    """E[x | latents] at latents drawn from q(· | x), (N, D)."""
    with evaluating(model, guide):
        drawn = poutine.trace(guide).get_trace(x)
        nodes: Any = poutine.trace(poutine.replay(model, drawn)).get_trace(x).nodes
        return nodes["x"]["fn"].mean


def _blocks(rows: tuple[Tensor, ...], shape: tuple[int, ...]) -> Figure:
    columns = math.ceil(len(rows[0]) ** 0.5)
    lines = -(-len(rows[0]) // columns)
    side = float(np.clip(0.4 * columns, 1.6, 3.6))
    figure = new_figure(3 * side + 0.8, side * lines * shape[0] / (columns * shape[1]) + 0.4)
    for axes, images, title in zip(figure.subplots(1, 3), rows, TITLES, strict=True):
        draw_mosaic(axes, images, columns, shape)
        axes.set_title(title, fontsize="medium")
    return figure


def _scatter(x: np.ndarray, means: np.ndarray, samples: np.ndarray) -> Figure:
    figure = new_figure(5.5, 4.2)
    axes = figure.add_subplot()
    lines = list(np.stack([x, means], 1))  # (N, 2, 2)
    axes.add_collection(LineCollection(lines, colors="0.6", linewidths=0.5, alpha=0.6, zorder=0))
    for points, title, marker, colour in zip((x, means, samples), TITLES, "xo.", ("black", "C1", "C0"), strict=True):
        axes.scatter(points[:, 0], points[:, 1], s=18, marker=marker, color=colour, linewidths=0.9, label=title)
    axes.set(xlabel="x1", ylabel="x2")
    axes.set_title("Reconstructions and samples", fontsize="medium")
    axes.set_aspect("equal", adjustable="datalim")
    add_legend(figure, 3)
    return figure
