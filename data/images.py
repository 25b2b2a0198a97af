"""Binarising pixels, which are read as probabilities, and leaving out those that hardly vary."""

from typing import Any

import torch
from torch import Tensor

from .checks import generator, matrix, probabilities, tensor


def binarize(x: Any, seed: int) -> Tensor:
    """Draw b ~ Bern(x) once, from a given seed, so that validation and test bounds can be compared between runs.

    Args:
        x: probabilities, such as grey pixels in [0, 1], of any shape.
        seed: the same seed gives the same draw.

    Returns:
        Zeros and ones, of the shape and type of ``x``.

    Raises:
        ValueError: ``x`` is not floating, or outside [0, 1].

    >>> binarize(torch.tensor([[0.0, 1.0]]), seed=0)
    tensor([[0., 1.]])
    """
    x = tensor("x", x)
    if not x.is_floating_point():
        raise ValueError(f"x must be floating probabilities, got {x.dtype}; divide pixels of 0 to 255 by 255")
    probabilities("x", x)
    return bernoulli(x, generator(seed))


def bernoulli(x: Tensor, random: torch.Generator) -> Tensor:
    """Draw b ~ Bern(x) on the CPU, wherever ``x`` is, so that a seed means the same on every device."""
    noise = torch.rand(x.shape, generator=random, dtype=x.dtype).to(x.device)
    return (noise < x).to(x.dtype)


def pixel_filter(x: Any, threshold: float = 0.1) -> Tensor:
    """The pixels worth modelling: those whose standard deviation over the rows exceeds ``threshold``.

    The filter of Willetts et al. (2019), arXiv:1901.08560: on the 60,000 training images it keeps 444 pixels of MNIST
    and 690 of Fashion-MNIST. A bound on kept pixels is not comparable with one on all of them.

    Args:
        x: images in [0, 1], (N, D).
        threshold: in the units of ``x``.

    Returns:
        A mask, (D,) bool: ``x[:, pixel_filter(x)]``.

    Raises:
        ValueError: ``x`` is not floating (N, D) or not finite, or no pixel is left.

    >>> pixel_filter(torch.tensor([[0.0, 0.5], [1.0, 0.5]]))
    tensor([ True, False])
    """
    x = matrix("x", x)
    spread = x.std(dim=0, correction=0)
    kept: Tensor = spread > threshold
    if not kept.any():
        raise ValueError(f"threshold must be below {spread.max():g}, by which a pixel varies most, got {threshold!r}")
    return kept
