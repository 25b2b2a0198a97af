"""SDGM, the skip deep generative model of "Auxiliary deep generative models" (Maaløe et al., 2016), arXiv:1602.05473.

    p(y) = Cat(y; π)      p(z) = N(z; 0, I)      p(a | y, z) = N(a; ·)      p(x | a, y, z) = f(x; a, y, z, θ)

Two stochastic layers, a and z, with skip connections from z and y to x.

Shapes: x (N, D); y one-hot (N, K), or None where unlabelled; z (N, L); a (N, A).
Differs from the paper: π is fixed; every factor may be any conditional distribution.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pyro
from pyro.distributions import OneHotCategorical
from torch import Tensor, nn

from ..contract import Conditional
from ..distributions import NormalNet, StandardNormal, class_probabilities, likelihood_net


class SDGM(nn.Module):
    """p(x, y, z, a) = p(y) p(z) p(a | y, z) p(x | a, y, z).

    Args:
        p_x: conditional p(x | a, y, z), called as `p_x(a, y, z)`.
        p_a: conditional p(a | y, z), called as `p_a(y, z)`.
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
        p_a: Conditional,
        y_dim: int,
        z_dim: int,
        y_prior: Tensor | Sequence[float] | None = None,
        p_z: Conditional | None = None,
    ) -> None:
        super().__init__()
        self.p_x = p_x
        self.p_a = p_a
        self.p_z = p_z if p_z is not None else StandardNormal(z_dim)
        self.y_dim, self.z_dim = y_dim, z_dim
        self.register_buffer("y_prior", class_probabilities(y_prior, y_dim))

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Samples z and a, and y where it is not given; observes x."""
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", OneHotCategorical(self.y_prior), obs=y)          # p(y)
            z = pyro.sample("z", self.p_z())                                      # p(z)
            a = pyro.sample("a", self.p_a(y, z))                                  # p(a | y, z)
            pyro.sample("x", self.p_x(a, y, z), obs=x)                            # p(x | a, y, z)

    @classmethod
    def build(
        cls,
        x_dim: int,
        y_dim: int,
        *,
        z_dim: int = 100,
        a_dim: int = 100,
        likelihood: str | Callable[..., nn.Module] = "bernoulli",
        scale: float | None = None,
        y_prior: Tensor | Sequence[float] | None = None,
        **mlp: Any,
    ) -> "SDGM":
        """The paper's parts, each network with two hidden layers.

        Args:
            x_dim: D, the width of x.
            y_dim: K, the number of classes.
            z_dim: L, the width of z.
            a_dim: A, the width of a.
            likelihood: as in `likelihood_net`.
            scale: as in `likelihood_net`.
            y_prior: π, K probabilities; None for a uniform prior.
            mlp: keywords of `MLP` (`hidden=(500, 500)`, …).
        """
        mlp = {"hidden": (500, 500), **mlp}
        p_x = likelihood_net(likelihood, (a_dim, y_dim, z_dim), x_dim, scale=scale, **mlp)
        p_a = NormalNet((y_dim, z_dim), a_dim, **mlp)
        return cls(p_x=p_x, p_a=p_a, y_dim=y_dim, z_dim=z_dim, y_prior=y_prior)
