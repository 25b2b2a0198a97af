"""M2 of "Semi-supervised learning with deep generative models" (Kingma et al., 2014), arXiv:1406.5298.

    p(y) = Cat(y; π)      p(z) = N(z; 0, I)      p(x | y, z) = f(x; y, z, θ)          eq. (2)

Shapes: x (N, D); y one-hot (N, K), or None where unlabelled; z (N, L).
Differs from the paper: π is fixed; p(z) and f may be any (conditional) distributions.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pyro
from pyro.distributions import OneHotCategorical
from torch import Tensor, nn

from ..contract import Conditional
from ..distributions import StandardNormal, class_probabilities, likelihood_net


class M2(nn.Module):
    """p(x, y, z) = p(y) p(z) p(x | y, z).

    Args:
        p_x: conditional p(x | y, z), called as `p_x(y, z)`.
        y_dim: K, the number of classes.
        z_dim: L, the width of z.
        y_prior: π, K probabilities; None for a uniform prior.
        p_z: prior of z; None for a standard normal.

    Raises:
        ValueError: `y_prior` is not K probabilities that sum to one.
    """

    declared_settings = ("y_dim", "y_prior")
    y_prior: Tensor

    def __init__(
        self,
        *,
        p_x: Conditional,
        y_dim: int,
        z_dim: int,
        y_prior: Tensor | Sequence[float] | None = None,
        p_z: Conditional | None = None,
    ) -> None:
        super().__init__()
        self.p_x = p_x
        self.p_z = p_z if p_z is not None else StandardNormal(z_dim)
        self.y_dim, self.z_dim = y_dim, z_dim
        self.register_buffer("y_prior", class_probabilities(y_prior, y_dim))

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Samples z, and y where it is not given; observes x."""
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", OneHotCategorical(self.y_prior), obs=y)          # p(y)
            z = pyro.sample("z", self.p_z())                                      # p(z)
            pyro.sample("x", self.p_x(y, z), obs=x)                               # p(x | y, z)

    @classmethod
    def build(
        cls,
        x_dim: int,
        y_dim: int,
        *,
        z_dim: int = 50,
        likelihood: str | Callable[..., nn.Module] = "bernoulli",
        y_prior: Tensor | Sequence[float] | None = None,
        **mlp: Any,
    ) -> "M2":
        """The paper's networks: one hidden layer between (y, z) and x.

        Args:
            x_dim: D, the width of x.
            y_dim: K, the number of classes.
            z_dim: L, the width of z.
            likelihood: as in `likelihood_net`.
            y_prior: π, K probabilities; None for a uniform prior.
            mlp: keywords of `MLP` (`hidden=(500,)`, …), and of the likelihood (`scale` for "normal").
        """
        p_x = likelihood_net(likelihood, (y_dim, z_dim), x_dim, **mlp)
        return cls(p_x=p_x, y_dim=y_dim, z_dim=z_dim, y_prior=y_prior)
