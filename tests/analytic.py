"""Models whose bounds are known exactly, keyed by paper, and conditionals that make a bound an exact number.

The linear-Gaussian model with classes:

    p(y) = Cat(y; π)      p(z) = N(z; 0, I)      p(x | y, z) = N(x; Q (s_y ∘ z) + b_y, σ² I),      QᵀQ = I

As the columns of Q are orthonormal, the posterior of z is a diagonal Gaussian, so a guide can reach it:

    p(z | x, y) = N(z; v_y ∘ s_y ∘ Qᵀ(x − b_y) / σ², diag v_y)      1 / v_y = 1 + s_y² / σ²
    p(x | y)    = N(x; b_y, Q diag(s_y²) Qᵀ + σ² I)                 p(y | x) ∝ π_y p(x | y)

A new paper adds its case to `CASES`: a function from a `Perturbation` of the exact guide to a `Case`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyro.distributions as dist
import torch
from semipyro.guides import M2Guide, VAEGuide
from semipyro.inference import ELBO, Objective, SemiSupervisedELBO
from semipyro.models import M2, VAE
from torch import Tensor, nn


class Conditional(nn.Module):
    """A conditional distribution from a plain function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *conditions: Tensor) -> Any:
        return self.function(*conditions)


class FixedNormal(dist.Normal):
    """A normal distribution whose draw is always loc + noise · scale, with the gradients of a real draw."""

    def __init__(self, loc: Tensor, scale: Tensor, noise: Tensor) -> None:
        self.noise = noise
        super().__init__(loc, scale)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> "FixedNormal":
        return FixedNormal(self.loc.expand(batch_shape), self.scale.expand(batch_shape), self.noise)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return (self.loc + self.noise * self.scale).expand(self._extended_shape(sample_shape))


class FixedDraw(nn.Module):
    """The diagonal Gaussian conditional `net` with a fixed draw: a bound over it is a number without chance.

    `noise` is (L,), or (S, 1, L) with another draw for each of S samples.
    """

    def __init__(self, net: nn.Module, noise: Tensor) -> None:
        super().__init__()
        self.net = net
        self.noise = noise

    def forward(self, *conditions: Tensor) -> Any:
        normal = self.net(*conditions)
        return FixedNormal(normal.base_dist.loc, normal.base_dist.scale, self.noise).to_event(1)


@dataclass(frozen=True)
class Perturbation:
    """How a guide differs from the posterior: z's mean is moved, its scale multiplied, the logits of y raised."""

    shift: Tensor  # (L,)
    stretch: Tensor  # (L,)
    tilt: Tensor  # (K,)


class LinearGaussian:
    """The model above with drawn parameters: its conditionals, exact or perturbed, and its closed forms."""

    def __init__(self, K: int, D: int, L: int, *, sigma: float = 0.7) -> None:
        generator = torch.Generator().manual_seed(1)
        self.prior = torch.softmax(torch.randn(K, generator=generator), -1)
        self.Q = torch.linalg.qr(torch.randn(D, L, generator=generator))[0]
        self.s = 0.5 + torch.rand(K, L, generator=generator)
        self.b = 0.3 * torch.randn(K, D, generator=generator)
        self.sigma = sigma
        self.K, self.D, self.L = K, D, L

    def exact(self) -> Perturbation:
        return Perturbation(torch.zeros(self.L), torch.ones(self.L), torch.zeros(self.K))

    def perturbed(self) -> Perturbation:
        """A guide wrong in everything; with scales above √½, as below importance weights have no variance."""
        shift, stretch = torch.linspace(-0.4, 0.3, self.L), torch.linspace(0.8, 1.3, self.L)
        return Perturbation(shift, stretch, 0.6 * torch.arange(self.K))

    def p_x(self, y: Tensor, z: Tensor) -> Any:
        return dist.Normal((y @ self.s * z) @ self.Q.T + y @ self.b, self.sigma).to_event(1)

    def q_z(self, x: Tensor, y: Tensor, how: Perturbation) -> Any:
        s = y @ self.s
        variance = 1 / (1 + s**2 / self.sigma**2)
        mean = variance * s * ((x - y @ self.b) @ self.Q) / self.sigma**2
        return dist.Normal(mean + how.shift, variance.sqrt() * how.stretch).to_event(1)

    def q_y(self, x: Tensor, how: Perturbation) -> Any:
        return dist.OneHotCategorical(logits=self.log_joint(x) + how.tilt)

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, y) for every y: (N, K)."""
        covariance = self.Q * self.s[:, None] ** 2 @ self.Q.T + self.sigma**2 * torch.eye(self.D)
        p_x_given_y = torch.distributions.MultivariateNormal(self.b, covariance)
        return p_x_given_y.log_prob(x[:, None]) + self.prior.log()

    def kl_z(self, how: Perturbation) -> Tensor:
        """KL(q(z | x, y) ‖ p(z | x, y)) for every y, whatever x: (K,)."""
        variance = 1 / (1 + self.s**2 / self.sigma**2)
        return (-how.stretch.log() + (how.stretch**2 + how.shift**2 / variance - 1) / 2).sum(-1)

    def kl_y(self, x: Tensor, how: Perturbation) -> Tensor:
        """KL(q(y | x) ‖ p(y | x)): (N,)."""
        log_q, log_p = torch.log_softmax(self.log_joint(x) + how.tilt, -1), torch.log_softmax(self.log_joint(x), -1)
        return (log_q.exp() * (log_q - log_p)).sum(-1)

    def kl_yz(self, x: Tensor, how: Perturbation) -> Tensor:
        """KL(q(y, z | x) ‖ p(y, z | x)) = KL of y + E_q(y | x) KL of z: (N,)."""
        return self.kl_y(x, how) + torch.softmax(self.log_joint(x) + how.tilt, -1) @ self.kl_z(how)

    def draw(self, n: int, seed: int = 2) -> tuple[Tensor, Tensor]:
        """n rows x of the model with their one-hot y."""
        generator = torch.Generator().manual_seed(seed)
        y = torch.eye(self.K)[torch.multinomial(self.prior, n, replacement=True, generator=generator)]
        z, noise = torch.randn(n, self.L, generator=generator), torch.randn(n, self.D, generator=generator)
        return (y @ self.s * z) @ self.Q.T + y @ self.b + self.sigma * noise, y


@dataclass(frozen=True)
class Case:
    """A paper's objective on a model with closed forms; each dictionary has a term's rows (N,), by the term's name."""

    objective: Objective
    rows: tuple[Tensor | None, Tensor | None, Tensor]  # x_labelled, y_labelled, x_unlabelled
    exact: dict[str, Tensor]  # the value of each term where the guide is exact
    gap: dict[str, Tensor]  # the KL divergence by which each bound lies below it
    wrong_gaps: dict[str, list[Tensor]] = field(default_factory=dict)  # divergences that are not the gap


def m1(perturb: bool = False, rows: int = 4, **settings: Any) -> Case:
    """The VAE: the model above with one class, whose q(z | x) is p(z | x)."""
    model = LinearGaussian(K=1, D=5, L=2)
    how = model.perturbed() if perturb else model.exact()
    x, y = model.draw(rows)
    objective = ELBO(
        VAE(p_x=Conditional(lambda z: model.p_x(y[:1], z)), z_dim=model.L),
        VAEGuide(q_z=Conditional(lambda x: model.q_z(x, y[:1], how))),
        **settings,
    )
    gap = model.kl_z(how).expand(len(x))
    wrong = {"unlabelled": [0 * gap, 2 * gap, model.kl_z(inverse(how)).expand(len(x))]}
    return Case(objective, (None, None, x), {"unlabelled": model.log_joint(x)[:, 0]}, {"unlabelled": gap}, wrong)


def m2(perturb: bool = False, rows: int = 4, **settings: Any) -> Case:
    """M2 with three classes and a prior that is not uniform."""
    model = LinearGaussian(K=3, D=5, L=2)
    how = model.perturbed() if perturb else model.exact()
    x, y = model.draw(rows)
    x_unlabelled, _ = model.draw(rows + 1, seed=3)
    objective = SemiSupervisedELBO(
        M2(p_x=Conditional(model.p_x), y_dim=model.K, z_dim=model.L, y_prior=model.prior),
        M2Guide(q_y=Conditional(lambda x: model.q_y(x, how)), q_z=Conditional(lambda x, y: model.q_z(x, y, how))),
        **settings,
    )
    exact = {
        "labelled": (model.log_joint(x) * y).sum(-1),
        "unlabelled": torch.logsumexp(model.log_joint(x_unlabelled), -1),
        "classification": (torch.log_softmax(model.log_joint(x) + how.tilt, -1) * y).sum(-1),
    }
    gap = {"labelled": y @ model.kl_z(how), "unlabelled": model.kl_yz(x_unlabelled, how)}
    wrong = {
        "labelled": [0 * gap["labelled"], model.kl_z(how).max().expand(len(x)), y @ model.kl_z(inverse(how))],
        "unlabelled": [
            0 * gap["unlabelled"],
            model.kl_y(x_unlabelled, how),
            torch.softmax(model.log_joint(x_unlabelled) + how.tilt, -1) @ model.kl_z(how),
            model.kl_y(x_unlabelled, how) + torch.softmax(model.log_joint(x_unlabelled), -1) @ model.kl_z(how),
        ],
    }
    return Case(objective, (x, y, x_unlabelled), exact, gap, wrong)


def inverse(how: Perturbation) -> Perturbation:
    """The perturbation whose `kl_z` is the divergence in the wrong direction, KL(p ‖ q)."""
    return Perturbation(how.shift / how.stretch, 1 / how.stretch, -how.tilt)


CASES: dict[str, Callable[..., Case]] = {"m1": m1, "m2": m2}
