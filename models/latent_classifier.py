"""The model of "Towards deeper understanding of semi-supervised learning with variational autoencoders".

    p(z) = N(z; 0, I)      p(y | z) = Cat(y; π(z))      p(x | y, z) = f(x; y, z, θ)

The classifier reads the latent space: no part of it is set apart for the class. (K. Jurasiński, MSc thesis, TU Delft,
2019, section 4.1, propositions 1 and 2.)

Where y is unknown, its site is marked to be summed out. Under a guide without the site y, the model sums it inside the
logarithm: log p(x | z) = log Σ_y p(y | z) p(x | y, z).

Shapes: x (N, D); y one-hot (N, K), or None where unlabelled; z (N, L).
Differs from the thesis: f may be any conditional distribution, the scale of a Gaussian f is learnt unless given.
"""

from collections.abc import Callable
from typing import Any

import pyro
from torch import Tensor, nn

from ..contract import Conditional
from ..distributions import CategoricalNet, StandardNormal, likelihood_net


class LatentClassifier(nn.Module):
    """p(x, y, z) = p(z) p(y | z) p(x | y, z).

    Args:
        p_x: conditional p(x | y, z), called as `p_x(y, z)`.
        p_y: conditional p(y | z), called as `p_y(z)`: the classifier.
        z_dim: L, the width of z.
        y_dim: K, which labels are checked against; None where it is not known.
    """

    declared_settings = ("y_dim",)

    def __init__(self, *, p_x: Conditional, p_y: Conditional, z_dim: int, y_dim: int | None = None) -> None:
        super().__init__()
        self.p_x = p_x
        self.p_y = p_y
        self.p_z = StandardNormal(z_dim)
        self.z_dim, self.y_dim = z_dim, y_dim

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Samples z, and y where it is not given; observes x."""
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.p_z())                                              # p(z)
            y = pyro.sample("y", self.p_y(z), obs=y, infer={"enumerate": "parallel"})     # p(y | z)
            pyro.sample("x", self.p_x(y, z), obs=x)                                       # p(x | y, z)

    @classmethod
    def build(
        cls,
        x_dim: int,
        y_dim: int,
        *,
        z_dim: int = 50,
        likelihood: str | Callable[..., nn.Module] = "normal",
        scale: float | None = None,
        **mlp: Any,
    ) -> "LatentClassifier":
        """The thesis' networks: one hidden layer of 500 units each.

        Args:
            x_dim: D, the width of x.
            y_dim: K, the number of classes.
            z_dim: L, the width of z.
            likelihood: as in `likelihood_net`.
            scale: as in `likelihood_net`.
            mlp: keywords of `MLP` (`hidden=(500,)`, …).
        """
        p_x = likelihood_net(likelihood, (y_dim, z_dim), x_dim, scale=scale, **mlp)
        return cls(p_x=p_x, p_y=CategoricalNet((z_dim,), y_dim, **mlp), z_dim=z_dim, y_dim=y_dim)
