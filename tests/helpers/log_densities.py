"""Log-densities written out in PyTorch, from which tests write a paper's bound by hand.

They read only the parameters of a distribution, never its `log_prob`: what is compared with them shares no code.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.conditionals import FixedDraw


def log_normal(z: Tensor, mean: Tensor | float, scale: Tensor | float) -> Tensor:
    """log N(z; mean, scale²), summed over dimensions."""
    scale = torch.as_tensor(scale)
    return (-(((z - mean) / scale) ** 2) / 2 - scale.log() - math.log(2 * math.pi) / 2).sum(-1)


def log_standard(z: Tensor) -> Tensor:
    """log N(z; 0, I)."""
    return log_normal(z, 0.0, 1.0)


def log_bernoulli(x: Tensor, p: Any) -> Tensor:
    """x log μ + (1 − x) log(1 − μ), summed over dimensions."""
    logits = p.base_dist.logits
    return (x * F.logsigmoid(logits) + (1 - x) * F.logsigmoid(-logits)).sum(-1)


def log_gaussian(z: Tensor, p: Any) -> Tensor:
    """log N(z; μ, σ²) for the μ and σ of a conditional's Gaussian."""
    return log_normal(z, p.base_dist.loc, p.base_dist.scale)


def log_classes(p: Any) -> Tensor:
    """The logarithm of a conditional's class probabilities: (..., K)."""
    return p.logits - torch.logsumexp(p.logits, -1, keepdim=True)


def drawn(conditional: FixedDraw, s: int, *conditions: Tensor) -> tuple[Tensor, Tensor]:
    """Draw s of a Gaussian conditional, μ + σ ε_s, and its log-density."""
    normal = conditional.net(*conditions).base_dist
    z = normal.loc + normal.scale * conditional.noise.rows[s]
    return z, log_normal(z, normal.loc, normal.scale)


def each_class(K: int, n: int) -> list[Tensor]:
    """The classes as one-hot rows, one after the other: K of (n, K)."""
    return [torch.eye(K)[k].expand(n, K) for k in range(K)]
