"""A sheet of pictures in rows and columns."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .common import new_figure, to_numpy

PADDING = 0.04  # on each side of a picture, in cells
GAP = 0.3  # between the first column and the others, where they are set apart


def image_grid(
    images: Tensor,
    *,
    rows: int,
    columns: int,
    shape: tuple[int, ...],
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Pictures row by row: images (H, W) in grey, vectors (D,) as small line plots on one common scale.

    Args:
        images: values (n, D), n up to rows · columns; 0 is drawn black and 1 white.
        rows: number of rows.
        columns: number of columns.
        shape: shape of one picture, (H, W) or (D,).
        row_labels: a label per row, on the left.
        column_labels: a label per column, on top.
        title: a line above it all.

    Raises:
        ValueError: the pictures do not fit the shape or the grid, or the labels do not fit the grid.

    Example:
        >>> import torch
        >>> figure = image_grid(torch.rand(6, 64), rows=2, columns=3, shape=(8, 8), row_labels=["a", "b"])
        >>> len(figure.axes[0].images)
        6
    """
    check_shape(shape, images, "images")
    return draw_grid(images, rows, columns, shape, row_labels, column_labels, title)


def check_shape(shape: tuple[int, ...], values: Tensor, name: str) -> None:
    """Raise ValueError unless the rows of values (n, D) can be drawn in this shape."""
    if len(shape) not in (1, 2):
        raise ValueError(f"shape must be (H, W) for grey images or (D,) for points and vectors, got {tuple(shape)}")
    if values.ndim != 2 or len(values) == 0:
        raise ValueError(f"{name} must be of shape (n, {math.prod(shape)}) with n > 0, got {tuple(values.shape)}")
    if math.prod(shape) != values.shape[1]:
        raise ValueError(
            f"shape must have a value for each of the {values.shape[1]} columns of {name}, got {tuple(shape)} with "
            f"{math.prod(shape)} values; pass the shape of one row"
        )


def draw_grid(
    images: Tensor,
    rows: int,
    columns: int,
    shape: tuple[int, ...],
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    title: str | None = None,
    gap: float = 0.0,
) -> Figure:
    """`image_grid` of checked pictures, with the first column `gap` cells apart from the others."""
    _check_grid(len(images), rows, columns, row_labels, column_labels)
    lefts = np.arange(columns) + gap * (np.arange(columns) > 0)
    width, height = lefts[-1] + 1, shape[0] / shape[1] if len(shape) == 2 else 0.7  # of the grid, of a cell
    cell = float(np.clip(14 / max(rows * height, columns), 0.3, 0.7)) / max(1.0, height)  # inches
    turned = _longest(column_labels) > 10 * cell  # they would overlap
    margins = _margins(row_labels, column_labels, turned, title)
    figure = new_figure(max(cell * width + margins[0], 0.085 * len(title or "")), cell * height * rows + margins[1])
    axes = figure.add_subplot()
    draw = _draw_images if len(shape) == 2 else _draw_vectors
    draw(axes, to_numpy(images).reshape(-1, *shape), [(row, left) for row in range(rows) for left in lefts])
    axes.set(xlim=(0, width), ylim=(rows, 0), aspect=height)
    if title:
        figure.suptitle(title, fontsize="medium")
    _label(axes, np.arange(rows) + 0.5, lefts + 0.5, row_labels, column_labels, 90 if turned else 0)
    return figure


def _check_grid(
    count: int, rows: int, columns: int, row_labels: Sequence[str] | None, column_labels: Sequence[str] | None
) -> None:
    if rows < 1 or columns < 1 or count > rows * columns:
        raise ValueError(f"images must fit in rows={rows!r} and columns={columns!r}, got {count} of them")
    if row_labels is not None and len(row_labels) != rows:
        raise ValueError(f"row_labels must be {rows} labels, one per row, got {len(row_labels)}")
    if column_labels is not None and len(column_labels) != columns:
        raise ValueError(f"column_labels must be {columns} labels, one per column, got {len(column_labels)}")


def _longest(labels: Sequence[str] | None) -> int:
    return max(map(len, labels)) if labels else 0


def _margins(
    row_labels: Sequence[str] | None, column_labels: Sequence[str] | None, turned: bool, title: str | None
) -> tuple[float, float]:
    """The width and the height, in inches, that the labels and the title need."""
    lines = 0.07 * _longest(column_labels) if turned else 0.25 if column_labels else 0.0
    return 0.2 + 0.09 * _longest(row_labels), 0.1 + lines + (0.35 if title else 0.0)


def _draw_images(axes: Axes, images: np.ndarray, cells: list[tuple[int, float]]) -> None:
    for image, (row, left) in zip(images, cells, strict=False):
        extent = (left + PADDING, left + 1 - PADDING, row + 1 - PADDING, row + PADDING)
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto", extent=extent)


def _draw_vectors(axes: Axes, vectors: np.ndarray, cells: list[tuple[int, float]]) -> None:
    low, high = float(np.nanmin(vectors)), float(np.nanmax(vectors))
    across = np.linspace(2 * PADDING, 1 - 2 * PADDING, vectors.shape[1])
    heights = (vectors - low) / ((high - low) or 1.0)  # (n, D), from 0 at the bottom of a cell to 1 at its top
    for values, (row, left) in zip(heights, cells, strict=False):
        up = row + 1 - 2 * PADDING - (1 - 4 * PADDING) * values
        axes.plot(left + across, up, color="C0", linewidth=1, marker="." if len(values) < 3 else None)
    axes.set_xlabel(f"each line: values from {low:.3g} to {high:.3g}", fontsize="small")


def _label(
    axes: Axes,
    row_ticks: np.ndarray,
    column_ticks: np.ndarray,
    row_labels: Sequence[str] | None,
    column_labels: Sequence[str] | None,
    rotation: int,
) -> None:
    """Labels on the left and on top; no frame, no tick marks."""
    axes.xaxis.tick_top()
    axes.set_xticks(column_ticks if column_labels else [], column_labels or [], rotation=rotation)
    axes.set_yticks(row_ticks if row_labels else [], row_labels or [])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
