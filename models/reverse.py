"""The reverse process of "Inverting VAEs for Improved Generative Accuracy" (Gemp et al., 2017), "untapped".

    q(x) = Bern(x; 0.5)      q(y | x) = Cat(y; ·)      q(z | x, y)                                 eq. (2)

M2's inference network read as a generative process: its data are labels y and styles z without images, and the image x
is its latent variable. It shares its conditionals with M2's guide, and its own guide shares M2's decoder.

Shapes: y one-hot (N, K); z (N, L); x (N, D) binary.
"""

import pyro
import torch
from pyro.distributions import Bernoulli
from torch import Tensor, nn

from ..contract import Conditional


class Reverse(nn.Module):
    """q(x, y, z) = Bern(x; 0.5) q(y | x) q(z | x, y).

    Args:
        q_y: conditional q(y | x), called as `q_y(x)`.
        q_z: conditional q(z | x, y), called as `q_z(x, y)`.
        x_dim: D, the width of x.
    """

    logits: Tensor

    def __init__(self, *, q_y: Conditional, q_z: Conditional, x_dim: int) -> None:
        super().__init__()
        self.q_y = q_y
        self.q_z = q_z
        self.register_buffer("logits", torch.zeros(x_dim), persistent=False)

    def forward(self, y: Tensor, z: Tensor) -> None:
        """Samples x; observes y and z."""
        with pyro.plate("data", len(y)):
            x = pyro.sample("x", Bernoulli(logits=self.logits).to_event(1))       # q(x)
            pyro.sample("y", self.q_y(x), obs=y)                                  # q(y | x)
            pyro.sample("z", self.q_z(x, y), obs=z)                               # q(z | x, y)
