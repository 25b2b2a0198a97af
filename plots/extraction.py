"""What each dimension of y stands for, with and without labels."""

from collections.abc import Collection, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .common import names_of_classes, new_figure, to_numpy
from .mosaic import check_images, gap_between


def digit_extraction(
    images: Tensor,
    shape: tuple[int, ...],
    *,
    labelled: Collection[int],
    names: Sequence[str] | None = None,
    title: str = "matched class",
) -> Figure:
    """The canonical image of every dimension of y, its number above and the class that it stands for below.

    The labelled dimensions stand on the left, those that no label names on the right.

    Args:
        images: (K, D), E[x | e_k, z̄] for each dimension k, as `inference.canonical_images` gives them.
        shape: (H, W).
        labelled: the dimensions whose class had labels, such as range(5).
        names: the K names of the classes that the dimensions stand for; none are written unless given.
        title: where these classes come from, such as a matching or somebody who looked at the images.

    Raises:
        ValueError: `images` don't fit the shape, `labelled` names a dimension that is not there, or there are not K
            names.

    Reference:
        Gemp et al., "Inverting VAEs for improved generative accuracy", 2017, Fig. 2.
    """
    check_images(shape, images, "images")
    count, taught = len(images), sorted(set(labelled))
    if unknown := sorted(set(taught) - set(range(count))):
        raise ValueError(f"labelled must hold dimensions of y, 0 to {count - 1}, got {unknown}")
    dimensions = [*taught, *(k for k in range(count) if k not in taught)]
    written = None if names is None else [names_of_classes(names, count, "names")[k] for k in dimensions]
    cell = float(np.clip(12 / count, 0.4, 0.8))  # inches
    longest = max(map(len, written)) if written else 0
    below = 0.0 if written is None else 0.45 if longest <= 3 else 0.25 + 0.09 * longest
    figure = new_figure(max(cell * (count + 0.5) + 0.3, 4.5), cell * shape[0] / shape[1] + below + 0.8)
    axes = figure.add_subplot()
    middles = _draw(axes, images[dimensions], len(taught), shape)
    _name(axes, middles, dimensions, written, title)
    for kind, group in (("labelled", middles[: len(taught)]), ("not labelled", middles[len(taught) :])):
        if len(group):
            axes.annotate(kind, (group.mean(), 0), (0, 20), textcoords="offset points", ha="center")
    figure.suptitle("E[x | y = e_k, z̄] of each dimension k of y", size="medium")
    return figure


def _draw(axes: Axes, images: Tensor, num_taught: int, shape: tuple[int, ...]) -> np.ndarray:
    """Draw the images in a row, with a gap after the taught ones; return the middle of each, in pixels."""
    height, width = shape
    positions = np.arange(len(images))
    apart = (positions >= num_taught) & (num_taught > 0)
    lefts = positions * (width + gap_between(shape)) + width // 2 * apart
    canvas = np.full((height, lefts[-1] + width), np.nan)
    for left, image in zip(lefts, to_numpy(images).reshape(-1, height, width), strict=True):
        canvas[:, left : left + width] = image
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    return lefts + (width - 1) / 2


def _name(axes: Axes, middles: np.ndarray, dimensions: list[int], names: list[str] | None, title: str) -> None:
    """Write the dimensions above the images, and their classes below."""
    above = axes.secondary_xaxis("top")
    above.set_xticks(middles, [str(k) for k in dimensions], fontsize="small")
    longest = max(map(len, names)) if names else 0
    axes.set_xticks(middles if names else [], names or [], rotation=0 if longest <= 3 else 90)
    axes.set(yticks=[], xlabel=title if names else "")
    for part in (axes, above):
        part.tick_params(length=0)
        part.spines[:].set_visible(False)
