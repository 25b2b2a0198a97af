"""The bounds are the papers' bounds: exact values, gaps, sums over y by hand, limits and invariances.

Everything is float64. "Rounding" is 1e-10; what is drawn is compared within 5 standard errors.
"""

import inspect
import math
from typing import Any

import pyro
import pytest
import torch
import torch.nn.functional as F
from analytic import CASES, Case, Conditional, FixedDraw, LinearGaussian, m2
from pyro.distributions import OneHotCategorical
from pyro.poutine import trace, uncondition
from scipy import stats
from semipyro.guides import M2Guide
from semipyro.inference import ELBO, Objective, SemiSupervisedELBO, log_likelihood
from semipyro.models import M2
from semipyro.papers import PAPERS
from torch import Tensor, nn

ROUNDING = 1e-10
SIGMAS = 5
PRIOR = [0.5, 0.2, 0.3]
NOISE = torch.tensor([0.8, -1.1, 0.3, 0.5], dtype=torch.float64)  # L = 4
NOISES = torch.stack([NOISE, -0.5 * NOISE, NOISE.flip(0)])[:, None]  # S = 3: (3, 1, 4)
FROZEN: dict[str, set[str]] = {}  # paper → parameters that its objective leaves alone on purpose


pytestmark = pytest.mark.usefixtures("float64")


def close(a: Tensor | float, b: Tensor | float) -> bool:
    return bool(torch.allclose(torch.as_tensor(a), torch.as_tensor(b), rtol=ROUNDING, atol=ROUNDING))


def agrees(draws: Tensor, expected: Tensor | float, sigmas: float = SIGMAS) -> bool:
    """Whether the mean of independent draws is `expected`, within standard errors estimated from the draws."""
    return bool((draws.mean(0) - expected).abs() <= sigmas * draws.std(0) / len(draws) ** 0.5)


@torch.no_grad()
def repeated(case: Case, times: int) -> dict[str, Tensor]:
    """Independent estimates of each term."""
    draws = [case.objective(*case.rows) for _ in range(times)]
    return {term: torch.stack([draw[term] for draw in draws]) for term in case.gap}


# 1. Exact at the exact posterior


def test_every_paper_has_an_analytic_case() -> None:
    """A paper comes with a case in which its own classes meet closed forms."""
    assert set(CASES) == set(PAPERS)
    for name, case in CASES.items():
        built, exact = PAPERS[name].build(5, 3, z_dim=2, hidden=(4,)), case().objective
        assert type(exact) is type(built)
        assert type(exact.model) is type(built.model)
        assert type(exact.guide) is type(built.guide)


def evaluate(case: Case, *batch: Tensor | None, grad: bool = False) -> dict[str, Tensor]:
    """The terms, without or with a graph (these models have no parameters, so x is what is differentiated)."""
    with torch.set_grad_enabled(grad):
        return case.objective(*(b if b is None else b.clone().requires_grad_(grad) for b in batch))


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_one_draw_is_exact_at_the_exact_posterior(name: str, num_samples: int, grad: bool) -> None:
    """log p − log q is the same for every z where q is the posterior: any draw gives log p(x), or log p(x, y)."""
    case = CASES[name](num_samples=num_samples)
    for _ in range(3):
        terms = evaluate(case, *case.rows, grad=grad)
        for term, exact in case.exact.items():
            assert close(terms[term], exact.mean()), term


@pytest.mark.parametrize("name", CASES)
def test_every_row_is_exact_at_the_exact_posterior(name: str) -> None:
    """One row at a time, so that no error of one row makes up for another's."""
    case = CASES[name]()
    x, y, x_unlabelled = case.rows
    for i, exact in enumerate(case.exact["unlabelled"]):
        assert close(evaluate(case, None, None, x_unlabelled[i : i + 1])["unlabelled"], exact)
    if x is not None and y is not None:
        for i, exact in enumerate(case.exact["labelled"]):
            assert close(evaluate(case, x[i : i + 1], y[i : i + 1], None)["labelled"], exact)


def test_closed_forms_by_quadrature() -> None:
    """The closed form of log p(x, y) itself, against an integral over a grid of z (L = 1)."""
    model = LinearGaussian(K=2, D=2, L=1)
    x, _ = model.draw(3)
    z = torch.linspace(-9, 9, 4001)[:, None, None]
    log_p_z = -(z**2)[..., 0] / 2 - math.log(2 * math.pi) / 2
    for k in range(2):
        y = torch.eye(2)[k].expand(3, 2)
        mean = (y @ model.s * z) @ model.Q.T + y @ model.b
        log_p_x = stats.norm.logpdf(x.numpy(), mean.numpy(), model.sigma).sum(-1)
        integral = torch.trapezoid((torch.tensor(log_p_x) + log_p_z).exp(), z[:, :, 0], dim=0)
        assert torch.allclose(integral.log() + model.prior[k].log(), model.log_joint(x)[:, k], atol=1e-8)


class ForgetsPrior(M2):
    """M2 without p(y)."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            with pyro.poutine.mask(mask=False):
                y = pyro.sample("y", OneHotCategorical(self.y_prior), obs=y)
            pyro.sample("x", self.p_x(y, pyro.sample("z", self.p_z())), obs=x)


class WidePrior(M2):
    """M2 with another p(z)."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", OneHotCategorical(self.y_prior), obs=y)
            z = pyro.sample("z", pyro.distributions.Normal(torch.zeros(2), 3.0).to_event(1))
            pyro.sample("x", self.p_x(y, z), obs=x)


class UniformLabels(M2):
    """M2 that takes p(y) to be uniform."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", OneHotCategorical(torch.ones_like(self.y_prior)), obs=y)
            pyro.sample("x", self.p_x(y, pyro.sample("z", self.p_z())), obs=x)


@pytest.mark.parametrize("wrong", [ForgetsPrior, WidePrior, UniformLabels])
def test_a_wrong_model_is_not_exact(wrong: type[M2]) -> None:
    """The same guide and conditionals with a wrong model: both bounds leave the exact value."""
    case = m2()
    right = case.objective.model
    model = wrong(p_x=right.p_x, y_dim=3, z_dim=2, y_prior=right.y_prior)
    with torch.no_grad():
        terms = SemiSupervisedELBO(model, case.objective.guide)(*case.rows)
    assert abs(terms["labelled"] - case.exact["labelled"].mean()) > 1e-3
    assert abs(terms["unlabelled"] - case.exact["unlabelled"].mean()) > 1e-3


# 2. Gap = KL


@pytest.mark.parametrize("name", CASES)
def test_the_gap_is_the_kl_divergence(name: str) -> None:
    """log p − E bound = KL(q ‖ p), with a guide that is wrong by known amounts; and no other divergence fits."""
    case = CASES[name](perturb=True, num_samples=200)
    draws = repeated(case, 25)
    for term, gap in case.gap.items():
        gaps = case.exact[term].mean() - draws[term]
        assert agrees(gaps, gap.mean()), term
        for i, wrong in enumerate(case.wrong_gaps[term]):
            assert not agrees(gaps, wrong.mean()), f"{term}: the wrong gap {i} passes as well"


@pytest.mark.parametrize("name", CASES)
def test_more_samples_average_the_same_bound(name: str) -> None:
    """num_samples averages draws: the variance falls by S, the mean stays (so it is not a sum, nor a maximum)."""
    one, many = (repeated(CASES[name](perturb=True, num_samples=s), 60)["unlabelled"] for s in (1, 16))
    spread = (one.var() / len(one) + many.var() / len(many)).sqrt()
    assert abs(one.mean() - many.mean()) < SIGMAS * spread
    assert 16 / 3 < one.var() / many.var() < 16 * 3


# 3. By hand = by Pyro


def perceptrons(name: str, *, L: int = 4, D: int = 5, K: int = 3, S: int = 1, **settings: Any) -> Objective:
    """A paper's own networks with random weights, whose draws of z are fixed."""
    if PAPERS[name].classifies:
        settings = {"y_prior": torch.tensor(PRIOR)[:K] / sum(PRIOR[:K]), **settings}
    objective = PAPERS[name].build(D, K, z_dim=L, hidden=(6,), num_samples=S, **settings)
    for parameter in objective.parameters():
        nn.init.normal_(parameter, std=0.6)
    objective.guide.q_z = FixedDraw(objective.guide.q_z, NOISE[:L] if S == 1 else NOISES[..., :L])
    return objective


def rows(N_l: int = 4, N_u: int = 7, D: int = 5, K: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.bernoulli(torch.full((N_l + N_u, D), 0.5), generator=generator)
    y = torch.eye(K)[torch.randint(K, (N_l,), generator=generator)]
    return x[:N_l], y, x[N_l:]


def log_normal(z: Tensor, mean: Tensor | float, scale: Tensor | float) -> Tensor:
    """log N(z; mean, scale²), summed over dimensions."""
    scale = torch.as_tensor(scale)
    return (-(((z - mean) / scale) ** 2) / 2 - scale.log() - math.log(2 * math.pi) / 2).sum(-1)


def log_bernoulli(x: Tensor, logits: Tensor) -> Tensor:
    """x log μ + (1 − x) log(1 − μ), summed over dimensions."""
    return (x * F.logsigmoid(logits) + (1 - x) * F.logsigmoid(-logits)).sum(-1)


def eq_6(objective: Objective, x: Tensor, y: Tensor, plant: str = "", y_of_z: Tensor | None = None) -> Tensor:
    """L(x, y) = E_q(z | x, y) [log p(x | y, z) + log p(y) + log p(z) − log q(z | x, y)], (N,): eq. (6).

    `y_of_z` is the class from which z is drawn, where an error is planted there.
    """
    model, guide, weight = objective.model, objective.guide, objective.kl_weight
    bounds = []
    for noise in guide.q_z.noise.reshape(-1, 1, guide.q_z.noise.shape[-1]):
        q_z = guide.q_z.net(x, y if y_of_z is None else y_of_z).base_dist
        z = q_z.loc + q_z.scale * noise
        log_p_x = log_bernoulli(x, model.p_x(y, z).base_dist.logits)
        log_p_y = (model.y_prior.log() * y).sum(-1)
        log_p_y = {"no p(y)": 0 * log_p_y, "prior ignored": 0 * log_p_y - math.log(y.shape[-1])}.get(plant, log_p_y)
        kl_z = log_normal(z, 0.0, 1.0) - log_normal(z, q_z.loc, q_z.scale)
        kl_z = {"no KL of z": 0 * kl_z, "kl_weight ignored": kl_z}.get(plant, weight * kl_z)
        bounds.append(torch.stack(torch.broadcast_tensors(log_p_x, log_p_y, kl_z)))  # 3, N
    kept = bounds[:1] if plant == "one sample" else bounds
    return torch.stack(kept).mean(0)


def eq_7(objective: Objective, x: Tensor, plant: str = "") -> Tensor:
    """U(x) = Σ_y q(y | x) (L(x, y) − log q(y | x)), (N,): eq. (7), with y latent and hence under kl_weight."""
    logits = objective.guide.q_y(x).logits
    log_q_y = logits - torch.logsumexp(logits, -1, keepdim=True)
    K, total = log_q_y.shape[-1], torch.zeros(len(x))
    for k in range(K):
        y = torch.eye(K)[k].expand(len(x), K)
        log_p_x, log_p_y, kl_z = eq_6(
            objective, x, y, plant, torch.eye(K)[:1].expand(len(x), K) if "shared" in plant else None
        )
        kl_y = log_p_y - (0.0 if plant == "no entropy" else log_q_y[:, k])
        kl_y = kl_y if plant == "kl_weight not on y" else kl_y * objective.kl_weight
        q_y = 1 / K if plant == "uniform weights" else log_q_y[:, k].exp()
        q_y = q_y.detach() if plant == "q(y) detached" else q_y
        total = total + q_y * (log_p_x + kl_y + kl_z)
    return total


def by_hand(
    objective: SemiSupervisedELBO,
    x: Tensor | None,
    y: Tensor | None,
    x_unlabelled: Tensor | None,
    *,
    weights: tuple[float, float],
    plant: str = "",
) -> dict[str, Tensor]:
    """The terms of M2's objective and its loss, eq. (9) with means for sums."""
    mean = torch.sum if plant == "sum for mean" else torch.mean
    terms = {}
    if x is not None and y is not None:
        log_p_x, log_p_y, kl_z = eq_6(objective, x, y, plant)
        terms["labelled"] = mean(
            log_p_x + kl_z + log_p_y * (objective.kl_weight if plant == "p(y) of known y scaled" else 1)
        )
        terms["classification"] = mean((torch.log_softmax(objective.guide.q_y(x).logits, -1) * y).sum(-1))
    if x_unlabelled is not None:
        terms["unlabelled"] = mean(eq_7(objective, x_unlabelled, plant))
    labelled, classification = (0.0, 0.0) if x is None else (terms["labelled"], terms["classification"])
    labelled_weight, classification_weight = weights
    labelled_weight = 1.0 if plant == "labelled weight dropped" else labelled_weight
    classification_weight = 0.0 if plant == "classification weight dropped" else classification_weight
    terms["loss"] = -(
        terms.get("unlabelled", 0.0) + labelled_weight * labelled + classification_weight * classification
    )
    return terms


def gradients(loss: Tensor, objective: Objective) -> dict[str, Tensor]:
    """The gradient of every parameter, by name; zero where there is none."""
    named = dict(objective.named_parameters())
    values = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: torch.zeros_like(named[name]) if g is None else g for name, g in zip(named, values, strict=True)}


def differences(objective: Objective, batch: tuple[Any, Any, Any], hand: dict[str, Tensor]) -> list[str]:
    """Which terms, and whose gradients, are not what was computed by hand."""
    terms = objective(*batch)
    assert set(terms) == set(hand)
    mine, theirs = gradients(hand["loss"], objective), gradients(terms["loss"], objective)
    found = [name for name in terms if not close(terms[name], hand[name])]
    return found + [name for name in mine if not close(mine[name], theirs[name])]


WEIGHTS = (0.6, 2.5)  # labelled, classification


def m2_objective(**settings: Any) -> Objective:
    return perceptrons("m2", labelled_weight=WEIGHTS[0], classification_weight=WEIGHTS[1], **settings)


@pytest.mark.parametrize("prior", [None, PRIOR], ids=["uniform prior", "prior"])
@pytest.mark.parametrize("kl_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("S", [1, 3])
@pytest.mark.parametrize("sides", ["labelled", "unlabelled", "both"])
def test_m2_by_hand(sides: str, S: int, kl_weight: float, prior: list[float] | None) -> None:
    """Eqs. (6), (7) and the classification term in plain torch: every term and every gradient, to rounding."""
    objective = m2_objective(S=S, y_prior=None if prior is None else torch.tensor(prior))
    objective.kl_weight.fill_(kl_weight)
    x, y, x_unlabelled = rows()
    batch = {"labelled": (x, y, None), "unlabelled": (None, None, x_unlabelled), "both": (x, y, x_unlabelled)}[sides]
    assert differences(objective, batch, by_hand(objective, *batch, weights=WEIGHTS)) == []


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        ("no p(y)", {"labelled", "unlabelled"}),
        ("prior ignored", {"labelled", "unlabelled"}),
        ("no entropy", {"unlabelled"}),
        ("no KL of z", {"labelled", "unlabelled"}),
        ("z shared by the classes", {"unlabelled"}),
        ("uniform weights", {"unlabelled"}),
        ("q(y) detached", {"guide.q_y.mlp.first.weight"}),
        ("sum for mean", {"labelled", "unlabelled", "classification"}),
        ("one sample", {"labelled", "unlabelled"}),
        ("kl_weight ignored", {"labelled", "unlabelled"}),
        ("kl_weight not on y", {"unlabelled"}),
        ("p(y) of known y scaled", {"labelled"}),
        ("labelled weight dropped", {"loss"}),
        ("classification weight dropped", {"loss"}),
    ],
)
def test_planted_errors_are_found(plant: str, found: set[str]) -> None:
    """The comparison by hand fails for each of these, in the terms where the error is."""
    objective = m2_objective(S=3)
    objective.kl_weight.fill_(0.3)
    wrong = set(differences(objective, rows(), by_hand(objective, *rows(), weights=WEIGHTS, plant=plant)))
    assert found <= wrong
    terms = {"labelled", "unlabelled", "classification"}
    assert wrong & terms == found & terms


@pytest.mark.parametrize("kl_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("S", [1, 3])
def test_m1_by_hand(S: int, kl_weight: float) -> None:
    """Eq. (5) of the paper, log p(x | z) + log p(z) − log q(z | x): value and every gradient, to rounding."""
    objective, (_, _, x) = perceptrons("m1", S=S), rows()
    objective.kl_weight.fill_(kl_weight)
    bounds = []
    for noise in objective.guide.q_z.noise.reshape(S, 1, -1):
        q_z = objective.guide.q_z.net(x).base_dist
        z = q_z.loc + q_z.scale * noise
        log_p_x = log_bernoulli(x, objective.model.p_x(z).base_dist.logits)
        bounds.append(log_p_x + kl_weight * (log_normal(z, 0.0, 1.0) - log_normal(z, q_z.loc, q_z.scale)))
    bound = torch.stack(bounds).mean()
    assert differences(objective, (None, None, x), {"unlabelled": bound, "loss": -bound}) == []


def test_by_hand_with_a_gaussian_likelihood() -> None:
    """The same with p(x | y, z) = N: real x, mean and scale of the likelihood from the network."""
    objective = m2_objective(likelihood="normal")
    x = torch.randn(4, 5)
    y = torch.eye(3)[[0, 2, 1, 1]]
    q_z = objective.guide.q_z.net(x, y).base_dist
    z = q_z.loc + q_z.scale * NOISE
    p_x = objective.model.p_x(y, z).base_dist
    hand = log_normal(x, p_x.loc, p_x.scale) + (y * torch.tensor(PRIOR).log()).sum(-1)
    hand = hand + log_normal(z, 0.0, 1.0) - log_normal(z, q_z.loc, q_z.scale)
    assert close(objective(x, y, None)["labelled"], hand.mean())


def swapped(net: nn.Module) -> nn.Module:
    """The conditional with its two arguments exchanged."""
    conditional = Conditional(lambda a, b: net(b, a))
    conditional.net = net  # its parameters stay the objective's
    return conditional


@pytest.mark.parametrize("factor", ["model.p_x", "guide.q_z"])
def test_swapped_arguments_are_found(factor: str) -> None:
    """With different widths they are an error; with equal ones the bound by hand sees them."""
    side, name = factor.split(".")
    objective = m2_objective()
    setattr(getattr(objective, side), name, swapped(getattr(getattr(objective, side), name)))
    with pytest.raises(ValueError, match="must have shape"):
        objective(*rows())
    equal = m2_objective(L=3, D=3)
    batch = rows(D=3)
    hand = by_hand(equal, *batch, weights=WEIGHTS)
    net = getattr(getattr(equal, side), name)
    inner = net.net if isinstance(net, FixedDraw) else net
    setattr(getattr(equal, side), name, FixedDraw(swapped(inner), NOISE[:3]) if inner is not net else swapped(net))
    assert not close(equal(*batch)["labelled"], hand["labelled"])


# 4. Every parameter gets a gradient


@pytest.mark.parametrize("name", PAPERS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    """Over a labelled and an unlabelled call every parameter moves, unless it is named in `FROZEN`."""
    objective = PAPERS[name].build(5, 3, z_dim=2, hidden=(4,))
    for parameter in objective.parameters():
        nn.init.normal_(parameter, std=0.6)
    x, y, x_unlabelled = rows()
    if PAPERS[name].classifies:
        objective(x, y, None)["loss"].backward()
    objective(None, None, x_unlabelled)["loss"].backward()
    still = {n for n, p in objective.named_parameters() if p.grad is None or not (p.grad != 0).any()}
    assert still == FROZEN.get(name, set())


def test_classification_weight_zero_leaves_the_classifier_alone() -> None:
    """Known labels teach q(y | x) through the classification term only: eq. (6) does not read it."""
    batch = (*rows()[:2], None)
    for weight in (0.0, 0.1):
        objective = perceptrons("m2", labelled_weight=1.0, classification_weight=weight)
        terms = objective(*batch)
        moved = {n for n, g in gradients(terms["loss"], objective).items() if (g != 0).any()}
        assert any("q_y" in n for n in moved) == (weight > 0)
        assert "classification" in terms
        assert close(terms["loss"], -terms["labelled"] - weight * terms["classification"])


def test_labelled_weight_zero_leaves_the_labelled_bound_out() -> None:
    """What is left of a labelled call is the classification term, which reaches only q(y | x)."""
    objective = perceptrons("m2", labelled_weight=0.0, classification_weight=2.0)
    terms = objective(*rows()[:2], None)
    assert close(terms["loss"], -2 * terms["classification"])
    moved = {n for n, g in gradients(terms["loss"], objective).items() if (g != 0).any()}
    assert moved == {n for n, _ in objective.named_parameters() if "guide.q_y" in n}


# 5. Order and limits


@pytest.mark.parametrize("name", CASES)
def test_order_of_the_bounds(name: str) -> None:
    """E ELBO ≤ E IW-5 ≤ E IW-50 ≤ log p(x), each by more than 5 standard errors, where the guide is not exact."""
    case = CASES[name](perturb=True)
    x = case.rows[2][:1].expand(20_000, -1)  # one row many times over: independent estimates
    with torch.no_grad():
        steps = [torch.stack([case.objective(None, None, x)["unlabelled"] for _ in range(30)])]
    steps += [log_likelihood(case.objective.model, case.objective.guide, x, num_samples=s) for s in (5, 50)]
    exact = case.exact["unlabelled"][:1].expand(2)
    for low, high in zip(steps, [*steps[1:], exact], strict=True):
        spread = (low.var() / len(low) + high.var() / len(high)).sqrt()
        assert high.mean() - low.mean() > SIGMAS * spread


def with_one_class(L: int = 4, D: int = 5) -> tuple[ELBO, SemiSupervisedELBO]:
    """A VAE, and M2 with K = 1 and the very same networks, which do not read y."""
    vae = perceptrons("m1", L=L, D=D)
    p_x, q_z = vae.model.p_x, vae.guide.q_z
    model = M2(p_x=Conditional(lambda y, z: p_x(z)), y_dim=1, z_dim=L)
    one = Conditional(lambda x: OneHotCategorical(logits=x[..., :1]))
    return vae, SemiSupervisedELBO(model, M2Guide(q_y=one, q_z=Conditional(lambda x, y: q_z(x))))


def test_m2_with_one_class_is_the_vae() -> None:
    """K = 1: log p(y) = log q(y | x) = 0, so that U(x) = L(x, y) = the VAE's bound, with its gradients."""
    vae, one = with_one_class()
    x = rows()[2]
    expected, terms = vae(None, None, x), one(x, torch.ones(len(x), 1), x)
    assert close(terms["classification"], 0.0)
    for term in ("labelled", "unlabelled"):
        assert close(terms[term], expected["unlabelled"])
        a, b = gradients(-terms[term], vae), gradients(vae(None, None, x)["loss"], vae)
        assert all(close(a[n], b[n]) for n in a)


def test_known_class_is_the_limit_of_a_sure_classifier() -> None:
    """Where q(y | x) is sure of y, U(x) = L(x, y): the weight, the entropy and the sum vanish."""
    objective, (x, y, _) = perceptrons("m2"), rows()
    objective.guide.q_y = Conditional(lambda x: OneHotCategorical(logits=1e3 * y))
    terms = objective(x, y, x)
    assert close(terms["unlabelled"], terms["labelled"])


# 6. Invariances


@pytest.mark.parametrize("name", PAPERS)
def test_order_of_rows_does_not_matter(name: str) -> None:
    """Permuting a batch (with its labels) changes neither a term nor a gradient."""
    objective, (x, y, x_unlabelled) = perceptrons(name), rows()
    p, q = torch.randperm(len(x)), torch.randperm(len(x_unlabelled))
    sides = (x, y) if PAPERS[name].classifies else (None, None)
    permuted = (x[p], y[p]) if PAPERS[name].classifies else (None, None)
    assert differences(objective, (*sides, x_unlabelled), objective(*permuted, x_unlabelled[q])) == []


@pytest.mark.parametrize("name", PAPERS)
def test_parts_of_a_batch_add_up(name: str) -> None:
    """The mean over rows is the mean of two parts weighted by their rows, and so are its gradients."""
    objective, (_, _, x) = perceptrons(name), rows()
    parts = [(part, len(part) / len(x)) for part in (x[:2], x[2:])]
    sums = [{k: w * v for k, v in objective(None, None, part).items()} for part, w in parts]
    assert differences(objective, (None, None, x), {k: sums[0][k] + sums[1][k] for k in sums[0]}) == []


def test_labelled_parts_add_up() -> None:
    """The same for labelled rows: the two sides have their own numbers of rows."""
    objective, (x, y, _) = m2_objective(), rows()
    sums = [
        {k: n / 4 * v for k, v in objective(x[s], y[s], None).items()} for s, n in ((slice(1), 1), (slice(1, 4), 3))
    ]
    assert differences(objective, (x, y, None), {k: sums[0][k] + sums[1][k] for k in sums[0]}) == []


def test_the_two_sides_do_not_mix() -> None:
    """A term is the same whether or not the other side is there, and the loss is the sum of both."""
    objective, (x, y, x_unlabelled) = m2_objective(), rows()
    both, left, right = objective(x, y, x_unlabelled), objective(x, y, None), objective(None, None, x_unlabelled)
    assert set(left) | set(right) == set(both)
    assert all(close(both[k], {**left, **right}[k]) for k in both if k != "loss")
    assert close(both["loss"], left["loss"] + right["loss"])


def test_names_of_classes_do_not_matter() -> None:
    """Relabelling the classes everywhere (networks, prior, labels) changes nothing."""
    objective, (x, y, x_unlabelled) = m2_objective(), rows()
    order = torch.tensor([2, 0, 1])  # new class k is old class order[k]
    back = torch.argsort(order)
    p_x, q_y, q_z = objective.model.p_x, objective.guide.q_y, objective.guide.q_z
    model = M2(
        p_x=Conditional(lambda y, z: p_x(y[..., back], z)), y_dim=3, z_dim=4, y_prior=objective.model.y_prior[order]
    )
    guide = M2Guide(
        q_y=Conditional(lambda x: OneHotCategorical(logits=q_y(x).logits[..., order])),
        q_z=Conditional(lambda x, y: q_z(x, y[..., back])),
    )
    relabelled = SemiSupervisedELBO(model, guide, labelled_weight=WEIGHTS[0], classification_weight=WEIGHTS[1])
    assert differences(objective, (x, y, x_unlabelled), relabelled(x, y[:, order], x_unlabelled)) == []
    assert not close(relabelled(x, y, None)["labelled"], objective(x, y, None)["labelled"])


# 7. Calibration by simulation


def ranks(case: Case, n: int, draws: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of n draws (y, z, x) of the model: z's rank among the guide's draws given x, (n, L); y and the guide's y."""
    with torch.no_grad():
        x_like = torch.zeros(n, case.rows[2].shape[1])
        truth = trace(uncondition(case.objective.model)).get_trace(x_like).nodes
        x = truth["x"]["value"].repeat_interleave(draws, 0)
        guess = trace(case.objective.guide).get_trace(x).nodes
    z = guess["z"]["value"].view(n, draws, -1)
    y, y_guess = (nodes["y"]["value"] if "y" in nodes else torch.ones(1, 1) for nodes in (truth, guess))
    return (z < truth["z"]["value"][:, None]).sum(1), y, y_guess


def p_values(case: Case, n: int = 3000, draws: int = 19) -> list[float]:
    """How likely such ranks and classes are if the guide is the posterior: uniform ranks, equal class frequencies."""
    rank, y, y_guess = ranks(case, n, draws)
    values = [stats.chisquare(torch.bincount(r, minlength=draws + 1).numpy()).pvalue for r in rank.T]
    if y.shape[-1] > 1:  # the guide's `draws` classes of a row hang together, so they are averaged first
        excess = y - y_guess.view(n, draws, -1).mean(1)
        values += [float(p) for p in stats.ttest_1samp(excess.numpy(), 0.0).pvalue]
    return values


@pytest.mark.parametrize("name", CASES)
def test_exact_guides_are_calibrated(name: str) -> None:
    """Draws (y, z, x) of the model run forward and of the guide given x look alike; of a wrong guide they do not."""
    limit = 2 * stats.norm.sf(SIGMAS)
    assert min(p_values(CASES[name]())) > limit
    assert min(p_values(CASES[name](perturb=True))) < limit


# papers.weights


@pytest.mark.parametrize(
    ("n_labelled", "batch", "relative"),
    [(100, (1, 499), 50.0), (600, (3, 247), 25 / 3), (1000, (5, 245), 5.0), (3000, (15, 235), 5 / 3)],
)
def test_m2_weights_are_the_published_ones(n_labelled: int, batch: tuple[int, int], relative: float) -> None:
    """Kingma's code, 50 000 images: a labelled bound counts 1 unlabelled one, its classification 0.1 · N / N_l."""
    n_unlabelled = 50_000 - n_labelled
    weights = PAPERS["m2"].weights(n_labelled, n_unlabelled, *batch)
    per_example = n_unlabelled / n_labelled
    assert weights["labelled_weight"] * per_example == pytest.approx(1, rel=1e-12)
    assert weights["classification_weight"] * per_example == pytest.approx(relative, rel=1e-12)


def test_m2_weights_give_the_papers_sum() -> None:
    """loss · N_u = −(Σ U + Σ L + α · mean log q(y | x)), α = 0.1 · N: eq. (9) with all rows in the batch."""
    x, y, x_unlabelled = rows()
    objective = perceptrons("m2", **PAPERS["m2"].weights(len(x), len(x_unlabelled), len(x), len(x_unlabelled)))
    hand = by_hand(objective, x, y, x_unlabelled, weights=(1.0, 1.0))
    alpha = 0.1 * (len(x) + len(x_unlabelled))
    paper = hand["unlabelled"] * len(x_unlabelled) + hand["labelled"] * len(x) + alpha * hand["classification"]
    assert close(objective(x, y, x_unlabelled)["loss"] * len(x_unlabelled), -paper)


@pytest.mark.parametrize("name", PAPERS)
def test_weights_are_settings_of_the_objective(name: str) -> None:
    """What `weights` returns is what `build` takes."""
    weights = PAPERS[name].weights(100, 1000, 50, 100)
    objective = PAPERS[name].build(5, 3, z_dim=2, hidden=(4,), **weights)
    assert set(weights) <= set(inspect.signature(type(objective)).parameters)
