"""ADGM, the auxiliary deep generative model (Maaløe et al., 2015 and 2016), arXiv:1602.05473.

    p(y) = Cat(y; π)      p(z) = N(z; 0, I)      p(x | y, z) = f(x; y, z, θ)      p(a | x, y, z) = N(a; ·)

Integrating a out leaves M2: a only makes the inference network richer. In the form of the workshop paper, "Improving
semi-supervised learning with auxiliary deep generative models" (2015), p(a) = N(a; 0, I) whatever x, y and z are.

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


class ADGM(nn.Module):
    """p(x, y, z, a) = p(y) p(z) p(x | y, z) p(a | x, y, z).

    Args:
        p_x: conditional p(x | y, z), called as `p_x(y, z)`.
        p_a: conditional p(a | x, y, z), called as `p_a(x, y, z)`; `StandardNormal(a_dim)` in the workshop form.
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
            x = pyro.sample("x", self.p_x(y, z), obs=x)                           # p(x | y, z)
            pyro.sample("a", self.p_a(x, y, z))                                   # p(a | x, y, z)

    @classmethod
    def build(
        cls,
        x_dim: int,
        y_dim: int,
        *,
        z_dim: int = 100,
        a_dim: int = 100,
        workshop: bool = False,
        likelihood: str | Callable[..., nn.Module] = "bernoulli",
        scale: float | None = None,
        y_prior: Tensor | Sequence[float] | None = None,
        **mlp: Any,
    ) -> "ADGM":
        """The papers' parts, each network with two hidden layers.

        Args:
            x_dim: D, the width of x.
            y_dim: K, the number of classes.
            z_dim: L, the width of z.
            a_dim: A, the width of a.
            workshop: p(a) = N(0, I), as in the workshop paper.
            likelihood: as in `likelihood_net`.
            scale: as in `likelihood_net`.
            y_prior: π, K probabilities; None for a uniform prior.
            mlp: keywords of `MLP` (`hidden=(500, 500)`, …).
        """
        mlp = {"hidden": (500, 500), **mlp}
        p_x = likelihood_net(likelihood, (y_dim, z_dim), x_dim, scale=scale, **mlp)
        p_a = StandardNormal(a_dim) if workshop else NormalNet((x_dim, y_dim, z_dim), a_dim, **mlp)
        return cls(p_x=p_x, p_a=p_a, y_dim=y_dim, z_dim=z_dim, y_prior=y_prior)
