"""Linear-Gaussian models with classes: M1, M2, and those with an auxiliary variable or with a mixture in z.

The model of M1 and M2:

    p(y) = Cat(y; π)      p(z) = N(z; 0, I)      p(x | y, z) = N(x; Q (s_y ∘ z) + b_y, σ² I),      QᵀQ = I

As the columns of Q are orthonormal, the posterior of z is a diagonal Gaussian, so a guide can reach it:

    p(z | x, y) = N(z; v_y ∘ s_y ∘ Qᵀ(x − b_y) / σ², diag v_y)      1 / v_y = 1 + s_y² / σ²
    p(x | y)    = N(x; b_y, Q diag(s_y²) Qᵀ + σ² I)                 p(y | x) ∝ π_y p(x | y)

The others are jointly Gaussian given y, with any covariances (`Joint`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pyro.distributions as dist
import torch
from semipyro.distributions import StandardNormal
from semipyro.guides import ADGMGuide, M2Guide, VAEGuide
from semipyro.inference import ELBO, AdversarialELBO, SemiSupervisedELBO
from semipyro.models import ADGM, AGMDGM, GMDGM, M2, SDGM, VAE
from torch import Tensor
from torch.distributions import kl_divergence

from helpers.cases import Case, Deviation
from helpers.conditionals import Conditional
from helpers.tractable_distributions import ByFunctions, Joint, block_matrix, moved, quadrature


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


def adversarial(perturb: bool = False, rows: int = 4, **settings: Any) -> Case:
    """M2 with an adversary that guesses the prior, whatever z."""
    case = m2(perturb, rows)
    _, y, _ = case.rows
    prior = case.objective.model.y_prior
    guess = Conditional(lambda z: dist.OneHotCategorical(prior).expand(z.shape[:-1]))
    objective = AdversarialELBO(case.objective.model, case.objective.guide, guess, **settings)
    return replace(case, objective=objective, exact={**case.exact, "adversary": y @ prior.log()})


# Jointly Gaussian given y: the models with an auxiliary variable, and with a mixture in z


class Mixture:
    """x, z and a jointly Gaussian given y, with p(x, y, z) of M2 or of GM-DGM.

        z | y ~ N(m_y, C_y)      x | y, z ~ N(W_y z + c_y, σ² I)      a | x ~ N(β x, τ²),   correlated with z given x

    As a does not depend on y given x, q(a | x) = p(a | x) is exact for p(x) as well as for p(x, y).

    Args:
        mixture: whether z depends on y, and x on y only by z; otherwise z ~ N(0, I), and x depends on both.
        alone: whether a ~ N(0, 1) depends on nothing.
        tells: whether the mean of a depends on y after all: then q(a | x) is a mixture, and exact for p(x) alone.
    """

    K, D, L = 3, 5, 2

    def __init__(self, *, mixture: bool = False, alone: bool = False, tells: bool = False) -> None:
        generator = torch.Generator().manual_seed(1)
        K, D, L = self.K, self.D, self.L
        self.prior = torch.softmax(torch.randn(K, generator=generator), -1)
        W, c = torch.randn(K, D, L, generator=generator), 0.6 * torch.randn(K, D, generator=generator)
        mean, root = torch.randn(K, L, generator=generator), torch.randn(K, L, L, generator=generator)
        variance = root @ root.mT / 2 + 0.3 * torch.eye(L)
        if mixture:
            W, c = W[:1].expand(K, D, L), c[:1].expand(K, D)
        else:
            mean, variance = torch.zeros(K, L), torch.eye(L).expand(K, L, L)
        beta, link = torch.randn(1, D, generator=generator) / D**0.5, torch.randn(K, 1, L, generator=generator)
        link, tau = link / (1 + link.norm(dim=-1, keepdim=True)), 0.7
        if alone:
            beta, link, tau = 0 * beta, 0 * link, 1.0
        x_mean, cross = (W @ mean[..., None])[..., 0] + c, W @ variance
        x_variance = cross @ W.mT + 0.7**2 * torch.eye(D)
        rest = torch.linalg.cholesky(variance - cross.mT @ torch.linalg.solve(x_variance, cross))  # of z given x
        a_x, a_z = beta @ x_variance, beta @ cross + tau * link @ rest.mT
        covariance = block_matrix(
            (variance, cross.mT, a_z.mT),
            (cross, x_variance, a_x.mT),
            (a_z, a_x, a_x @ beta.mT + tau**2),
        )
        mean = torch.cat([mean, x_mean, x_mean @ beta.T + tells * torch.tensor([[-1.0], [0.5], [1.5]])], -1)
        self.joint = Joint({"z": L, "x": D, "a": 1}, mean, covariance)
        self.any = torch.eye(K)[0]  # the class in whose place any other would do

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, y) for every y: (N, K)."""
        return self.prior.log() + self.joint.log_prob("x", x)

    def log_joint_a(self, x: Tensor, a: Tensor) -> Tensor:
        """log p(x, y, a) for every y: (N, K)."""
        return self.log_joint(x) + self.joint.log_prob("a", a, x=x)

    def p_a_x(self, x: Tensor) -> Any:
        """p(a | x), a mixture where a tells of y."""

        def draw(x: Tensor) -> Tensor:
            return self.joint("a", dist.OneHotCategorical(logits=self.log_joint(x)).sample(), x=x).sample()

        def density(x: Tensor, a: Tensor) -> Tensor:
            return self.log_joint_a(x, a).logsumexp(-1) - self.log_joint(x).logsumexp(-1)

        return ByFunctions(x, 1, draw, density)

    def draw(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            y = torch.eye(self.K)[torch.multinomial(self.prior, n, replacement=True)]
            return self.joint("x", y).sample(), y

    def q_a(self, x: Tensor, how: Deviation) -> Any:
        return moved(self.joint("a", self.any, x=x), how.a_shift, how.a_stretch)

    def q_y(self, a: Tensor, x: Tensor, how: Deviation) -> Any:
        return dist.OneHotCategorical(logits=self.log_joint(x) + how.tilt + how.slope * a)

    def q_z(self, y: Tensor, how: Deviation, **given: Tensor) -> Any:
        return moved(self.joint("z", y, **given), how.z_shift, how.z_stretch)

    def kl_z(self, how: Deviation, *given: str) -> Tensor:
        """KL(q(z | ·) ‖ p(z | ·)) for every y, whatever is given: (K,)."""
        zeros = {name: torch.zeros(self.K, len(self.joint.places[name])) for name in given}
        exact = self.joint("z", torch.eye(self.K), **zeros)
        return kl_divergence(moved(exact, how.z_shift, how.z_stretch), exact)

    def kl_y(self, a: Tensor, x: Tensor, how: Deviation, kl_z: Tensor) -> Tensor:
        """KL(q(y | a, x) ‖ p(y | x)) + Σ_y q(y | a, x) KL(q(z | ·) ‖ p(z | ·)): (..., N)."""
        log_q, log_p = self.q_y(a, x, how).logits, torch.log_softmax(self.log_joint(x), -1)
        return (log_q.exp() * (log_q - log_p + kl_z)).sum(-1)


def auxiliary(
    build: Callable[[Mixture], Any], perturb: bool = False, rows: int = 4, alone: bool = False, **settings: Any
) -> Case:
    """ADGM, SDGM and AGM-DGM: `build` makes the model's class from the mixture's conditionals."""
    how, m = Deviation.of(float(perturb)), Mixture(mixture=build is agm_dgm, alone=alone)
    given = ("x",) if alone else ("a", "x")
    guide = ADGMGuide(
        q_a=Conditional(lambda x: m.q_a(x, how)),
        q_y=Conditional(lambda a, x: m.q_y(a, x, how)),
        q_z=Conditional(lambda a, y, x: m.q_z(y, how, x=x) if alone else m.q_z(y, how, a=a, x=x)),
    )
    (x, y), (x_unlabelled, _) = m.draw(rows, 2), m.draw(rows + 1, 3)
    kl_a = kl_divergence(m.q_a(x[:1], how), m.q_a(x[:1], Deviation.of(0.0)))
    kl_z = m.kl_z(how, *given)
    inner = {
        z: quadrature(lambda a, z=z: m.kl_y(a, x_unlabelled, how, z * kl_z), m.q_a(x_unlabelled, how)) for z in (0, 1)
    }
    averaged = quadrature(lambda a: m.q_y(a, x_unlabelled, how).probs, m.q_a(x_unlabelled, how))
    log_p = torch.log_softmax(m.log_joint(x_unlabelled), -1)
    gap = {"labelled": kl_a + y @ kl_z, "unlabelled": kl_a + inner[1]}
    wrong = {
        "labelled": [0 * gap["labelled"], y @ kl_z, kl_a.expand(len(x)), kl_a + kl_z.min().expand(len(x))],
        "unlabelled": [
            0 * gap["unlabelled"],
            inner[1],  # without a
            kl_a + inner[0],  # without z
            kl_a + averaged @ kl_z,  # without y
            kl_a + (averaged * (averaged.log() - log_p + kl_z)).sum(-1),  # q(y | x) in place of q(y | a, x)
        ],
    }
    exact = {
        "labelled": (m.log_joint(x) * y).sum(-1),
        "unlabelled": torch.logsumexp(m.log_joint(x_unlabelled), -1),
        "classification": (torch.log_softmax(m.log_joint(x), -1) * y).sum(-1),
    }
    return Case(SemiSupervisedELBO(build(m), guide, **settings), (x, y, x_unlabelled), exact, gap, wrong)


def telling(build: Callable[[Mixture], Any], **settings: Any) -> Case:
    """The same where a tells of y: the exact q(a | x) is a mixture, and q(y | a, x) reads a."""
    m = Mixture(mixture=build is agm_dgm, tells=True)
    guide = ADGMGuide(
        q_a=Conditional(m.p_a_x),
        q_y=Conditional(lambda a, x: dist.OneHotCategorical(logits=m.log_joint_a(x, a))),
        q_z=Conditional(lambda a, y, x: m.joint("z", y, a=a, x=x)),
    )
    x, _ = m.draw(5, 3)
    exact = {"unlabelled": torch.logsumexp(m.log_joint(x), -1)}
    return Case(SemiSupervisedELBO(build(m), guide, **settings), (None, None, x), exact, {})


def adgm(m: Mixture) -> ADGM:
    p_x = Conditional(lambda y, z: m.joint("x", y, z=z))
    p_a = Conditional(lambda x, y, z: m.joint("a", y, x=x, z=z))
    return ADGM(p_x=p_x, p_a=p_a, y_dim=m.K, z_dim=m.L, y_prior=m.prior)


def workshop(m: Mixture) -> ADGM:
    p_x = Conditional(lambda y, z: m.joint("x", y, z=z))
    return ADGM(p_x=p_x, p_a=StandardNormal(1), y_dim=m.K, z_dim=m.L, y_prior=m.prior)


def sdgm(m: Mixture) -> SDGM:
    p_x = Conditional(lambda a, y, z: m.joint("x", y, a=a, z=z))
    p_a = Conditional(lambda y, z: m.joint("a", y, z=z))
    return SDGM(p_x=p_x, p_a=p_a, y_dim=m.K, z_dim=m.L, y_prior=m.prior)


def agm_dgm(m: Mixture) -> AGMDGM:
    p_x, p_z = Conditional(lambda z: m.joint("x", m.any, z=z)), Conditional(lambda y: m.joint("z", y))
    p_a = Conditional(lambda x, y, z: m.joint("a", y, x=x, z=z))
    return AGMDGM(p_x=p_x, p_z=p_z, p_a=p_a, y_dim=m.K, y_prior=m.prior)


def gm_dgm(perturb: bool = False, rows: int = 4, **settings: Any) -> Case:
    """A mixture of three linear-Gaussian models with one decoder."""
    how, m = Deviation.of(float(perturb)), Mixture(mixture=True)
    p_x, p_z = Conditional(lambda z: m.joint("x", m.any, z=z)), Conditional(lambda y: m.joint("z", y))
    no_a = torch.zeros(1)
    guide = M2Guide(q_y=Conditional(lambda x: m.q_y(no_a, x, how)), q_z=Conditional(lambda x, y: m.q_z(y, how, x=x)))
    (x, y), (x_unlabelled, _) = m.draw(rows, 2), m.draw(rows + 1, 3)
    kl_z = m.kl_z(how, "x")
    gap = {"labelled": y @ kl_z, "unlabelled": m.kl_y(no_a, x_unlabelled, how, kl_z)}
    kl_y = m.kl_y(no_a, x_unlabelled, how, 0 * kl_z)
    wrong = {
        "labelled": [0 * gap["labelled"], kl_z.max().expand(len(x)), kl_z.min().expand(len(x))],
        "unlabelled": [0 * kl_y, kl_y, gap["unlabelled"] - kl_y, kl_y + kl_z.max()],
    }
    exact = {
        "labelled": (m.log_joint(x) * y).sum(-1),
        "unlabelled": torch.logsumexp(m.log_joint(x_unlabelled), -1),
        "classification": (m.q_y(no_a, x, how).logits * y).sum(-1),
    }
    model = GMDGM(p_x=p_x, p_z=p_z, y_dim=m.K, y_prior=m.prior)
    return Case(SemiSupervisedELBO(model, guide, **settings), (x, y, x_unlabelled), exact, gap, wrong)
