"""The simplified model of "Towards deeper understanding of semi-supervised learning with variational autoencoders".

    p(z) = N(z; 0, I)      p(y | z) = Cat(y; π(z))      p(x | z) = f(x; z, θ)

x and y are independent given z: a VAE whose latents are classified while it learns. (K. Jurasiński, MSc thesis, TU
Delft, 2019, section 4.1.) Its special case of Appendix C, close to M2, is this model with a p(y | z) that reads only
a part z_y of z, under a guide with q(z | x) = q(z_y | x) q(z_u | z_y, x): eq. (7).

Shapes: x (N, D); y one-hot (N, K), or None where unlabelled; z (N, L).
Differs from the thesis: f may be any conditional distribution, the scale of a Gaussian f is learnt unless given.
"""

from collections.abc import Callable
from typing import Any

import pyro
from torch import Tensor, nn

from ..contract import Conditional
from ..distributions import CategoricalNet, OfFirst, StandardNormal, likelihood_net


class SimplifiedLatentClassifier(nn.Module):
    """p(x, y, z) = p(z) p(y | z) p(x | z).

    Args:
        p_x: conditional p(x | z), called as `p_x(z)`.
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
            pyro.sample("y", self.p_y(z), obs=y, infer={"enumerate": "parallel"})         # p(y | z)
            pyro.sample("x", self.p_x(z), obs=x)                                          # p(x | z)

    @classmethod
    def build(
        cls,
        x_dim: int,
        y_dim: int,
        *,
        z_dim: int = 50,
        zy_dim: int | None = None,
        likelihood: str | Callable[..., nn.Module] = "normal",
        scale: float | None = None,
        **mlp: Any,
    ) -> "SimplifiedLatentClassifier":
        """The thesis' networks: one hidden layer of 500 units each.

        Args:
            x_dim: D, the width of x.
            y_dim: K, the number of classes.
            z_dim: L, the width of z.
            zy_dim: how many coordinates of z, the first ones, p(y | z) reads (Appendix C); None for all.
            likelihood: as in `likelihood_net`.
            scale: as in `likelihood_net`.
            mlp: keywords of `MLP` (`hidden=(500,)`, …).

        Raises:
            ValueError: `zy_dim` is not from 1 to `z_dim` - 1.
        """
        if zy_dim is not None and not 1 <= zy_dim < z_dim:
            raise ValueError(f"zy_dim must be from 1 to z_dim - 1 = {z_dim - 1}, or None, got {zy_dim!r}")
        p_x = likelihood_net(likelihood, (z_dim,), x_dim, scale=scale, **mlp)
        p_y = CategoricalNet((zy_dim or z_dim,), y_dim, **mlp)
        return cls(p_x=p_x, p_y=p_y if zy_dim is None else OfFirst(p_y, zy_dim), z_dim=z_dim, y_dim=y_dim)
