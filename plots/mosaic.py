"""Many images as one picture: blocks of samples, inputs and reconstructions."""

import math

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from .common import to_numpy
from .grid import check_shape


def check_images(shape: tuple[int, ...], values: Tensor, name: str) -> None:
    """Raise ValueError unless the rows of values (n, D) are images of this shape (H, W)."""
    if len(shape) != 2:
        raise ValueError(f"shape must be (H, W), as this figure draws images, got {tuple(shape)}")
    check_shape(shape, values, name)


def gap_between(shape: tuple[int, ...]) -> int:
    """Pixels between two images: one for 8x8, two for 28x28."""
    return max(1, round(0.07 * shape[1]))


def mosaic(images: Tensor, columns: int, shape: tuple[int, ...], gap: int = 0) -> np.ndarray:
    """Images (n, H · W) row by row, `gap` pixels of NaN between them and NaN in cells without an image."""
    height, width = shape[0] + gap, shape[1] + gap
    rows = math.ceil(len(images) / columns)
    canvas = np.full((rows * height, columns * width), np.nan)
    for index, image in enumerate(to_numpy(images).reshape(-1, *shape)):
        top, left = index // columns * height, index % columns * width
        canvas[top : top + shape[0], left : left + shape[1]] = image
    return canvas[: rows * height - gap, : columns * width - gap]


def draw_mosaic(axes: Axes, images: Tensor, columns: int, shape: tuple[int, ...]) -> None:
    """Images row by row with gaps between them, without axes; the unit of both axes is a pixel."""
    axes.imshow(mosaic(images, columns, shape, gap_between(shape)), cmap="gray", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
