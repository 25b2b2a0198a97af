"""The features that M2 learns from in M1+M2: draws of M1's Gaussians q(z | x), new ones in each batch.

"Semi-supervised learning with deep generative models" (Kingma et al., 2014), arXiv:1406.5298, and its authors' code.
"""

import torch
from torch import Tensor

from ... import contract
from ...modules import module_tensor
from ..objectives import Objective
from .measures import ROWS


@torch.no_grad()
def features(m1: Objective, x: Tensor) -> Tensor:
    """Means and standard deviations of q(z | x), side by side, (N, 2 L), in single precision.

    Args:
        m1: a trained M1, whose guide has `q_z(x)`.
        x: (N, D).

    Raises:
        ValueError: the guide has no q_z, or q(z | x) is a flow, which has no mean and standard deviation in closed
            form.
    """
    contract.check_factors({"q_z(x)": m1.guide}, "features")
    q_z = [m1.guide.q_z(part) for part in x.to(module_tensor(m1)).split(ROWS)]
    try:
        return torch.cat([torch.cat([q.mean, q.stddev], 1) for q in q_z]).float().cpu()
    except NotImplementedError as error:  # PyTorch raises it where a mean has no closed form
        raise ValueError(
            "M1's q(z | x) is a flow, and features are its means and standard deviations; train M1 without a flow"
        ) from error


def draw_features(rows: Tensor) -> Tensor:
    """Draws of the Gaussians whose means and standard deviations stand side by side in the rows, (N, L)."""
    mean, scale = rows.chunk(2, dim=1)
    return mean + scale * torch.randn_like(mean)
