"""Conditional distributions that a test puts in the place of a network: a function, fixed draws, exchanged arguments.

A bound over `FixedDraw` conditionals is a number without chance, so that it can be compared to rounding with what is
written by hand. `swapped` makes a network that reads its arguments in the wrong order, which a test has to notice.
"""

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn


class Conditional(nn.Module):
    """A conditional distribution that is given as a function of what it is conditioned on."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *conditions: Tensor) -> Any:
        return self.function(*conditions)


def swapped(net: nn.Module, first: int = 0, second: int = 1) -> nn.Module:
    """The conditional with two of its arguments exchanged."""

    def exchanged(*conditions: Tensor) -> Any:
        order = list(conditions)
        order[first], order[second] = order[second], order[first]
        return net(*order)

    conditional = Conditional(exchanged)
    conditional.net = net  # its parameters stay the objective's
    return conditional


# Draws without chance


class Noise:
    """Takes the place of standard normal numbers: draw s of S is row s, whether the S draws come at once or in turn."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows  # (S, L)
        self.turn = 0

    def __call__(self, shape: torch.Size) -> Tensor:
        if len(shape) > 2 and shape[-3] == len(self.rows):
            return self.rows[:, None]  # S, 1, L
        self.turn += 1
        return self.rows[(self.turn - 1) % len(self.rows)]


class FixedNormal(dist.Normal):
    """A normal distribution whose draw is always loc + noise · scale, with the gradients of a real draw."""

    def __init__(self, loc: Tensor, scale: Tensor, noise: Noise) -> None:
        self.noise = noise
        super().__init__(loc, scale)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> "FixedNormal":
        return FixedNormal(self.loc.expand(batch_shape), self.scale.expand(batch_shape), self.noise)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        return (self.loc + self.noise(shape) * self.scale).expand(shape)


class FixedDraw(nn.Module):
    """The diagonal Gaussian conditional `net`, or its image in a box, whose S draws are fixed by `noise`, (S, L).

    A bound over it is a number without chance.
    """

    def __init__(self, net: nn.Module, noise: Tensor) -> None:
        super().__init__()
        self.net = net
        self.noise = Noise(noise)

    def forward(self, *conditions: Tensor) -> Any:
        inner = self.net(*conditions).base_dist
        if isinstance(inner, dist.TransformedDistribution):
            normal = FixedNormal(inner.base_dist.loc, inner.base_dist.scale, self.noise)
            return dist.TransformedDistribution(normal, inner.transforms).to_event(1)
        return FixedNormal(inner.loc, inner.scale, self.noise).to_event(1)


# A model whose class is decided by z


class Sign(nn.Module):
    """p(y | z): the class is the sign of z."""

    def forward(self, z: Tensor) -> Any:
        return dist.OneHotCategorical(logits=torch.cat([-1000 * z, 1000 * z], -1))


class Copy(nn.Module):
    """p(x | y, z): x is nearly z."""

    def forward(self, y: Tensor, z: Tensor) -> Any:
        return dist.Normal(z, 0.01).to_event(1)
