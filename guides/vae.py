"""The recognition network of the variational autoencoder (Kingma and Welling, 2013), arXiv:1312.6114.

    q(z | x) = N(z; μ(x, φ), diag σ²(x, φ))

Shapes: x (N, D); z (N, L).
Differs from the paper: q(z | x) may be any conditional distribution.
"""

from collections.abc import Callable
from typing import Any

import pyro
from torch import Tensor, nn

from ..checks import check_choice
from ..contract import Conditional
from ..distributions import NormalNet, central_value


class VAEGuide(nn.Module):
    """q(z | x).

    Args:
        q_z: conditional q(z | x), called as `q_z(x)`.
    """

    latents = ("z",)

    def __init__(self, *, q_z: Conditional) -> None:
        super().__init__()
        self.q_z = q_z

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Samples z; y is not read."""
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.q_z(x))                                         # q(z | x)

    def encode(self, x: Tensor, site: str | None = None) -> Tensor:
        """The mean of q(z | x), (N, L): the features of M1.

        Raises:
            ValueError: a site other than "z".
        """
        if site is not None:
            check_choice(self.latents, site=site)
        return central_value(self.q_z(x))

    @classmethod
    def build(
        cls, x_dim: int, *, z_dim: int = 50, posterior: Callable[..., nn.Module] = NormalNet, **mlp: Any
    ) -> "VAEGuide":
        """The paper's network: one hidden layer between x and z.

        Args:
            x_dim: D, the width of x.
            z_dim: L, the width of z.
            posterior: makes q(z | x), called as `NormalNet` is, such as `partial(FlowNet, flow="planar")`.
            mlp: keywords of `MLP` (`hidden=(500,)`, …).
        """
        return cls(q_z=posterior((x_dim,), z_dim, **mlp))
