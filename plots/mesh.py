"""A two-dimensional latent, and what the model generates from a mesh over it."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from ..checks import check_counts
from ..contract import Guide, Model, declares_classes, encode
from ..inference.evaluation import sample
from ..modules import evaluating, module_tensor
from .common import class_labels, names_of_classes, new_figure, scatter_classes, to_numpy
from .mosaic import check_images, gap_between, mosaic

Box = tuple[float, float, float, float]  # left, right, bottom, top


def latent_mesh(
    model: Model,
    guide: Guide,
    x: Tensor,
    y: Tensor,
    num_classes: int,
    shape: tuple[int, ...],
    *,
    site: str = "z2",
    given: int | None = None,
    size: int = 15,
    extent: Box | None = None,
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Images generated from a mesh of a 2-D latent, beside the posterior means of data and the box of the mesh.

    Each image stands at the place of its latent, whose first dimension runs across and whose second runs up. In the
    mesh on the left the class is drawn from the model, from p(y | z2) in CaGeM's case; in the mesh on the right it is
    the given one. Other latents are drawn from the model, and images are means of p(x | ·).

    Args:
        model: p with the latent `site` and, where a class is given, y.
        guide: q, with `encode`.
        x: data (N, D), on the model's device.
        y: integer classes (N,), -1 where unlabelled: the colours.
        num_classes: K.
        shape: (H, W) of one row of x.
        site: the latent, of two dimensions.
        given: the class of the mesh on the right; without it, that mesh is left out.
        size: images along each side of the mesh.
        extent: (left, right, bottom, top) of the mesh's box; the inner 98 % of the data in each dimension unless given.
        class_names: K names, or the numbers from 0.

    Raises:
        ValueError: a latent that is not of two dimensions, a shape that is not that of x, a class outside the K, or a
            box that is empty.

    Reference:
        Maaløe et al., "Semi-supervised generation with cluster-aware generative models", 2017,
        arXiv:1704.00637, Fig. 3.
    """
    check_images(shape, x, "x")
    labels, names = _classes(y, len(x), given, num_classes, class_names)
    points = _encoded(guide, x, site)
    box = _box(points, extent)
    figure = new_figure(7.4 if given is None else 11.1, 4.3)
    panels = figure.subplots(1, 2 if given is None else 3)
    _draw_mesh(panels[0], model, None, box, size, shape, site)
    drawn = ", class drawn" if declares_classes(model) else ""  # a model without classes has none to draw
    panels[0].set_title(f"Samples given {site}{drawn}", fontsize="medium")
    _draw_points(panels[1], points, labels, names, box, site)
    if given is not None:
        _draw_mesh(panels[2], model, torch.eye(num_classes)[[given] * size**2], box, size, shape, site)
        panels[2].set_title(f"Samples given {site} and class {names[given]}", fontsize="medium")
    _legend(figure, panels[1])
    return figure


def _mesh(box: Box, size: int) -> Tensor:
    """The centres of size × size cells of the box, row by row from its top left, (size², 2)."""
    check_counts(2, size=size)
    left, right, bottom, top = box
    middles = (torch.arange(size) + 0.5) / size
    across, down = left + (right - left) * middles, top - (top - bottom) * middles
    return torch.stack([across.repeat(size), down.repeat_interleave(size)], 1)


def _classes(
    y: Tensor, num_rows: int, given: int | None, num_classes: int, class_names: Sequence[str] | None
) -> tuple[np.ndarray, list[str]]:
    """The labels and the names of the classes; a ValueError where y or the given class is none of the K."""
    labels, names = class_labels(y, num_rows), names_of_classes(class_names, num_classes)
    if labels.max() >= num_classes:
        raise ValueError(f"y must hold classes 0 to {num_classes - 1}, got {labels.max()}; raise num_classes")
    if given is not None and not 0 <= given < num_classes:
        raise ValueError(f"given must be a class from 0 to {num_classes - 1} or None, got {given!r}")
    return labels, names


def _encoded(guide: Guide, x: Tensor, site: str) -> np.ndarray:
    """The posterior means (N, 2)."""
    with evaluating(guide):
        points = to_numpy(encode(guide, x, site))
    if points.shape[1:] != (2,):
        raise ValueError(f"site must be a latent of 2 dimensions, got {site!r} of {points.shape[1]}")
    return points


def _box(points: np.ndarray, extent: Box | None) -> Box:
    if extent is None:
        low, high = np.quantile(points, [0.01, 0.99], axis=0)
        low, high = np.where(high - low > 1e-6, (low, high), (low - 1, high + 1))  # where a latent never varies
        return float(low[0]), float(high[0]), float(low[1]), float(high[1])
    left, right, bottom, top = extent
    if not (left < right and bottom < top):
        raise ValueError(f"extent must be (left, right, bottom, top), left < right and bottom < top, got {extent!r}")
    return left, right, bottom, top


def _draw_mesh(
    axes: Axes, model: Model, y: Tensor | None, box: Box, size: int, shape: tuple[int, ...], site: str
) -> None:
    latents = _mesh(box, size).to(module_tensor(model))
    images = sample(model, size**2, None if y is None else y.to(latents), latents={site: latents}, mean=True)
    check_images(shape, images, "the model's x")
    left, right, bottom, top = box
    gap = gap_between(shape)
    across, up = (0.5 * gap / (pixels + gap) / size for pixels in reversed(shape))  # half a gap, as parts of the box
    inner = (
        left + across * (right - left),
        right - across * (right - left),
        bottom + up * (top - bottom),
        top - up * (top - bottom),
    )
    axes.imshow(mosaic(images, size, shape, gap), cmap="gray", vmin=0, vmax=1, extent=inner, aspect="auto")
    axes.set(xlim=(left, right), ylim=(bottom, top))
    _name_axes(axes, site, shape[0] / shape[1])


def _draw_points(axes: Axes, points: np.ndarray, labels: np.ndarray, names: Sequence[str], box: Box, site: str) -> None:
    scatter_classes(axes, points, labels, names)
    left, right, bottom, top = box
    axes.add_patch(Rectangle((left, bottom), right - left, top - bottom, fill=False, edgecolor="black", linewidth=1.5))
    axes.autoscale_view()
    axes.set_title(f"Posterior means of {site}, box of the mesh", fontsize="medium")
    _name_axes(axes, site, 1.0)


def _name_axes(axes: Axes, site: str, aspect: float) -> None:
    axes.set_box_aspect(aspect)
    axes.set(xlabel=f"{site}, dimension 1", ylabel=f"{site}, dimension 2")
    axes.locator_params(axis="x", nbins=max(2, int(4 / max(1.0, aspect))))
    axes.locator_params(axis="y", nbins=4)


def _legend(figure: Figure, axes: Axes) -> None:
    """The classes below the panels, in as many lines as their names need."""
    handles, texts = axes.get_legend_handles_labels()
    columns = min(len(texts), max(1, int(figure.get_figwidth() / (0.6 + 0.09 * max(map(len, texts))))))
    figure.set_size_inches(figure.get_figwidth(), figure.get_figheight() + 0.2 * ((len(texts) - 1) // columns))
    figure.legend(handles, texts, loc="outside lower center", ncols=columns, frameon=False, markerscale=2)
