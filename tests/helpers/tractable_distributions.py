"""Distributions whose densities, draws and expectations are known, so that a bound over them is an exact number.

Blocks that are jointly Gaussian given the class (`Joint`) are conditioned on each other in closed form. A Gaussian that
a step function weighs (`SteppedNormal`) is still integrated in closed form, and so is a uniform distribution over the
orthants of a box (`Cells`): with them a class can depend on a continuous latent, and a binary image on a bounded one,
and the posterior stays known.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

# Gaussians


class Joint:
    """Blocks that are jointly Gaussian given y, N(mean_y, covariance_y): `joint("z", y, x=x)` is p(z | x, y).

    Args:
        sizes: the width of each block, in order.
        mean: (K, T), T the sum of the sizes.
        covariance: (K, T, T).
    """

    def __init__(self, sizes: dict[str, int], mean: Tensor, covariance: Tensor) -> None:
        start = dict(zip(sizes, [0, *torch.tensor(list(sizes.values())).cumsum(0).tolist()], strict=False))
        self.places = {name: list(range(start[name], start[name] + size)) for name, size in sizes.items()}
        self.mean, self.covariance = mean, covariance
        self.known: dict[tuple[str, ...], tuple[Tensor, Tensor]] = {}

    def regression(self, target: str, *given: str) -> tuple[Tensor, Tensor]:
        """The matrices (K, t, o) by which a block depends on others, and the Cholesky factor (K, t, t) of the rest."""
        key = (target, *given)
        if key not in self.known:
            t, o = self.places[target], [place for name in given for place in self.places[name]]
            between = self.covariance[:, o][:, :, t]  # K, o, t
            gain = torch.linalg.solve(self.covariance[:, o][:, :, o], between).mT
            rest = torch.linalg.cholesky(self.covariance[:, t][:, :, t] - gain @ between)
            self.known[key] = gain, rest
        return self.known[key]

    def __call__(self, target: str, y: Tensor, **given: Tensor) -> Any:
        """The distribution of a block given y, one-hot (..., K), and other blocks (..., width)."""
        gain, tril = self.regression(target, *given)
        loc = y @ self.mean[:, self.places[target]]
        for name, block in zip(given, gain.split([len(self.places[name]) for name in given], -1), strict=True):
            rest = given[name] - y @ self.mean[:, self.places[name]]
            loc = loc + ((y @ block.flatten(1)).unflatten(-1, block.shape[1:]) @ rest[..., None])[..., 0]
        return dist.MultivariateNormal(loc, scale_tril=(y @ tril.flatten(1)).unflatten(-1, tril.shape[1:]))

    def log_prob(self, target: str, value: Tensor, **given: Tensor) -> Tensor:
        """log p(block | others, y) for every y: (N, K)."""
        classes = torch.eye(len(self.mean))
        given = {name: block[..., None, :] for name, block in given.items()}
        return self(target, classes, **given).log_prob(value[..., None, :])


def block_matrix(*rows: tuple[Tensor, ...]) -> Tensor:
    """The matrix, or the batch of them, made of these blocks."""
    return torch.cat([torch.cat(row, -1) for row in rows], -2)


def moved(normal: Any, shift: Tensor, stretch: Tensor) -> Any:
    """The Gaussian with its mean moved, and stretched along the columns of its Cholesky factor.

    With factors above √½ importance weights have a variance, whatever the covariance.
    """
    return dist.MultivariateNormal(normal.mean + shift, scale_tril=normal.scale_tril * stretch)


def quadrature(function: Callable[[Tensor], Tensor], normal: Any, nodes: int = 40) -> Tensor:
    """E f(v) under a Gaussian of one or two dimensions, by Gauss and Hermite: `function` takes (nodes, ..., dim)."""
    points, weights = (torch.tensor(n) for n in np.polynomial.hermite_e.hermegauss(nodes))
    dim = normal.event_shape[0]
    grid = torch.cartesian_prod(*(points for _ in range(dim))).view(-1, dim)
    weight = torch.cartesian_prod(*(weights / weights.sum() for _ in range(dim))).view(-1, dim).prod(-1)
    shape = (-1, *[1] * len(normal.batch_shape), dim)
    v = normal.mean + (normal.scale_tril @ grid.view(shape)[..., None])[..., 0]
    return torch.tensordot(weight, function(v), 1)


# Steps


class SteppedNormal(dist.TorchDistribution):
    """p(v) ∝ N(v; loc, scale²) w_r, where v lies in the r-th of the intervals between `edges`.

    Args:
        loc, scale: (...).
        weights: w, (..., R), at least zero.
        edges: (R - 1,), rising.
    """

    arg_constraints = {}  # noqa: RUF012
    support = constraints.real
    has_rsample = True  # without a gradient

    def __init__(self, loc: Tensor, scale: Tensor, weights: Tensor, edges: Tensor) -> None:
        shape = torch.broadcast_shapes(loc.shape, scale.shape, weights.shape[:-1])
        self.normal = torch.distributions.Normal(loc.expand(shape), scale.expand(shape))
        self.weights, self.edges = weights.expand(*shape, -1), edges
        super().__init__(shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "SteppedNormal":
        normal = self.normal.expand(batch_shape)
        return SteppedNormal(normal.loc, normal.scale, self.weights.expand(*batch_shape, -1), self.edges)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        limits = step_limits(self.normal, self.edges).expand(*self._extended_shape(sample_shape), -1)
        r = torch.distributions.Categorical(self.weights * limits.diff()).sample()[..., None]
        low, high = limits[..., :-1].gather(-1, r)[..., 0], limits[..., 1:].gather(-1, r)[..., 0]
        return self.normal.icdf(low + (high - low) * torch.rand_like(low))

    def log_prob(self, value: Tensor) -> Tensor:
        normaliser = (self.weights * step_limits(self.normal, self.edges).diff()).sum(-1)
        weight = (steps(value, self.edges) * self.weights).sum(-1)
        return self.normal.log_prob(value) + weight.log() - normaliser.log()


def steps(value: Tensor, edges: Tensor) -> Tensor:
    """Which interval each value lies in, one-hot (..., R)."""
    return torch.eye(len(edges) + 1)[torch.bucketize(value.contiguous(), edges)]


def step_limits(normal: Any, edges: Tensor) -> Tensor:
    """The distribution function at −∞, the edges, and ∞: (..., R + 1); its differences are the intervals' weights."""
    inner = torch.special.ndtr((edges - normal.mean[..., None]) / normal.stddev[..., None])
    return torch.cat([torch.zeros_like(inner[..., :1]), inner, torch.ones_like(inner[..., :1])], -1)


# Cells


class Cells(dist.TorchDistribution):
    """Uniform in each orthant of [−high, high]^L, which has probability `probs` (..., 2^L)."""

    arg_constraints = {}  # noqa: RUF012
    support = constraints.real_vector
    has_rsample = True  # without a gradient

    def __init__(self, probs: Tensor, high: float) -> None:
        self.probs, self.high = probs, high
        super().__init__(probs.shape[:-1], (probs.shape[-1].bit_length() - 1,), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Cells":
        return Cells(self.probs.expand(*batch_shape, -1), self.high)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        cell = torch.distributions.Categorical(self.probs).sample(sample_shape)
        return self.high * orthants(self.event_shape[0])[cell] * torch.rand(*cell.shape, *self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return (self.probs * cells(value)).sum(-1).log() - value.shape[-1] * math.log(self.high)


def orthants(dim: int) -> Tensor:
    """The signs of every orthant: (2^L, L)."""
    return 2 * torch.cartesian_prod(*(torch.arange(2.0) for _ in range(dim))).view(-1, dim) - 1


def cells(z: Tensor) -> Tensor:
    """Which orthant each z lies in, one-hot (..., 2^L)."""
    binary = 2 ** torch.arange(z.shape[-1] - 1, -1, -1)
    return torch.eye(2 ** z.shape[-1])[((z > 0) * binary).sum(-1)]


class ByFunctions(dist.TorchDistribution):
    """A distribution given x (..., D) by how it is drawn and by its log-density: `draw(x)`, `density(x, value)`."""

    arg_constraints = {}  # noqa: RUF012
    support = constraints.real_vector
    has_rsample = True  # without a gradient

    def __init__(self, x: Tensor, dim: int, draw: Callable[..., Tensor], density: Callable[..., Tensor]) -> None:
        self.x, self.draw, self.density = x, draw, density
        super().__init__(x.shape[:-1], (dim,), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "ByFunctions":
        return ByFunctions(self.x.expand(*batch_shape, -1), self.event_shape[0], self.draw, self.density)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            return self.draw(self.x.expand(*sample_shape, *self.x.shape))

    def log_prob(self, value: Tensor) -> Tensor:
        return self.density(self.x, value)
