"""Conditional distributions: modules that are called with their conditions and return a Pyro distribution.

Every one has event dimension 1. The networks take `MLP`'s keywords (`hidden`, `activation`, `batch_norm`).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints, transforms
from torch import Tensor, nn
from torch.nn import functional

from ..checks import check_counts, check_positive
from .drawn import PushedForward
from .gaussian import DiagonalNormal, StandardGaussian
from .mlp import MLP

MIN_SCALE = 1e-4  # the least σ that a network gives, so that a constant column does not end in an infinite density
MAX_LOG_SCALE = 20.0  # σ beyond e²⁰ is of no use, and σ² would overflow for a row far away from all others
MAX_FACTOR = 1e6  # the most standard deviations σ that a column of a low-rank covariance adds to a unit


class GreyBernoulli(dist.Bernoulli):
    """log p(x) = Σ x log μ + (1 − x) log(1 − μ), for x in [0, 1] and not only in {0, 1}.

    For grey x this is the mean of the log-density over binarisations of x. Computed from logits.
    """

    support = constraints.unit_interval

    def expand(self, batch_shape: Any, _instance: Any = None) -> "GreyBernoulli":
        """The same distribution with batch shape `batch_shape`."""
        return super().expand(batch_shape, self._get_checked_instance(GreyBernoulli, _instance))

    def log_prob(self, value: Tensor) -> Tensor:
        """x·logit − log(1 + e^logit), in nats; a ValueError for x outside [0, 1] while validation is on."""
        if self._validate_args and not bool(((value >= 0) & (value <= 1)).all()):
            low, high = value.min().item(), value.max().item()
            raise ValueError(
                f"x must lie in [0, 1] under a Bernoulli likelihood, got values from {low:g} to {high:g}; "
                "rescale x, or choose likelihood='normal'"
            )
        # beyond the threshold log(1 + e^logit) rounds to the logit
        return value * self.logits - functional.softplus(self.logits, threshold=40.0)


class BernoulliNet(nn.Module):
    """p(x | c) = Bernoulli(x; logits = MLP(c)), for x in [0, 1]^dim."""

    def __init__(self, in_dims: Sequence[int | None], dim: int, **mlp: Any) -> None:
        super().__init__()
        self.mlp = MLP(in_dims, dim, **mlp)

    def forward(self, *conditions: Tensor | None) -> dist.TorchDistribution:
        """The distribution given the conditions."""
        return GreyBernoulli(logits=self.mlp(*conditions)).to_event(1)


def _scale(s: Tensor, least: float | Tensor = MIN_SCALE) -> Tensor:
    """σ = exp(min(s, 20)) + σ₀, between `least` = σ₀ and e²⁰ + σ₀ for any s."""
    return s.clamp(max=MAX_LOG_SCALE).exp() + least


class NormalNet(nn.Module):
    """p(z | c) = N(z; μ(c), diag σ²(c)), σ = exp(min(s(c), 20)) + σ₀, μ and s linear in the last hidden layer.

    σ₀ is 10⁻⁴, or for each unit what `bound_below` was given, so that σ lies between σ₀ and e²⁰ + σ₀, and no finite c
    ends in NaN. With `scale`, σ is fixed to it.

    The weights of s start at zero, so that σ starts at 1 + σ₀ everywhere. Random weights would give a few units a tiny
    σ. Two layers of latents have quadratic forms that divide by σ, and training would break in its first steps.
    """

    declared_settings = ("scale",)

    def __init__(self, in_dims: Sequence[int | None], dim: int, *, scale: float | None = None, **mlp: Any) -> None:
        super().__init__()
        if scale is not None:
            check_positive(scale=scale)
        self.scale = scale
        self.mlp = MLP(in_dims, dim if scale else 2 * dim, **mlp)
        if scale is None:
            nn.init.zeros_(self.mlp.last.weight.data[dim:])
        self.min_scale: Tensor | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Takes the state of a pickle, also of version 0.1, which knew no other σ₀ than 10⁻⁴."""
        super().__setstate__({"min_scale": None, **state})

    def bound_below(self, min_scale: Sequence[float]) -> None:
        """Gives each unit a σ₀ of its own. It is no weight: what loads the weights calls this, too."""
        del self.min_scale
        self.register_buffer("min_scale", torch.tensor(min_scale), persistent=False)

    def forward(self, *conditions: Tensor | None) -> dist.TorchDistribution:
        """The distribution given the conditions."""
        output = self.mlp(*conditions)
        if self.scale is not None:
            return DiagonalNormal(dist.Normal(output, torch.full_like(output, self.scale)), 1)
        loc, s = output.chunk(2, dim=-1)
        return DiagonalNormal(dist.Normal(loc, _scale(s, MIN_SCALE if self.min_scale is None else self.min_scale)), 1)


class LowRankNormalNet(nn.Module):
    """q(z | c) = N(z; μ(c), W(c) W(c)ᵀ + diag σ²(c)), W with `rank` columns: a Gaussian whose units are correlated.

    σ = exp(min(s(c), 20)) + 10⁻⁴, and μ, s and W are linear in the last hidden layer; the entries of W are at most
    10⁶ σ in size, so that the covariance has a Cholesky factor for any finite c.
    The weights of W start small but not at zero, because at W = 0 a bound has no gradient in W.
    """

    declared_settings = ("rank",)

    def __init__(self, in_dims: Sequence[int | None], dim: int, *, rank: int = 2, **mlp: Any) -> None:
        super().__init__()
        check_counts(rank=rank)
        self.dim, self.rank = dim, rank
        self.mlp = MLP(in_dims, (2 + rank) * dim, **mlp)
        nn.init.zeros_(self.mlp.last.weight.data[dim : 2 * dim])
        self.mlp.last.weight.data[2 * dim :] *= 0.1

    def forward(self, *conditions: Tensor | None) -> dist.TorchDistribution:
        """The distribution given the conditions."""
        loc, s, factor = self.mlp(*conditions).split([self.dim, self.dim, self.rank * self.dim], dim=-1)
        scale = _scale(s)
        most = MAX_FACTOR * scale.unsqueeze(-1)
        factor = factor.unflatten(-1, (self.dim, self.rank)).clamp(-most, most)
        return dist.LowRankMultivariateNormal(loc, factor, scale**2)


class BoundedNormalNet(nn.Module):
    """z = low + (high − low)·sigmoid(z̃) with z̃ ~ N(μ(c), diag σ²(c)): a Gaussian carried into a box.

    The logistic flow of "Inverting VAEs for Improved Generative Accuracy" (Gemp et al., 2017), eqs. (14)-(16).

    Args:
        in_dims: widths of the conditions c.
        dim: width of z.
        low: lower end of the box, for each unit.
        high: upper end.
        unbounded: makes the conditional of z̃, called as `NormalNet` is; it may be `FlowNet`, for example.
        mlp: keywords of `MLP`.
    """

    declared_settings = ("low", "high")

    def __init__(
        self,
        in_dims: Sequence[int | None],
        dim: int,
        low: float,
        high: float,
        *,
        unbounded: Callable[..., nn.Module] = NormalNet,
        **mlp: Any,
    ) -> None:
        super().__init__()
        _check_range(low, high)
        self.normal = unbounded(in_dims, dim, **mlp)
        self.low, self.high = low, high

    def forward(self, *conditions: Tensor | None) -> dist.TorchDistribution:
        """The distribution given the conditions."""
        squash = transforms.SigmoidTransform(cache_size=1)  # the caches let a draw be scored without an inverse
        place = transforms.AffineTransform(self.low, self.high - self.low, cache_size=1)
        z = self.normal(*conditions)
        if isinstance(z, dist.Independent):  # the units stay independent
            return dist.TransformedDistribution(z.base_dist, [squash, place]).to_event(1)
        return dist.TransformedDistribution(z, [squash, place])


class CategoricalNet(nn.Module):
    """p(y | c) = Cat(y; softmax(MLP(c))), y one-hot of length K = num_classes."""

    def __init__(self, in_dims: Sequence[int | None], num_classes: int, **mlp: Any) -> None:
        super().__init__()
        self.mlp = MLP(in_dims, num_classes, **mlp)

    def forward(self, *conditions: Tensor | None) -> dist.TorchDistribution:
        """The distribution given the conditions."""
        return dist.OneHotCategorical(logits=self.mlp(*conditions))


class StandardNormal(nn.Module):
    """N(0, I) in `dim` dimensions, whatever the conditions."""

    loc: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(dim), persistent=False)
        self.register_buffer("scale", torch.ones(dim), persistent=False)

    def forward(self, *conditions: Tensor | None) -> dist.TorchDistribution:
        """The distribution; conditions are ignored."""
        return StandardGaussian(dist.Normal(self.loc, self.scale), 1)


class ClosedUniform(dist.Uniform):
    """The uniform distribution on the closed interval, so that a draw that was rounded to `high` is inside."""

    def expand(self, batch_shape: Any, _instance: Any = None) -> "ClosedUniform":
        """The same distribution with batch shape `batch_shape`."""
        return super().expand(batch_shape, self._get_checked_instance(ClosedUniform, _instance))

    def log_prob(self, value: Tensor) -> Tensor:
        """−log(high − low) inside, −∞ outside, in nats."""
        inside = (value >= self.low) & (value <= self.high)
        return torch.where(inside, -(self.high - self.low).log(), -torch.inf)


class UniformBox(nn.Module):
    """The uniform distribution on [low, high]^dim, whatever the conditions."""

    declared_settings = ("low", "high")

    def __init__(self, dim: int, low: float, high: float) -> None:
        super().__init__()
        _check_range(low, high)
        self.register_buffer("low", torch.full((dim,), float(low)), persistent=False)
        self.register_buffer("high", torch.full((dim,), float(high)), persistent=False)

    def forward(self, *conditions: Tensor | None) -> dist.TorchDistribution:
        """The distribution; conditions are ignored."""
        return ClosedUniform(self.low, self.high).to_event(1)


def _check_range(low: float, high: float) -> None:
    if not low < high:
        raise ValueError(f"low must be below high, got {low!r} and {high!r}")


LIKELIHOODS: dict[str, Callable[..., nn.Module]] = {"bernoulli": BernoulliNet, "normal": NormalNet}


def likelihood_net(
    likelihood: str | Callable[..., nn.Module],
    in_dims: Sequence[int | None],
    dim: int,
    *,
    scale: float | None = None,
    **mlp: Any,
) -> nn.Module:
    """p(x | in_dims): the network that `likelihood` names in `LIKELIHOODS`, or a callable with the same arguments.

    Args:
        likelihood: "bernoulli" for x in [0, 1], "normal" for real x, or a callable like `BernoulliNet`.
        in_dims: widths of the conditions.
        dim: width of x.
        scale: fixed σ of a normal likelihood; None to learn it.
        mlp: keywords of `MLP`.

    Raises:
        ValueError: an unknown name.
    """
    settings = mlp if scale is None else {**mlp, "scale": scale}
    if callable(likelihood):
        return likelihood(in_dims, dim, **settings)
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"likelihood must be one of {', '.join(LIKELIHOODS)} or a callable, got {likelihood!r}")
    return LIKELIHOODS[likelihood](in_dims, dim, **settings)


def central_value(distribution: dist.TorchDistribution) -> Tensor:
    """The mean; for a transformed distribution, which has none in closed form, the image of its base's mean."""
    inner = distribution
    while isinstance(inner, dist.Independent):
        inner = inner.base_dist
    if not isinstance(inner, dist.TransformedDistribution):
        return distribution.mean
    value = central_value(inner.base_dist)
    if isinstance(inner, PushedForward):
        return inner.push(value)[0]
    for transform in inner.transforms:
        value = transform(value)
    return value


def most_probable(classifier: dist.OneHotCategorical) -> Tensor:
    """The most probable class, one-hot."""
    return functional.one_hot(classifier.probs.argmax(-1), classifier.event_shape[0]).to(classifier.probs)


def averaged(classifiers: dist.OneHotCategorical) -> dist.OneHotCategorical:
    """The mean of the S distributions along the first dimension: batch shape (S, N) to (N,), in logarithms."""
    log_mean = torch.logsumexp(classifiers.logits, 0) - math.log(len(classifiers.logits))
    return dist.OneHotCategorical(logits=log_mean)


def class_probabilities(prior: Tensor | Sequence[float] | None, num_classes: int) -> Tensor:
    """π as a tensor of K = `num_classes` probabilities, uniform where `prior` is None.

    Raises:
        ValueError: not K non-negative numbers that sum to one.
    """
    if prior is None:
        return torch.full((num_classes,), 1.0 / num_classes)
    probabilities = torch.as_tensor(prior, dtype=torch.get_default_dtype())
    sums_to_one = (probabilities.sum() - 1).abs() <= 1e-5  # false for NaN
    if probabilities.shape != (num_classes,) or (probabilities < 0).any() or not sums_to_one:
        raise ValueError(f"y_prior must be {num_classes} probabilities that sum to one, got {probabilities.tolist()}")
    return probabilities
