"""CaGeM of "Semi-supervised generation with cluster-aware generative models" (Maaløe et al., 2017), arXiv:1704.00637.

    p(z2) = N(z2; 0, I)      p(y | z2) = Cat(y; π(z2))      p(z1 | y, z2) = N(z1; ·)      p(x | y, z1) = f(x; y, z1, θ)

Two stochastic layers with the class between them. With K = 1 it is the two-layer VAE that the paper compares with.

Shapes: x (N, D); y one-hot (N, K), or None where unlabelled; z1 (N, L1); z2 (N, L2).
Differs from the paper: every factor may be any conditional distribution. Its "2-layered networks with respectively 1024
and 512 units in each layer" are read as two layers of 1024 next to x and of 512 next to z2. It does not give the
networks of y: p(y | z2) has the layers next to z2 here, and q(y | z1, x) those next to x.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pyro
from torch import Tensor, nn

from ..contract import Conditional
from ..distributions import CategoricalNet, NormalNet, StandardNormal, likelihood_net


class CaGeM(nn.Module):
    """p(x, y, z1, z2) = p(z2) p(y | z2) p(z1 | y, z2) p(x | y, z1).

    Args:
        p_x: conditional p(x | y, z1), called as `p_x(y, z1)`.
        p_z1: conditional p(z1 | y, z2), called as `p_z1(y, z2)`.
        p_y: conditional p(y | z2), called as `p_y(z2)`.
        z2_dim: L2, the width of z2.
        y_dim: K, which labels are checked against; None where it is not known.
    """

    declared_settings = ("y_dim",)

    def __init__(
        self, *, p_x: Conditional, p_z1: Conditional, p_y: Conditional, z2_dim: int, y_dim: int | None = None
    ) -> None:
        super().__init__()
        self.p_x = p_x
        self.p_z1 = p_z1
        self.p_y = p_y
        self.p_z2 = StandardNormal(z2_dim)
        self.z2_dim, self.y_dim = z2_dim, y_dim

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Samples z2 and z1, and y where it is not given; observes x."""
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", self.p_z2())                                   # p(z2)
            y = pyro.sample("y", self.p_y(z2), obs=y)                             # p(y | z2)
            z1 = pyro.sample("z1", self.p_z1(y, z2))                              # p(z1 | y, z2)
            pyro.sample("x", self.p_x(y, z1), obs=x)                              # p(x | y, z1)

    @classmethod
    def build(
        cls,
        x_dim: int,
        y_dim: int,
        *,
        z1_dim: int = 64,
        z2_dim: int = 32,
        hidden: Sequence[int] = (1024, 1024),
        z2_hidden: Sequence[int] = (512, 512),
        likelihood: str | Callable[..., nn.Module] = "bernoulli",
        scale: float | None = None,
        **mlp: Any,
    ) -> "CaGeM":
        """The paper's networks: two hidden layers of 1024 units next to x, of 512 next to z2.

        Args:
            x_dim: D, the width of x.
            y_dim: K, the number of classes.
            z1_dim: L1, the width of z1.
            z2_dim: L2, the width of z2.
            hidden: widths of the hidden layers of p(x | y, z1).
            z2_hidden: widths of those of p(z1 | y, z2) and p(y | z2).
            likelihood: as in `likelihood_net`.
            scale: as in `likelihood_net`.
            mlp: keywords of `MLP` (`activation`, `batch_norm`).
        """
        return cls(
            p_x=likelihood_net(likelihood, (y_dim, z1_dim), x_dim, hidden=hidden, scale=scale, **mlp),
            p_z1=NormalNet((y_dim, z2_dim), z1_dim, hidden=z2_hidden, **mlp),
            p_y=CategoricalNet((z2_dim,), y_dim, hidden=z2_hidden, **mlp),
            z2_dim=z2_dim,
            y_dim=y_dim,
        )
