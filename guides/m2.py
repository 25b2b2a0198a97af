"""The inference network of M2 (Kingma et al., 2014), arXiv:1406.5298.

    q(y | x) = Cat(y; π(x, φ))      q(z | x, y) = N(z; μ(x, y, φ), diag σ²(x, φ))          eq. (4)

Shapes: x (N, D); y one-hot (N, K), or None where unlabelled; z (N, L).
Differs from the paper: σ reads y as well; q(z | x, y) may be any conditional distribution.
"""

from collections.abc import Callable
from typing import Any

import pyro
from pyro.distributions import OneHotCategorical
from torch import Tensor, nn

from ..checks import check_choice
from ..contract import Conditional
from ..distributions import CategoricalNet, NormalNet, central_value, most_probable


class M2Guide(nn.Module):
    """q(y, z | x) = q(y | x) q(z | x, y), with y summed out where it is unknown.

    Args:
        q_y: conditional q(y | x), called as `q_y(x)`: the classifier.
        q_z: conditional q(z | x, y), called as `q_z(x, y)`.
    """

    latents = ("z",)

    def __init__(self, *, q_y: Conditional, q_z: Conditional) -> None:
        super().__init__()
        self.q_y = q_y
        self.q_z = q_z

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Enumerates y where it is not given, and samples z for each y."""
        with pyro.plate("data", len(x)):
            if y is None:
                y = pyro.sample("y", self.q_y(x), infer={"enumerate": "parallel"})  # q(y | x)
            pyro.sample("z", self.q_z(x, y))                                        # q(z | x, y)

    def classify(self, x: Tensor, num_samples: int = 1) -> OneHotCategorical:
        """q(y | x) with batch shape (N,). No latent is drawn before y, so `num_samples` has no effect."""
        return self.q_y(x)

    def encode(self, x: Tensor, site: str | None = None) -> Tensor:
        """The mean of q(z | x, y) at the most probable y, (N, L).

        Raises:
            ValueError: a site other than "z".
        """
        if site is not None:
            check_choice(self.latents, site=site)
        return central_value(self.q_z(x, most_probable(self.classify(x))))

    @classmethod
    def build(
        cls, x_dim: int, y_dim: int, *, z_dim: int = 50, posterior: Callable[..., nn.Module] = NormalNet, **mlp: Any
    ) -> "M2Guide":
        """The paper's networks: one hidden layer each.

        Args:
            x_dim: D, the width of x.
            y_dim: K, the number of classes.
            z_dim: L, the width of z.
            posterior: makes q(z | x, y), called as `NormalNet` is, such as `partial(FlowNet, flow="planar")`.
            mlp: keywords of `MLP` (`hidden=(500,)`, …).
        """
        return cls(q_y=CategoricalNet((x_dim,), y_dim, **mlp), q_z=posterior((x_dim, y_dim), z_dim, **mlp))
