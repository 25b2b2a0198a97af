"""The inference network of CaGeM (Maaløe et al., 2017), arXiv:1704.00637.

    q(z1 | x) = N(z1; ·)      q(y | z1, x) = Cat(y; ·)      q(z2 | x, y, z1) = N(z2; ·)

Shapes: x (N, D); y one-hot (N, K), or None where unlabelled; z1 (N, L1); z2 (N, L2).
Differs from the paper: the factors may be any conditional distributions. The widths are read as in the model's file.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pyro
from pyro.distributions import OneHotCategorical
from torch import Tensor, nn

from ..checks import check_choice
from ..contract import Conditional
from ..distributions import CategoricalNet, NormalNet, averaged, central_value, most_probable


class CaGeMGuide(nn.Module):
    """q(z1, y, z2 | x) = q(z1 | x) q(y | z1, x) q(z2 | x, y, z1), with y summed out where it is unknown.

    Args:
        q_z1: conditional q(z1 | x), called as `q_z1(x)`.
        q_y: conditional q(y | z1, x), called as `q_y(z1, x)`.
        q_z2: conditional q(z2 | x, y, z1), called as `q_z2(x, y, z1)`.
    """

    latents = ("z2", "z1")

    def __init__(self, *, q_z1: Conditional, q_y: Conditional, q_z2: Conditional) -> None:
        super().__init__()
        self.q_z1 = q_z1
        self.q_y = q_y
        self.q_z2 = q_z2

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Samples z1, enumerates y where it is not given, and samples z2 for each y."""
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", self.q_z1(x))                                        # q(z1 | x)
            if y is None:
                y = pyro.sample("y", self.q_y(z1, x), infer={"enumerate": "parallel"})  # q(y | z1, x)
            pyro.sample("z2", self.q_z2(x, y, z1))                                      # q(z2 | x, y, z1)

    def classify(self, x: Tensor, num_samples: int = 1) -> OneHotCategorical:
        """q(y | x) with batch shape (N,): the mean of q(y | z1, x) over `num_samples` draws of z1.

        The paper reports p(y | x), which is `semipyro.inference.cascade`.
        """
        z1 = self.q_z1(x).rsample((num_samples,))                                       # S, N, L1
        return averaged(self.q_y(z1, x).expand((num_samples, len(x))))

    def encode(self, x: Tensor, site: str | None = None) -> Tensor:
        """The mean of q(z2 | x, y, z1), (N, L2), at the mean of q(z1 | x) and the most probable y.

        For the site "z1" it is the mean of q(z1 | x), (N, L1).

        Raises:
            ValueError: a site other than "z2" and "z1".
        """
        if site is not None:
            check_choice(self.latents, site=site)
        z1 = central_value(self.q_z1(x))
        return z1 if site == "z1" else central_value(self.q_z2(x, most_probable(self.q_y(z1, x)), z1))

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
        posterior: Callable[..., nn.Module] = NormalNet,
        **mlp: Any,
    ) -> "CaGeMGuide":
        """The paper's networks: two hidden layers of 1024 units next to x, of 512 next to z2.

        Args:
            x_dim: D, the width of x.
            y_dim: K, the number of classes.
            z1_dim: L1, the width of z1.
            z2_dim: L2, the width of z2.
            hidden: widths of the hidden layers of q(z1 | x) and q(y | z1, x).
            z2_hidden: widths of those of q(z2 | x, y, z1).
            posterior: makes q(z1 | x) and q(z2 | ·), called as `NormalNet` is, such as `partial(FlowNet, flow="iaf")`.
            mlp: keywords of `MLP` (`activation`, `batch_norm`).
        """
        return cls(
            q_z1=posterior((x_dim,), z1_dim, hidden=hidden, **mlp),
            q_y=CategoricalNet((z1_dim, x_dim), y_dim, hidden=hidden, **mlp),
            q_z2=posterior((x_dim, y_dim, z1_dim), z2_dim, hidden=z2_hidden, **mlp),
        )
