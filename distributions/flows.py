"""Normalizing flows: a diagonal Gaussian carried through Pyro's transforms, f = f_T ∘ … ∘ f_1.

    z = f(u),  u ~ N(μ(c), diag σ²(c))          log q(z | c) = log N(u; ·) − Σ_t log |det ∂f_t|

"Variational inference with normalizing flows" (Rezende, Mohamed, 2015), arXiv:1505.05770. In an amortised flow the
parameters of f are functions of c; in any other flow, one f serves all conditions c.

Shapes: c (..., ·), whose batch shapes broadcast; u and z (..., L).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import TransformedDistribution, constraints, transforms
from pyro.nn import AutoRegressiveNN, ConditionalAutoRegressiveNN
from torch import Tensor, nn
from torch.distributions import Transform

from ..checks import check_counts
from .conditionals import NormalNet
from .drawn import PushedForward, ScoredAsDrawn
from .mlp import MLP


class Flow(ScoredAsDrawn, PushedForward, TransformedDistribution):
    """The distribution of f(u). It keeps the log-density of its last draw, as most transforms have no cheap inverse."""

    def draw(self, sample_shape: torch.Size) -> tuple[Tensor, Tensor]:
        """f(u) for a draw of u, and its log-density."""
        u = self.base_dist.rsample(sample_shape)
        z, log_det = self.push(u)
        return z, self.base_dist.log_prob(u) - log_det

    def push(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """f(u), (..., L), and log |det ∂f / ∂u|, (...)."""
        log_det = u.new_zeros(u.shape[:-1])
        for transform in self.transforms:
            z = transform(u)
            log_det = log_det + _log_det(transform, u, z)
            u = z
        _forget(self.transforms)
        return u, log_det

    def score(self, value: Tensor) -> Tensor:
        """log q of a value that is not the last draw, through the inverse of f.

        Raises:
            ValueError: a transform has no inverse.
        """
        value = value.expand(*torch.broadcast_shapes(value.shape[:-1], self.batch_shape), -1)
        log_det = value.new_zeros(value.shape[:-1])
        for transform in reversed(self.transforms):
            u = _inverse(transform, value)
            log_det = log_det + _log_det(transform, u, value)
            value = u
        _forget(self.transforms)
        return self.base_dist.log_prob(value) - log_det


def _log_det(transform: Transform, u: Tensor, z: Tensor) -> Tensor:
    log_det = transform.log_abs_det_jacobian(u, z)
    return log_det.sum(-1) if transform.domain.event_dim == 0 else log_det  # an elementwise transform


def _inverse(transform: Transform, value: Tensor) -> Tensor:
    try:
        return transform.inv(value)
    except (KeyError, NotImplementedError) as error:  # Pyro raises either
        raise ValueError(
            f"value must be the flow's last draw, since its {type(transform).__name__} has no inverse, got another; "
            "choose a flow that has one, such as 'iaf'"
        ) from error


def _forget(parts: Sequence[Transform]) -> None:
    """Empties the transforms' caches, which are wrong once parameters change and keep a network from being copied."""
    for transform in parts:
        for part in transform.modules() if isinstance(transform, nn.Module) else (transform,):
            for name in vars(part):
                if name.startswith("_cache") and name != "_cache_size":
                    vars(part)[name] = (None, None) if name == "_cached_x_y" else None


# Families of transforms. Each function takes L and C and makes a transform in L dimensions; a network computes the
# parameters of the transform from C features, or they are parameters of their own where C is None.


def _helper(
    unconditional: Callable[..., nn.Module], conditional: Callable[..., nn.Module] | None = None, **settings: Any
) -> Callable[[int, int | None], nn.Module]:
    """The family of two functions of Pyro: one makes a transform, the other its conditional form."""

    def build(dim: int, context_dim: int | None) -> nn.Module:
        if context_dim is None or conditional is None:
            return unconditional(dim, **settings)
        return conditional(dim, context_dim, **settings)

    return build


def _network(dim: int, context_dim: int | None, hidden: Sequence[int], params: Sequence[int]) -> nn.Module:
    """A network that computes each unit's parameters from the units before it.

    It keeps the order of the units, because `FlowNet` reverses it between two transforms.
    """
    order = torch.arange(dim)
    settings: dict[str, Any] = {"hidden_dims": list(hidden), "param_dims": list(params), "permutation": order}
    if context_dim is None:
        return AutoRegressiveNN(dim, **settings)
    return ConditionalAutoRegressiveNN(dim, context_dim, **settings)


def _iaf(dim: int, context_dim: int | None) -> nn.Module:
    network = _network(dim, context_dim, [10 * dim], [1, 1])
    kind = transforms.AffineAutoregressive if context_dim is None else transforms.ConditionalAffineAutoregressive
    return kind(network)


def _naf(dim: int, context_dim: int | None, units: int = 16) -> nn.Module:
    network = _network(dim, context_dim, [10 * dim], [units] * 3)
    kind = transforms.NeuralAutoregressive if context_dim is None else transforms.ConditionalNeuralAutoregressive
    return kind(network, hidden_units=units)


def _spline(dim: int, context_dim: int | None, bins: int = 8) -> nn.Module:
    network = _network(dim, context_dim, [10 * dim, 10 * dim], [bins, bins, bins - 1, bins])
    kind = transforms.SplineAutoregressive if context_dim is None else transforms.ConditionalSplineAutoregressive
    return kind(dim, network, count_bins=bins)


class Sylvester(transforms.Sylvester):
    """z = u + Q R tanh(S Qᵀ u + b), Q orthogonal, R and S upper triangular, with log |det| = Σ log(1 + h′_i R_ii S_ii).

    "Sylvester normalizing flows for variational inference" (van den Berg et al., 2018), arXiv:1803.05649, eqs. (8) and
    (14). Pyro 1.9 multiplies the matrices in another order, for which this determinant is wrong, and its bounds come
    out above the likelihood.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim, count_transforms=dim // 2 + 1)

    def Q(self, x: Tensor) -> Tensor:  # noqa: N802 # Pyro's name
        """The product of Householder reflections, (L, L)."""
        identity = torch.eye(self.input_dim, dtype=x.dtype, device=x.device)
        q = identity
        for u in self.u():
            q = q @ (identity - 2 * torch.outer(u, u))
        return q

    def _call(self, x: Tensor) -> Tensor:
        q, r, s = self.Q(x), self.R(), self.S()
        h = torch.tanh(x @ q @ s.T + self.b)  # vectors are rows
        self._cached_logDetJ = torch.log1p((1 - h**2) * r.diagonal() * s.diagonal()).sum(-1)
        return x + h @ (q @ r).T


@dataclass(frozen=True)
class Family:
    """A kind of transform.

    Attributes:
        build: (L, C) → a transform in L dimensions. It has parameters of its own where C is None; otherwise, where
            `amortised`, it is a conditional transform, whose parameters a network computes from C features.
        amortised: whether it has a conditional form.
        invertible: whether a value that it did not draw can be scored.
        ordered: whether a unit depends only on the units before it, so that two transforms need the order reversed
            between them.
        least_dim: the least L at which it does more than shift, rescale and reflect.
    """

    build: Callable[[int, int | None], nn.Module]
    amortised: bool = True
    invertible: bool = True
    ordered: bool = False
    least_dim: int = 1


FLOWS: dict[str, Family] = {
    "planar": Family(_helper(transforms.planar, transforms.conditional_planar), invertible=False),
    "radial": Family(_helper(transforms.radial, transforms.conditional_radial), invertible=False),
    "householder": Family(
        _helper(transforms.householder, transforms.conditional_householder, count_transforms=1), least_dim=2
    ),
    "sylvester": Family(_helper(Sylvester), amortised=False, invertible=False),
    "iaf": Family(_iaf, ordered=True, least_dim=2),
    "naf": Family(_naf, invertible=False, ordered=True, least_dim=2),
    "coupling": Family(
        _helper(transforms.affine_coupling, transforms.conditional_affine_coupling), ordered=True, least_dim=2
    ),
    "spline-coupling": Family(_helper(transforms.spline_coupling), amortised=False, ordered=True, least_dim=2),
    "spline-autoregressive": Family(_spline, ordered=True, least_dim=2),
    "block-autoregressive": Family(
        _helper(transforms.block_autoregressive, residual="normal"),  # without the residual, all of z lies in a box
        amortised=False,
        invertible=False,
        ordered=True,
    ),
}


class FlowNet(nn.Module):
    """q(z | c): the distribution of f(u), u ~ N(μ(c), diag σ²(c)).

    Args:
        in_dims: widths of the conditions c.
        dim: L, the width of z.
        flow: a name in `FLOWS`, or a callable L → `TransformModule`, such as Pyro's `transforms.planar`.
        length: T, the number of transforms; in an `ordered` family the units are reversed between two of them.
        amortised: whether the parameters of f are functions of L features of c, which a network like that of μ and σ
            computes.
        mlp: keywords of `MLP`, for the networks of c.

    Raises:
        ValueError: an unknown name, a flow that does nothing at this L or has no amortised form, a length below 1.
    """

    declared_settings = ("ordered", "transform_settings")

    def __init__(
        self,
        in_dims: Sequence[int | None],
        dim: int,
        *,
        flow: str | Callable[[int], nn.Module] = "iaf",
        length: int = 2,
        amortised: bool = False,
        **mlp: Any,
    ) -> None:
        super().__init__()
        family = _family(flow)
        _check(family, flow, dim, length, amortised)
        self.base = NormalNet(in_dims, dim, **mlp)
        self.features = MLP(in_dims, dim, **mlp) if amortised else None
        self.transforms = nn.ModuleList(family.build(dim, dim if amortised else None) for _ in range(length))
        self.ordered = family.ordered

    @property
    def transform_settings(self) -> list[dict[str, Any]]:
        """The numbers and words that each transform was made with, such as the bound of a spline."""
        parts = [part for transform in self.transforms for part in transform.modules()]
        return [{name: value for name, value in vars(part).items() if _is_setting(name, value)} for part in parts]

    def forward(self, *conditions: Tensor | None) -> Flow:
        """The distribution given the conditions."""
        base = self.base(*conditions)
        parts: list[Any] = list(self.transforms)
        if self.features is not None:
            features = self.features(*conditions)  # with the batch shape of base
            parts = [part.condition(features) for part in parts]
        if self.ordered:
            parts = [step for part in parts for step in (Flip(), part)][1:]
        return Flow(base, parts)


def _is_setting(name: str, value: object) -> bool:
    return isinstance(value, bool | int | float | str) and not name.startswith("_") and name != "training"


class Flip(Transform):
    """z = u in reversed order."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        return x.flip(-1)

    def _inverse(self, y: Tensor) -> Tensor:
        return y.flip(-1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Zero, since the volume does not change."""
        return x.new_zeros(x.shape[:-1])


def _family(flow: str | Callable[[int], nn.Module]) -> Family:
    if callable(flow):
        return Family(_helper(flow), amortised=False)
    if flow not in FLOWS:
        raise ValueError(f"flow must be one of {', '.join(FLOWS)} or a callable L → TransformModule, got {flow!r}")
    return FLOWS[flow]


def _check(family: Family, flow: Any, dim: int, length: int, amortised: bool) -> None:
    check_counts(length=length)
    if dim < family.least_dim:
        raise ValueError(
            f"flow must suit a latent of width {dim}, got {flow!r}, which needs {family.least_dim} or more; "
            "choose one of " + ", ".join(name for name, other in FLOWS.items() if other.least_dim <= dim)
        )
    if amortised and not family.amortised:
        raise ValueError(
            f"flow must have an amortised form, got {flow!r}, which has none; choose one of "
            + ", ".join(name for name, other in FLOWS.items() if other.amortised and other.least_dim <= dim)
        )
