"""Conditionals made of other conditionals: given a part of a vector, given features as well, or in two blocks."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .conditionals import NormalNet, central_value
from .drawn import ScoredAsDrawn


class OfFirst(nn.Module):
    """p(y | z_1, …, z_dim): the conditional `net` of the first `dim` coordinates of its only condition."""

    declared_settings = ("dim",)

    def __init__(self, net: nn.Module, dim: int) -> None:
        super().__init__()
        self.net = net
        self.dim = dim

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """The distribution given z (..., L)."""
        return self.net(z[..., : self.dim])


class WithFeatures(nn.Module):
    """p(y | f(x), x): the conditional `net` given x and features f(x) of it.

    Args:
        features: f, a perceptron, called as `features(x)`.
        net: conditional, called as `net(features(x), x)`.
    """

    def __init__(self, features: nn.Module, net: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.net = net

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """The distribution given x (..., D)."""
        return self.net(self.features(x), x)


class Blocks(ScoredAsDrawn, dist.TorchDistribution):
    """q(z) = q(u) q(v | u) for z = [u, v]: a distribution and, given its value, another.

    Args:
        first: q(u), of event dimension 1.
        second: u → q(v | u), of event dimension 1.
        second_dim: width of v.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = dist.constraints.real_vector

    def __init__(
        self, first: dist.TorchDistribution, second: Callable[[Tensor], dist.TorchDistribution], second_dim: int
    ) -> None:
        self.first = first
        self.second = second
        self.second_dim = second_dim
        super().__init__(first.batch_shape, torch.Size([first.event_shape[0] + second_dim]), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Blocks":
        """The same distribution with batch shape `batch_shape`."""
        return Blocks(self.first.expand(batch_shape), self.second, self.second_dim)

    def draw(self, sample_shape: torch.Size) -> tuple[Tensor, Tensor]:
        """u, then v given u: (..., U + V), and log q(u) + log q(v | u)."""
        u = self.first.rsample(sample_shape)
        given_u = self.second(u).expand(u.shape[:-1])
        v = given_u.rsample()
        return torch.cat([u, v], -1), self.first.log_prob(u) + given_u.log_prob(v)

    def score(self, value: Tensor) -> Tensor:
        """log q(u) + log q(v | u), in nats."""
        u, v = value.split([self.first.event_shape[0], self.second_dim], -1)
        return self.first.log_prob(u) + self.second(u).log_prob(v)

    @property
    def mean(self) -> Tensor:
        """The mean of u, and the mean of v where u is its mean."""
        u = central_value(self.first)
        return torch.cat([u, central_value(self.second(u)).expand(*u.shape[:-1], -1)], -1)


class BlockNormalNet(nn.Module):
    """q(z | c) = N(u; ·(c)) N(v; ·(u, c)) for z = [u, v]: two diagonal Gaussians, the second given the first.

    Args:
        in_dims: widths of the conditions c.
        dims: widths of u and of v.
        block: makes each conditional, called as `NormalNet` is; it may be `LowRankNormalNet` or `FlowNet`, for example.
        mlp: keywords of `MLP`.
    """

    def __init__(
        self,
        in_dims: Sequence[int | None],
        dims: tuple[int, int],
        *,
        block: Callable[..., nn.Module] = NormalNet,
        **mlp: Any,
    ) -> None:
        super().__init__()
        self.dims = dims
        self.first = block(in_dims, dims[0], **mlp)
        self.second = block((dims[0], *in_dims), dims[1], **mlp)

    def forward(self, *conditions: Tensor | None) -> dist.TorchDistribution:
        """The distribution given the conditions."""
        return Blocks(self.first(*conditions), lambda u: self.second(u, *conditions), self.dims[1])
