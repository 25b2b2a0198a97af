"""The inference network of ADGM, SDGM and AGM-DGM (Maaløe et al., 2015 and 2016), arXiv:1602.05473.

    q(a | x) = N(a; ·)      q(y | a, x) = Cat(y; ·)      q(z | a, y, x) = N(z; ·)

The classifier is q(y | x) = E_q(a|x) q(y | a, x), a mixture. In the workshop paper q(z | y, x) does not read a.

Shapes: x (N, D); y one-hot (N, K), or None where unlabelled; z (N, L); a (N, A).
Differs from the papers: the factors may be any conditional distributions.
"""

from collections.abc import Callable
from typing import Any

import pyro
from pyro.distributions import OneHotCategorical
from torch import Tensor, nn

from ..checks import check_choice
from ..contract import Conditional
from ..distributions import CategoricalNet, NormalNet, averaged, central_value, most_probable


class ADGMGuide(nn.Module):
    """q(a, y, z | x) = q(a | x) q(y | a, x) q(z | a, y, x), with y summed out where it is unknown.

    Args:
        q_a: conditional q(a | x), called as `q_a(x)`.
        q_y: conditional q(y | a, x), called as `q_y(a, x)`.
        q_z: conditional q(z | a, y, x), called as `q_z(a, y, x)`.
    """

    latents = ("z", "a")

    def __init__(self, *, q_a: Conditional, q_y: Conditional, q_z: Conditional) -> None:
        super().__init__()
        self.q_a = q_a
        self.q_y = q_y
        self.q_z = q_z

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Samples a, enumerates y where it is not given, and samples z for each y."""
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", self.q_a(x))                                          # q(a | x)
            if y is None:
                y = pyro.sample("y", self.q_y(a, x), infer={"enumerate": "parallel"})  # q(y | a, x)
            pyro.sample("z", self.q_z(a, y, x))                                        # q(z | a, y, x)

    def classify(self, x: Tensor, num_samples: int = 1) -> OneHotCategorical:
        """q(y | x) with batch shape (N,): the mean of q(y | a, x) over `num_samples` draws of a."""
        a = self.q_a(x).rsample((num_samples,))                                        # S, N, A
        return averaged(self.q_y(a, x).expand((num_samples, len(x))))

    def encode(self, x: Tensor, site: str | None = None) -> Tensor:
        """The mean of q(z | a, y, x), (N, L), at the mean of q(a | x) and the most probable y.

        For the site "a" it is the mean of q(a | x), (N, A).

        Raises:
            ValueError: a site other than "z" and "a".
        """
        if site is not None:
            check_choice(self.latents, site=site)
        a = central_value(self.q_a(x))
        return a if site == "a" else central_value(self.q_z(a, most_probable(self.q_y(a, x)), x))

    @classmethod
    def build(
        cls,
        x_dim: int,
        y_dim: int,
        *,
        z_dim: int = 100,
        a_dim: int = 100,
        workshop: bool = False,
        posterior: Callable[..., nn.Module] = NormalNet,
        **mlp: Any,
    ) -> "ADGMGuide":
        """The papers' networks: two hidden layers each.

        Args:
            x_dim: D, the width of x.
            y_dim: K, the number of classes.
            z_dim: L, the width of z.
            a_dim: A, the width of a.
            workshop: q(z | y, x) does not read a, as in the workshop paper.
            posterior: makes q(a | x) and q(z | ·), called as `NormalNet` is, such as `partial(FlowNet, flow="iaf")`.
            mlp: keywords of `MLP` (`hidden=(500, 500)`, …).
        """
        mlp = {"hidden": (500, 500), **mlp}
        return cls(
            q_a=posterior((x_dim,), a_dim, **mlp),
            q_y=CategoricalNet((a_dim, x_dim), y_dim, **mlp),
            q_z=posterior((None if workshop else a_dim, y_dim, x_dim), z_dim, **mlp),
        )
