"""The variational autoencoder of "Auto-encoding variational Bayes" (Kingma and Welling, 2013), arXiv:1312.6114.

    p(z) = N(z; 0, I)      p(x | z) = f(x; z, θ)

It is M1 of "Semi-supervised learning with deep generative models" (Kingma et al., 2014), arXiv:1406.5298, eq. (1),
whose latents are the features on which a classifier is trained.

Shapes: x (N, D); z (N, L).
Differs from the paper: f may be any conditional distribution.
"""

from collections.abc import Callable
from typing import Any

import pyro
from torch import Tensor, nn

from ..contract import Conditional
from ..distributions import StandardNormal, likelihood_net


class VAE(nn.Module):
    """p(x, z) = p(z) p(x | z).

    Args:
        p_x: conditional p(x | z), called as `p_x(z)`.
        z_dim: L, the width of z.
        p_z: prior of z; None for a standard normal.
    """

    def __init__(self, *, p_x: Conditional, z_dim: int, p_z: Conditional | None = None) -> None:
        super().__init__()
        self.p_x = p_x
        self.p_z = p_z if p_z is not None else StandardNormal(z_dim)
        self.z_dim = z_dim

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Samples z and observes x; this model has no y."""
        if y is not None:
            raise ValueError("y must be None, since the VAE has no label, got one; call it with x alone")
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.p_z())                                      # p(z)
            pyro.sample("x", self.p_x(z), obs=x)                                  # p(x | z)

    @classmethod
    def build(
        cls, x_dim: int, *, z_dim: int = 50, likelihood: str | Callable[..., nn.Module] = "bernoulli", **mlp: Any
    ) -> "VAE":
        """The paper's networks: one hidden layer between z and x.

        Args:
            x_dim: D, the width of x.
            z_dim: L, the width of z.
            likelihood: as in `likelihood_net`.
            mlp: keywords of `MLP` (`hidden=(500,)`, …), and of the likelihood (`scale` for "normal").
        """
        return cls(p_x=likelihood_net(likelihood, (z_dim,), x_dim, **mlp), z_dim=z_dim)
