"""The inference network of the reverse process (Gemp et al., 2017): M2's decoder, p(x | y, z).

Shapes: y one-hot (N, K); z (N, L); x (N, D).
"""

import pyro
from torch import Tensor, nn

from ..contract import Conditional


class ReverseGuide(nn.Module):
    """p(x | y, z), the forward model's own.

    Args:
        p_x: conditional p(x | y, z), called as `p_x(y, z)`.
    """

    def __init__(self, *, p_x: Conditional) -> None:
        super().__init__()
        self.p_x = p_x

    def forward(self, y: Tensor, z: Tensor) -> None:
        """Samples x."""
        with pyro.plate("data", len(y)):
            pyro.sample("x", self.p_x(y, z))                                      # p(x | y, z)
