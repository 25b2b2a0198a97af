"""Diagonal Gaussians whose log-density reads μ and σ once, in the place of PyTorch's sum over elements.

    log N(z; μ, diag σ²) = −½ Σ_i ((z_i − μ_i) / σ_i)² − Σ_i log σ_i − (L / 2) log 2π

Shapes: z, μ and σ (..., L); log-densities (...), in nats.
"""

import math

import pyro.distributions as dist
from torch import Tensor

HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


class DiagonalNormal(dist.Independent):
    """N(z; μ, diag σ²), made as `DiagonalNormal(Normal(μ, σ), 1)`: Pyro's `Normal(μ, σ).to_event(1)` in all else."""

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density, in nats; a ValueError for NaN while validation is on."""
        normal = self.base_dist
        if normal._validate_args:
            normal._validate_sample(value)
        u = (value - normal.loc) / normal.scale
        return -0.5 * (u * u).sum(-1) - normal.scale.log().sum(-1) - HALF_LOG_2_PI * self.event_shape[0]


class StandardGaussian(DiagonalNormal):
    """N(z; 0, I), made as `StandardGaussian(Normal(0, 1), 1)` of a 0 and a 1 for each unit."""

    def log_prob(self, value: Tensor) -> Tensor:
        """−½ Σ z_i² − (L / 2) log 2π, in nats; a ValueError for NaN while validation is on."""
        if self.base_dist._validate_args:
            self.base_dist._validate_sample(value)
        return -0.5 * (value * value).sum(-1) - HALF_LOG_2_PI * self.event_shape[0]
