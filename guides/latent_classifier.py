"""The inference network of the thesis' two models (K. Jurasiński, MSc thesis, TU Delft, 2019, section 4.1).

    q(z | x) = N(z; ·), and where y is unknown p(y | z), the model's own classifier

With it the bound of an unlabelled row is the thesis' U = E_q(z|x) [Σ_y p(y | z) log p(x | y, z)] − KL(q(z | x) ‖ p(z)).
`tight=True` leaves y to the model, which sums it inside the logarithm: E_q(z|x) log Σ_y p(y | z) p(x | y, z) − KL ≥ U.

Shapes: x (N, D); y one-hot (N, K), or None where unlabelled; z (N, L).
Differs from the thesis: the tight bound; q(z | x) may be any conditional distribution.
"""

from collections.abc import Callable
from typing import Any

import pyro
from pyro.distributions import OneHotCategorical
from torch import Tensor, nn

from ..checks import check_choice
from ..contract import Conditional
from ..distributions import BlockNormalNet, NormalNet, averaged, central_value


class LatentClassifierGuide(nn.Module):
    """q(y, z | x) = q(z | x) p(y | z), or q(z | x) alone.

    Args:
        q_z: conditional q(z | x), called as `q_z(x)`.
        p_y: the model's conditional p(y | z), called as `p_y(z)`.
        tight: whether an unknown y is left to the model.
    """

    declared_settings = ("tight",)
    latents = ("z",)

    def __init__(self, *, q_z: Conditional, p_y: Conditional, tight: bool = False) -> None:
        super().__init__()
        self.q_z = q_z
        self.p_y = p_y
        self.tight = tight

    @property
    def leaves_y_to_model(self) -> bool:
        """Whether the model sums an unknown y inside the logarithm, which makes the bound the tight one."""
        return self.tight

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Samples z; enumerates y where it is not given, unless the bound is the tight one."""
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.q_z(x))                                     # q(z | x)
            if y is None and not self.tight:
                pyro.sample("y", self.p_y(z), infer={"enumerate": "parallel"})    # p(y | z)

    def classify(self, x: Tensor, num_samples: int = 1) -> OneHotCategorical:
        """E_q(z|x) p(y | z) with batch shape (N,): the mean over `num_samples` draws of z."""
        z = self.q_z(x).rsample((num_samples,))                                   # S, N, L
        return averaged(self.p_y(z).expand((num_samples, len(x))))

    def encode(self, x: Tensor, site: str | None = None) -> Tensor:
        """The mean of q(z | x), (N, L).

        Raises:
            ValueError: a site other than "z".
        """
        if site is not None:
            check_choice(self.latents, site=site)
        return central_value(self.q_z(x))

    @classmethod
    def build(
        cls,
        x_dim: int,
        p_y: Conditional,
        *,
        z_dim: int = 50,
        zy_dim: int | None = None,
        tight: bool = False,
        posterior: Callable[..., nn.Module] = NormalNet,
        **mlp: Any,
    ) -> "LatentClassifierGuide":
        """The thesis' network: one hidden layer between x and z.

        Args:
            x_dim: D, the width of x.
            p_y: the model's conditional p(y | z).
            z_dim: L, the width of z.
            zy_dim: width of z_y in q(z_y | x) q(z_u | z_y, x), z = [z_y, z_u] (Appendix C); None for one block.
            tight: whether an unknown y is left to the model.
            posterior: makes q(z | x), or its two blocks, called as `NormalNet` is, such as `LowRankNormalNet`.
            mlp: keywords of `MLP` (`hidden=(500,)`, …).
        """
        if zy_dim is None:
            return cls(q_z=posterior((x_dim,), z_dim, **mlp), p_y=p_y, tight=tight)
        return cls(q_z=BlockNormalNet((x_dim,), (zy_dim, z_dim - zy_dim), block=posterior, **mlp), p_y=p_y, tight=tight)
