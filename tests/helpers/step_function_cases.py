"""Models whose classes depend on a continuous variable by steps: those of the thesis, of CaGeM, and of untapped.

Their posteriors are known all the same. A class may be decided by the interval that a Gaussian variable lies in, since
a Gaussian that a step function weighs is integrated in closed form (`SteppedNormal`). And a latent in a box, of which
only the signs matter, is summed out (`Cells`).
"""

import math
from typing import Any

import pyro.distributions as dist
import torch
from semipyro.distributions import UniformBox
from semipyro.guides import CaGeMGuide, LatentClassifierGuide, M2Guide, ReverseGuide
from semipyro.inference import ClusterAwareELBO, InvertedELBO, SemiSupervisedELBO
from semipyro.models import M2, CaGeM, LatentClassifier, Reverse, SimplifiedLatentClassifier
from torch import Tensor
from torch.distributions import kl_divergence
from torch.nn import functional

from helpers.cases import Case, Deviation
from helpers.conditionals import Conditional
from helpers.tractable_distributions import (
    ByFunctions,
    Cells,
    Joint,
    SteppedNormal,
    block_matrix,
    cells,
    moved,
    orthants,
    quadrature,
    step_limits,
    steps,
)

EDGES = [-0.6, 0.5]
STEPS = [[0.7, 0.2, 0.1], [0.2, 0.2, 0.6], [0.1, 0.7, 0.2]]  # (R, K): the classes' probabilities in each interval


class Thesis:
    """z ~ N(0, I), x | z ~ N(W z + c, σ² I), and classes by steps in x_1 or in z_1."""

    K, D, L = 3, 5, 2

    def __init__(self, table: Tensor) -> None:
        generator = torch.Generator().manual_seed(1)
        self.W, self.c = (
            torch.randn(self.D, self.L, generator=generator),
            0.3 * torch.randn(self.D, generator=generator),
        )
        self.sigma, self.table, self.edges = torch.tensor(0.7), table, torch.tensor(EDGES)
        x_variance = self.W @ self.W.T + self.sigma**2 * torch.eye(self.D)
        covariance = block_matrix((torch.eye(self.L), self.W.T), (self.W, x_variance))
        mean = torch.cat([torch.zeros(self.L), self.c])
        self.joint, self.one = Joint({"z": self.L, "x": self.D}, mean[None], covariance[None]), torch.ones(1)

    def p_z_x(self, x: Tensor) -> Any:
        """p(z | x), without y."""
        return self.joint("z", self.one, x=x)

    def log_p_x(self, x: Tensor) -> Tensor:
        return self.joint("x", self.one).log_prob(x)

    def p_x(self, z: Tensor) -> Any:
        return dist.Normal(z @ self.W.T + self.c, self.sigma)

    def classes(self, normal: Any) -> Tensor:
        """The classes' probabilities where what decides over them is Gaussian: (..., K)."""
        return step_limits(normal, self.edges).diff() @ self.table

    def p_y_by_x(self, z: Tensor) -> Any:
        """p(y | z), where y is decided by x_1."""
        return dist.OneHotCategorical(self.classes(dist.Normal(self.p_x(z).mean[..., 0], self.sigma)))

    def p_x_given_y(self, y: Tensor, z: Tensor) -> Any:
        """p(x | y, z) where x_1 decides over y: a Gaussian that the probability of y given x_1 weighs."""
        normal = self.p_x(z)
        others = torch.ones(*torch.broadcast_shapes(y.shape[:-1], z.shape[:-1]), self.D - 1, len(self.table))
        first = (y @ self.table.T)[..., None, :].expand(*others.shape[:-2], 1, -1)
        return SteppedNormal(normal.mean, self.sigma, torch.cat([first, others], -2), self.edges).to_event(1)

    def p_y_x(self, x: Tensor) -> Tensor:
        """p(y | x) where x_1 decides over y: (N, K)."""
        return steps(x[..., 0], self.edges) @ self.table

    def p_y_by_z(self, z: Tensor) -> Any:
        """p(y | z), where y is decided by z_1 and noise."""
        return dist.OneHotCategorical(self.classes(dist.Normal(z[..., 0], 0.5)))

    def draw(self, n: int, seed: int) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.joint("x", self.one).sample((n,))


def latent_classifier(perturb: bool = False, rows: int = 4, tight: bool = False, **settings: Any) -> Case:
    """x_1 decides over y, so that p(z | x, y) = p(z | x), though p(y | z) reads z and p(x | y, z) reads y.

    log Σ_y p(y | z) p(x | y, z) = log p(x | z): the tight bound is exact at q(z | x) = p(z | x). U lies below it by
    E_q(z | x) KL(p(y | z) ‖ p(y | x)); its exact case has an x that decides over nothing.
    """
    table = torch.tensor(STEPS) if perturb or tight else torch.tensor([STEPS[0]] * 3)
    t, how = Thesis(table), Deviation.of(float(perturb))
    q_z = Conditional(lambda x: moved(t.p_z_x(x), how.z_shift, how.z_stretch))
    p_y = Conditional(t.p_y_by_x)
    model = LatentClassifier(p_x=Conditional(t.p_x_given_y), p_y=p_y, z_dim=t.L)
    guide = LatentClassifierGuide(q_z=q_z, p_y=p_y, tight=tight)
    x, x_unlabelled = t.draw(rows, 2), t.draw(rows + 1, 3)
    y = torch.eye(t.K)[torch.arange(rows) % t.K]
    kl_z = kl_divergence(q_z(x_unlabelled), t.p_z_x(x_unlabelled))

    def kl_y(z: Tensor) -> Tensor:
        log_p = t.p_y_by_x(z).logits
        return (log_p.exp() * (log_p - t.p_y_x(x_unlabelled).log())).sum(-1)

    second = quadrature(kl_y, q_z(x_unlabelled))
    gap = {"labelled": kl_z[:1].expand(rows), "unlabelled": kl_z if tight else kl_z + second}
    wrong = {
        "labelled": [0 * gap["labelled"], 2 * gap["labelled"]],
        "unlabelled": [0 * kl_z, second, kl_z + second if tight else kl_z, kl_z + 2 * second],
    }
    exact = {
        "labelled": t.log_p_x(x) + (t.p_y_x(x).log() * y).sum(-1),
        "unlabelled": t.log_p_x(x_unlabelled),
    }
    return Case(SemiSupervisedELBO(model, guide, **settings), (x, y, x_unlabelled), exact, gap, wrong)


def simplified(perturb: bool = False, rows: int = 4, **settings: Any) -> Case:
    """z_1 decides over y, so U(x) is a VAE's bound; L(x, y) is exact nowhere, as q(z | x) does not read y."""
    t, how = Thesis(torch.tensor(STEPS)), Deviation.of(float(perturb))
    q_z = Conditional(lambda x: moved(t.p_z_x(x), how.z_shift, how.z_stretch))
    p_y = Conditional(lambda z: t.p_y_by_z(z[..., :1]))
    p_x = Conditional(lambda z: t.p_x(z).to_event(1))
    model = SimplifiedLatentClassifier(p_x=p_x, p_y=p_y, z_dim=t.L)
    x, x_unlabelled = t.draw(rows, 2), t.draw(rows + 1, 3)
    y = torch.eye(t.K)[torch.arange(rows) % t.K]
    kl_z = kl_divergence(q_z(x), t.p_z_x(x))
    posterior = t.p_z_x(x)
    decides = dist.Normal(posterior.mean[:, 0], (posterior.covariance_matrix[:, 0, 0] + 0.5**2).sqrt())
    log_p_y = (t.classes(decides).log() * y).sum(-1)  # log p(y | x)
    mean_log_p_y = quadrature(lambda z: (t.p_y_by_z(z).logits * y).sum(-1), q_z(x))
    exact, gap = {"unlabelled": t.log_p_x(x_unlabelled)}, {"unlabelled": kl_z[:1].expand(rows + 1)}
    wrong = {"unlabelled": [0 * gap["unlabelled"], 2 * gap["unlabelled"]]}
    if perturb:
        exact["labelled"] = t.log_p_x(x) + log_p_y
        gap["labelled"] = kl_z + log_p_y - mean_log_p_y
        wrong["labelled"] = [kl_z, log_p_y - mean_log_p_y, kl_z + log_p_y]
    objective = SemiSupervisedELBO(model, LatentClassifierGuide(q_z=q_z, p_y=p_y), **settings)
    return Case(objective, (x, y, x_unlabelled), exact, gap, wrong)


class Clusters:
    """CaGeM with z2 ~ N(0, 1), classes by steps in z2, and all else linear and Gaussian given y.

    Without the steps, (z2, z1, x) are jointly Gaussian given y; with them every density of theirs is multiplied by the
    probability of y given what is known: Σ_r p(y | r) P(z2 in r | ·).
    """

    K, D = 3, 5

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        K, D = self.K, self.D
        g, h = torch.randn(K, 2, 1, generator=generator), 0.4 * torch.randn(K, 2, generator=generator)
        Q, b = torch.randn(K, D, 2, generator=generator), 0.4 * torch.randn(K, D, generator=generator)
        Q, b = Q[:1] + 0.2 * Q, b[:1] + 0.5 * b
        z1 = g @ g.mT + 0.6**2 * torch.eye(2)
        covariance = block_matrix(
            (torch.ones(K, 1, 1), g.mT, g.mT @ Q.mT),
            (g, z1, z1 @ Q.mT),
            (Q @ g, Q @ z1, Q @ z1 @ Q.mT + 0.7**2 * torch.eye(D)),
        )
        mean = torch.cat([torch.zeros(K, 1), h, (Q @ h[..., None])[..., 0] + b], -1)
        self.joint = Joint({"z2": 1, "z1": 2, "x": D}, mean, covariance)
        self.table, self.edges = torch.tensor(STEPS), torch.tensor(EDGES)

    def p_y(self, z2: Tensor) -> Any:
        return dist.OneHotCategorical(steps(z2[..., 0], self.edges) @ self.table)

    def p_z2(self, y: Tensor, **given: Tensor) -> Any:
        """p(z2 | y, ·)."""
        normal = self.joint("z2", y, **given)
        weights = (y @ self.table.T)[..., None, :]
        return SteppedNormal(normal.mean, normal.scale_tril[..., 0], weights, self.edges).to_event(1)

    def log_p_y(self, **given: Tensor) -> Tensor:
        """log Σ_r p(y | r) P(z2 in r | ·) for every y: (N, K)."""
        given = {name: block[..., None, :] for name, block in given.items()}
        normal = self.joint("z2", torch.eye(self.K), **given)
        inside = step_limits(dist.Normal(normal.mean[..., 0], normal.scale_tril[..., 0, 0]), self.edges).diff()
        return (inside * self.table.T).sum(-1).log()

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, y) for every y: (N, K)."""
        return self.joint.log_prob("x", x) + self.log_p_y(x=x)

    def log_gaussian(self, x: Tensor, z1: Tensor) -> Tensor:
        """log p(x, z1 | y) without the steps, for every y: (N, K)."""
        return self.joint.log_prob("x", x, z1=z1) + self.joint.log_prob("z1", z1)

    def log_joint_z1(self, x: Tensor, z1: Tensor) -> Tensor:
        """log p(x, y, z1) for every y: (N, K)."""
        return self.log_gaussian(x, z1) + self.log_p_y(z1=z1)

    def p_z1_x(self, x: Tensor) -> Any:
        """p(z1 | x): no Gaussian, but drawn by way of y and z2."""

        def draw(x: Tensor) -> Tensor:
            y = dist.OneHotCategorical(logits=self.log_joint(x)).sample()
            return self.joint("z1", y, z2=self.p_z2(y, x=x).sample(), x=x).sample()

        def density(x: Tensor, z1: Tensor) -> Tensor:
            return self.log_joint_z1(x, z1).logsumexp(-1) - self.log_joint(x).logsumexp(-1)

        return ByFunctions(x, 2, draw, density)

    def draw(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            z2 = torch.randn(n, 1)
            y = self.p_y(z2).sample()
            return self.joint("x", y, z2=z2).sample(), y


def cagem(perturb: bool = False, rows: int = 4, **settings: Any) -> Case:
    """CaGeM with the exact guide, or with one whose q(z1 | x) and q(z2 | y, z1) are Gaussian."""
    c = Clusters()
    (x, y), (x_unlabelled, _) = c.draw(rows, 2), c.draw(rows + 1, 3)
    tilt = float(perturb) * 0.6 * torch.arange(3.0)
    z1_moves = torch.tensor([0.5, -0.6]), torch.tensor([1.4, 1.2])  # shift and stretch
    z2_moves = torch.tensor([0.4]), torch.tensor([1.3])

    def q_z1(x: Tensor) -> Any:
        return moved(c.joint("z1", torch.eye(c.K)[1], x=x), *z1_moves) if perturb else c.p_z1_x(x)

    def q_y(z1: Tensor, x: Tensor) -> Any:
        return dist.OneHotCategorical(logits=c.log_joint_z1(x, z1) + tilt)

    def q_z2(x: Tensor, y: Tensor, z1: Tensor) -> Any:
        return moved(c.joint("z2", y, z1=z1), *z2_moves) if perturb else c.p_z2(y, z1=z1)

    model = CaGeM(
        p_x=Conditional(lambda y, z1: c.joint("x", y, z1=z1)),
        p_z1=Conditional(lambda y, z2: c.joint("z1", y, z2=z2)),
        p_y=Conditional(c.p_y),
        z2_dim=1,
    )
    guide = CaGeMGuide(q_z1=Conditional(q_z1), q_y=Conditional(q_y), q_z2=Conditional(q_z2))
    objective = ClusterAwareELBO(model, guide, **settings)
    exact = {"unlabelled": c.log_joint(x_unlabelled).logsumexp(-1)}
    if not perturb:
        return Case(objective, (x, y, x_unlabelled), exact, {}, {})

    def bound(z1: Tensor, plant: str = "") -> Tensor:
        """F given z1, with its expectation over z2 in closed form."""
        log_q_y = q_y(z1, x_unlabelled).logits
        posterior = c.joint("z2", torch.eye(c.K), z1=z1[..., None, :])
        q = moved(posterior, *z2_moves)
        inside = step_limits(dist.Normal(q.mean[..., 0], q.scale_tril[..., 0, 0]), c.edges).diff()
        log_p_y = (inside * c.table.T.log()).sum(-1)  # E log p(y | z2)
        log_p_y = c.log_p_y(z1=z1) if plant == "p(y | z1)" else log_p_y
        kl_z2 = 0 if plant == "no z2" else kl_divergence(q, posterior)
        inner = c.log_gaussian(x_unlabelled, z1) + log_p_y - kl_z2
        entropy = 0 if plant == "no entropy" else log_q_y
        return (log_q_y.exp() * (inner - entropy)).sum(-1) - q_z1(x_unlabelled).log_prob(z1)

    def gap(plant: str = "") -> Tensor:
        return exact["unlabelled"] - quadrature(lambda z1: bound(z1, plant), q_z1(x_unlabelled))

    wrong = [0 * gap(), *map(gap, ["p(y | z1)", "no z2", "no entropy"])]
    return Case(objective, (x, y, x_unlabelled), exact, {"unlabelled": gap()}, {"unlabelled": wrong})


# Binary x and latents in a box that matter by their signs


class Signs:
    """p(y) = Cat(π), z uniform in [−1.5, 1.5]^L, x | y, z ~ Bernoulli, whose logits depend on y and on z's signs."""

    K, D, L, HIGH = 4, 5, 3, 1.5

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.prior = torch.softmax(torch.randn(self.K, generator=generator), -1)
        self.logits = 1.5 * torch.randn(self.K, 2**self.L, self.D, generator=generator)  # K, cells, D

    @staticmethod
    def inverse_pair() -> "Signs":
        """Classes and signs as five independent bits, x as five others made from them: p(x) = Bern(x; 0.5)."""
        s = Signs()
        b1, b2 = torch.cartesian_prod(torch.tensor([-1.0, 1.0]), torch.tensor([-1.0, 1.0]))[:, None].unbind(-1)  # K, 1
        s1, s2, s3 = orthants(3)[None].unbind(-1)  # 1, cells
        bits = torch.broadcast_tensors(b1, b2 * s1, s1 * s2, b1 * s2 * s3, s3)
        s.logits = torch.stack(bits, -1) * torch.tensor([1.0, 0.7, 1.4, 0.5, 2.0])
        s.prior = torch.full((4,), 0.25)
        return s

    def p_x(self, y: Tensor, z: Tensor) -> Any:
        logits = torch.einsum("...k,...c,kcd->...d", y, cells(z), self.logits)
        return dist.Bernoulli(logits=logits).to_event(1)

    def log_cells(self, x: Tensor) -> Tensor:
        """log p(x, y, cell): (N, K, cells)."""
        x = x[..., None, None, :]
        log_p_x = (x * self.logits - functional.softplus(self.logits)).sum(-1)
        return log_p_x + self.prior.log()[:, None] - self.L * math.log(2)

    def log_q_cells(self, x: Tensor, size: float) -> Tensor:
        """log q(cell | x, y), which differs from p(cell | x, y) by `size`: (N, K, cells)."""
        return torch.log_softmax(self.log_cells(x) + size * torch.linspace(-1, 1, 2**self.L), -1)

    def q_z(self, x: Tensor, y: Tensor, size: float) -> Any:
        probs = torch.einsum("...k,...kc->...c", y, self.log_q_cells(x, size).exp())
        return Cells(probs, self.HIGH)

    def q_y(self, x: Tensor, size: float) -> Any:
        return dist.OneHotCategorical(logits=self.log_cells(x).logsumexp(-1) + size * 0.6 * torch.arange(4.0))

    def draw(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            y = torch.eye(self.K)[torch.multinomial(self.prior, n, replacement=True)]
            z = self.HIGH * (2 * torch.rand(n, self.L) - 1)
            return self.p_x(y, z).sample(), y

    def objective(self, size: float, **settings: Any) -> InvertedELBO:
        self.logits.requires_grad_()  # the reverse bound reads no rows that could be differentiated
        p_z = UniformBox(self.L, -self.HIGH, self.HIGH)
        model = M2(p_x=Conditional(self.p_x), y_dim=self.K, z_dim=self.L, y_prior=self.prior, p_z=p_z)
        guide = M2Guide(
            q_y=Conditional(lambda x: self.q_y(x, size)), q_z=Conditional(lambda x, y: self.q_z(x, y, size))
        )
        reverse = Reverse(q_y=guide.q_y, q_z=guide.q_z, x_dim=self.D)
        return InvertedELBO(model, guide, reverse_model=reverse, reverse_guide=ReverseGuide(p_x=model.p_x), **settings)


def untapped(perturb: bool = False, rows: int = 4, **settings: Any) -> Case:
    """Binary x of classes and signs, summed out by hand."""
    s, size = Signs(), 3 * float(perturb)
    (x, y), (x_unlabelled, _) = s.draw(rows, 2), s.draw(rows + 1, 3)

    def kl_z(x: Tensor) -> Tensor:  # N, K
        log_q, log_p = s.log_q_cells(x, size), s.log_q_cells(x, 0.0)
        return (log_q.exp() * (log_q - log_p)).sum(-1)

    log_q = s.q_y(x_unlabelled, size).logits
    log_p = torch.log_softmax(s.log_cells(x_unlabelled).logsumexp(-1), -1)
    kl_y, weighed = (log_q.exp() * (log_q - log_p)).sum(-1), (log_q.exp() * kl_z(x_unlabelled)).sum(-1)
    gap = {"labelled": (kl_z(x) * y).sum(-1), "unlabelled": kl_y + weighed}
    wrong = {
        "labelled": [0 * gap["labelled"], kl_z(x).max(-1).values],
        "unlabelled": [0 * kl_y, kl_y, weighed, kl_y + kl_z(x_unlabelled).mean(-1)],
    }
    exact = {
        "labelled": (s.log_cells(x).logsumexp(-1) * y).sum(-1),
        "unlabelled": s.log_cells(x_unlabelled).logsumexp((-1, -2)),
        "discriminative_y": (s.q_y(x, size).logits * y).sum(-1),
    }
    return Case(s.objective(size, **settings), (x, y, x_unlabelled), exact, gap, wrong)
