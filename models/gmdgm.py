"""GM-DGM of "Semi-unsupervised learning with deep generative models" (Willetts et al., 2019), arXiv:1901.08560.

    p(y) = Cat(y; π)      p(z | y) = N(z; μ(y), diag σ²(y))      p(x | z) = f(x; z, θ)

A Gaussian mixture in the latent space: x depends on y only through z. Where K is above the number of labelled classes,
the components without labels can find the other classes; without any label, all components have to find theirs.

Shapes: x (N, D); y one-hot (N, K), or None where unlabelled; z (N, L).
Differs from the paper: every factor may be any conditional distribution.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pyro
from pyro.distributions import OneHotCategorical
from torch import Tensor, nn

from ..contract import Conditional
from ..distributions import NormalNet, class_probabilities, likelihood_net


class GMDGM(nn.Module):
    """p(x, y, z) = p(y) p(z | y) p(x | z).

    Args:
        p_x: conditional p(x | z), called as `p_x(z)`.
        p_z: conditional p(z | y), called as `p_z(y)`.
        y_dim: K, the number of components.
        y_prior: π, K probabilities; None for a uniform prior.

    Raises:
        ValueError: `y_prior` is not K probabilities that sum to one.
    """

    declared_settings = ("y_dim", "y_prior")
    y_prior: Tensor

    def __init__(
        self, *, p_x: Conditional, p_z: Conditional, y_dim: int, y_prior: Tensor | Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.p_x = p_x
        self.p_z = p_z
        self.y_dim = y_dim
        self.register_buffer("y_prior", class_probabilities(y_prior, y_dim))

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Samples z, and y where it is not given; observes x."""
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", OneHotCategorical(self.y_prior), obs=y)          # p(y)
            z = pyro.sample("z", self.p_z(y))                                     # p(z | y)
            pyro.sample("x", self.p_x(z), obs=x)                                  # p(x | z)

    @classmethod
    def build(
        cls,
        x_dim: int,
        y_dim: int,
        *,
        z_dim: int = 200,
        likelihood: str | Callable[..., nn.Module] = "bernoulli",
        scale: float | None = None,
        y_prior: Tensor | Sequence[float] | None = None,
        **mlp: Any,
    ) -> "GMDGM":
        """The paper's parts, each network with two hidden layers.

        Args:
            x_dim: D, the width of x.
            y_dim: K, the number of classes.
            z_dim: L, the width of z.
            likelihood: as in `likelihood_net`.
            scale: as in `likelihood_net`.
            y_prior: π, K probabilities; None for a uniform prior.
            mlp: keywords of `MLP` (`hidden=(500, 500)`, …).
        """
        mlp = {"hidden": (500, 500), **mlp}
        p_x = likelihood_net(likelihood, (z_dim,), x_dim, scale=scale, **mlp)
        p_z = NormalNet((y_dim,), z_dim, hidden=())                               # a mean and a scale for each y
        return cls(p_x=p_x, p_z=p_z, y_dim=y_dim, y_prior=y_prior)
