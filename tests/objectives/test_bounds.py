"""The bounds are the papers' bounds: exact values, gaps, what moves, invariances, calibration and weights.

The bounds written by hand are in `test_by_hand*.py`, their order and limits in `test_limits.py`, what is routed past
which parameters in `test_routing.py`. Everything is float64. "Rounding" is 1e-10; what is drawn is compared within 5
standard errors.
"""

import copy
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from analytic import CASES, DISTINCT, Case, LinearGaussian, m2
from analytic_gaussian import adgm, agm_dgm, sdgm, telling
from plain import SIGMAS, agrees, close, differences, gradients, moving, networks, perceptrons, rows
from pyro.distributions import OneHotCategorical
from pyro.poutine import trace, uncondition
from scipy import stats
from semipyro.inference import Objective, SemiSupervisedELBO
from semipyro.models import M2
from semipyro.papers import PAPERS
from torch import Tensor, nn
from tractable import Conditional

FROZEN: dict[str, set[str]] = {}  # paper → parameters that its objective leaves alone on purpose
LATENTS = ["z", "a", "z1", "z2"]
NOTHING = 1e-12  # a gradient that is zero but for rounding

pytestmark = pytest.mark.usefixtures("float64")


@torch.no_grad()
def repeated(case: Case, times: int, copies: int = 1) -> dict[str, Tensor]:
    """Independent estimates of each term, each over this many copies of the rows."""
    batch = [b if b is None else b.repeat(copies, 1) for b in case.rows]
    draws = [case.objective(*batch) for _ in range(times)]
    return {term: torch.stack([draw[term] for draw in draws]) for term in case.gap}


def unlabelled(case: Case) -> Case:
    """The case without its labelled rows."""
    return dataclasses.replace(case, rows=(None, None, case.rows[2]), gap={"unlabelled": case.gap["unlabelled"]})


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
    """log p − log q is the same for every draw where q is the posterior: it is log p(x), or log p(x, y)."""
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
    if "labelled" in case.exact and x is not None and y is not None:
        for i, exact in enumerate(case.exact["labelled"]):
            assert close(evaluate(case, x[i : i + 1], y[i : i + 1], None)["labelled"], exact)


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("model", [adgm, sdgm, agm_dgm])
def test_exact_where_the_auxiliary_variable_tells_of_the_class(
    model: Callable[..., nn.Module], num_samples: int
) -> None:
    """A q(y | a, x) that reads a, with the mixture q(a | x) that goes with it: U(x) = log p(x) for any a."""
    case = telling(model, num_samples=num_samples)
    for i, exact in enumerate(case.exact["unlabelled"]):
        assert close(evaluate(case, None, None, case.rows[2][i : i + 1])["unlabelled"], exact)
    probs = case.objective.guide.q_y(torch.tensor([[-2.0], [2.0]]), case.rows[2][:1]).probs
    assert (probs[0] - probs[1]).abs().max() > 0.1


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


@pytest.mark.parametrize("name", DISTINCT)
def test_the_gap_is_the_kl_divergence(name: str) -> None:
    """log p − E bound = KL(q ‖ p), with a guide that is wrong by known amounts; and no other divergence fits."""
    case = CASES[name](perturb=True)
    draws = repeated(case, 25, copies=1000)
    for term, gap in case.gap.items():
        gaps = case.exact[term].mean() - draws[term]
        assert agrees(gaps, gap.mean()), term
        for i, wrong in enumerate(case.wrong_gaps[term]):
            assert not agrees(gaps, wrong.mean()), f"{term}: the wrong gap {i} passes as well"


@pytest.mark.parametrize("name", DISTINCT)
def test_more_samples_average_the_same_bound(name: str) -> None:
    """num_samples averages draws: the variance falls by S, the mean stays (so it is not a sum, nor a maximum)."""
    one, many = (repeated(unlabelled(CASES[name](perturb=True, num_samples=s)), 60)["unlabelled"] for s in (1, 16))
    spread = (one.var() / len(one) + many.var() / len(many)).sqrt()
    assert abs(one.mean() - many.mean()) < SIGMAS * spread
    assert 16 / 3 < one.var() / many.var() < 16 * 3


# 4. Every parameter gets a gradient


@pytest.mark.parametrize("name", PAPERS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    """Over a labelled and an unlabelled call every parameter moves, unless it is named in `FROZEN`."""
    objective = networks(name)
    grads = gradients(objective(*batch_of(name))["loss"], objective)
    assert {n for n, g in grads.items() if (g.abs() < NOTHING).all()} == FROZEN.get(name, set())


def test_classification_weight_zero_leaves_the_classifier_alone() -> None:
    """Known labels teach q(y | x) through the classification term only: eq. (6) does not read it."""
    batch = (*rows()[:2], None)
    for weight in (0.0, 0.1):
        objective = perceptrons("m2", labelled_weight=1.0, classification_weight=weight)
        terms = objective(*batch)
        assert ("guide.q_y" in moving(terms["loss"], objective)) == (weight > 0)
        assert "classification" in terms
        assert close(terms["loss"], -terms["labelled"] - weight * terms["classification"])


def test_labelled_weight_zero_leaves_the_labelled_bound_out() -> None:
    """What is left of a labelled call is the classification term, which reaches only q(y | x)."""
    objective = perceptrons("m2", labelled_weight=0.0, classification_weight=2.0)
    terms = objective(*rows()[:2], None)
    assert close(terms["loss"], -2 * terms["classification"])
    assert moving(terms["loss"], objective) == {"guide.q_y"}


@pytest.mark.parametrize("name", ["latent-classifier", "latent-classifier-tight", "simplified", "appendix-c"])
def test_without_labels_the_simplified_model_has_no_classifier(name: str) -> None:
    """λ = 0 leaves p(y | z) of the simplified models untrained, hence the dashes in the thesis' table 1."""
    objective = perceptrons(name, labelled_weight=0.0)
    grads = gradients(objective(*rows())["loss"], objective)
    moved = any((g.abs() > NOTHING).any() for n, g in grads.items() if "p_y" in n)
    assert moved == (not name.startswith(("simplified", "appendix")))


# 6. Invariances

CHANCE = {"reverse"}  # the terms whose y, z and x are drawn anew, whatever the rows


def steady(name: str, **settings: Any) -> Objective:
    """Networks whose loss is without chance."""
    return perceptrons(name, **({"reverse_weight": 0.0} if name == "untapped" else {}), **settings)


def batch_of(name: str) -> tuple[Any, Any, Tensor]:
    return rows() if PAPERS[name].classifies else (None, None, rows()[2])


@pytest.mark.parametrize("name", PAPERS)
def test_order_of_rows_does_not_matter(name: str) -> None:
    """Permuting a batch (with its labels) changes neither a term nor a gradient."""
    objective, (x, y, x_unlabelled) = steady(name), rows()
    p, q = torch.randperm(len(x)), torch.randperm(len(x_unlabelled))
    permuted = (x[p], y[p]) if PAPERS[name].classifies else (None, None)
    assert differences(objective, batch_of(name), objective(*permuted, x_unlabelled[q]), CHANCE) == []


@pytest.mark.parametrize("name", PAPERS)
def test_parts_of_a_batch_add_up(name: str) -> None:
    """The mean over rows is the mean of two parts weighted by their rows, and so are its gradients."""
    objective, (_, _, x) = steady(name), rows()
    parts = [(part, len(part) / len(x)) for part in (x[:2], x[2:])]
    sums = [{k: w * v for k, v in objective(None, None, part).items()} for part, w in parts]
    assert differences(objective, (None, None, x), {k: sums[0][k] + sums[1][k] for k in sums[0]}, CHANCE) == []


@pytest.mark.parametrize("name", [name for name in PAPERS if PAPERS[name].classifies])
def test_labelled_parts_add_up(name: str) -> None:
    """The same for labelled rows: the two sides have their own numbers of rows."""
    objective, (x, y, _) = steady(name), rows()
    sums = [
        {k: n / 6 * v for k, v in objective(x[s], y[s], None).items()} for s, n in ((slice(2), 2), (slice(2, 6), 4))
    ]
    assert differences(objective, (x, y, None), {k: sums[0][k] + sums[1][k] for k in sums[0]}, CHANCE) == []


@pytest.mark.parametrize("name", [name for name in PAPERS if PAPERS[name].classifies])
def test_the_two_sides_do_not_mix(name: str) -> None:
    """A term is the same whether or not the other side is there, and the loss is the sum of both."""
    objective, (x, y, x_unlabelled) = steady(name), rows()
    both, left, right = objective(x, y, x_unlabelled), objective(x, y, None), objective(None, None, x_unlabelled)
    assert set(left) | set(right) == set(both)
    assert all(close(both[k], {**left, **right}[k]) for k in both.keys() - {"loss"} - CHANCE)
    assert close(both["loss"], left["loss"] + right["loss"])


READS_Y = {  # the place of y among a factor's arguments
    "M2": {"p_x": 0}, "M2Guide": {"q_z": 1},
    "ADGM": {"p_x": 0, "p_a": 1}, "SDGM": {"p_x": 1, "p_a": 0}, "ADGMGuide": {"q_z": 1},
    "GMDGM": {"p_z": 0}, "AGMDGM": {"p_z": 0, "p_a": 1},
    "CaGeM": {"p_x": 0, "p_z1": 0}, "CaGeMGuide": {"q_z2": 1},
    "LatentClassifier": {"p_x": 0},
}  # fmt: skip


def relabelled(objective: Objective, order: Tensor) -> Objective:
    """The objective with the same parameters whose class k is the old class order[k], in every factor."""
    new = copy.deepcopy(objective, {id(p): p for p in objective.parameters()})
    back = torch.argsort(order)

    def reading(net: nn.Module, i: int) -> nn.Module:
        return Conditional(lambda *c: net(*c[:i], c[i][..., back], *c[i + 1 :]))

    def giving(net: nn.Module) -> nn.Module:
        return Conditional(lambda *c: OneHotCategorical(logits=net(*c).logits[..., order]))

    for side in (new.model, new.guide):
        for factor, i in READS_Y.get(type(side).__name__, {}).items():
            setattr(side, factor, reading(getattr(side, factor), i))
        for factor in {"q_y", "p_y"} & dict(side.named_children()).keys():
            setattr(side, factor, giving(getattr(side, factor)))
    if hasattr(new, "adversary"):
        new.adversary = giving(new.adversary)
    if hasattr(new.model, "y_prior"):
        new.model.y_prior = new.model.y_prior[order]
    return new


@pytest.mark.parametrize("name", [name for name in PAPERS if PAPERS[name].classifies])
def test_names_of_classes_do_not_matter(name: str) -> None:
    """Relabelling the classes everywhere (networks, prior, labels) changes nothing; in the labels alone it does."""
    objective, (x, y, x_unlabelled) = steady(name), rows()
    order = torch.tensor([2, 0, 3, 1])
    new = relabelled(objective, order)
    assert differences(objective, (x, y, x_unlabelled), new(x, y[:, order], x_unlabelled), CHANCE) == []
    assert not close(new(x, y, None)["loss"], objective(x, y, None)["loss"])


# 7. Calibration by simulation


def ranks(case: Case, n: int, draws: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Of n draws of the model: its latents' ranks among the guide's draws given x, (n, ·); y and the guide's y."""
    with torch.no_grad():
        x_like = torch.zeros(n, case.rows[2].shape[1])
        truth = trace(uncondition(case.objective.model)).get_trace(x_like).nodes
        x = truth["x"]["value"].repeat_interleave(draws, 0)
        guess = trace(case.objective.guide).get_trace(x).nodes
    sites = [site for site in LATENTS if site in guess]
    found = [(guess[s]["value"].view(n, draws, -1) < truth[s]["value"][:, None]).sum(1) for s in sites]
    y, y_guess = (nodes["y"]["value"] if "y" in nodes else None for nodes in (truth, guess))
    return torch.cat(found, -1), y, y_guess


def p_values(case: Case, n: int = 3000, draws: int = 19) -> list[float]:
    """How likely such ranks and classes are if the guide is the posterior: uniform ranks, equal class frequencies."""
    rank, y, y_guess = ranks(case, n, draws)
    values = [stats.chisquare(torch.bincount(r, minlength=draws + 1).numpy()).pvalue for r in rank.T]
    if y is not None and y_guess is not None:  # the guide's classes of a row hang together, so they are averaged first
        excess = y - y_guess.view(n, draws, -1).mean(1)
        values += [float(p) for p in stats.ttest_1samp(excess.numpy(), 0.0).pvalue]
    return values


@pytest.mark.parametrize("name", DISTINCT)
def test_exact_guides_are_calibrated(name: str) -> None:
    """Draws of the model run forward and of the guide given x look alike; of a wrong guide they do not."""
    limit = 2 * stats.norm.sf(SIGMAS)
    assert min(p_values(CASES[name]())) > limit
    assert min(p_values(CASES[name](perturb=True))) < limit


# papers.weights


@pytest.mark.parametrize(
    ("n_labelled", "relative"),
    [(100, 50.0), (600, 25 / 3), (1000, 5.0), (3000, 5 / 3)],
)
def test_m2_weights_are_the_published_ones(n_labelled: int, relative: float) -> None:
    """Kingma's code, 50 000 images: a labelled bound counts 1 unlabelled one, its classification 0.1 · N / N_l."""
    n_unlabelled = 50_000 - n_labelled
    weights = PAPERS["m2"].weights(n_labelled, n_unlabelled)
    per_example = n_unlabelled / n_labelled
    assert weights["labelled_weight"] * per_example == pytest.approx(1, rel=1e-12)
    assert weights["classification_weight"] * per_example == pytest.approx(relative, rel=1e-12)


N_L, N_U = 6, 7  # as many rows as `rows` has, so that one batch holds them all


def paper_sums(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each paper's J, to be maximised, from means over its N_l labelled and N_u unlabelled rows."""
    n = N_L + N_U
    sums = {k: (N_U if k in ("unlabelled", "surrogate") else N_L) * v for k, v in terms.items() if k != "loss"}
    L, U, log_q = (sums.get(k, torch.tensor(0.0)) for k in ("labelled", "unlabelled", "classification"))
    maaloe = U + L + 0.1 * n / N_L * log_q  # α = β (N_l + N_u) / N_l
    willetts = U + N_U * (L / N_L + 1.1 * log_q / N_L)  # means, and α = 1.1
    means = N_U * L / N_L  # beside U, a sum: the thesis has U + λ L, means
    return {
        "m1": U,
        **dict.fromkeys(["m2", "m1-m2"], U + L + 0.1 * n * log_q / N_L),  # eq. (9), α = 0.1 N on the mean
        **dict.fromkeys(["adgm-workshop", "adgm-deterministic", "adgm", "sdgm"], maaloe),
        **dict.fromkeys(["gm-dgm", "agm-dgm"], willetts),
        "cagem": U + 0.1 * n / N_L * (sums.get("classification_q", 0) + sums.get("classification_p", 0)),
        **dict.fromkeys(["latent-classifier", "latent-classifier-tight"], U + 0.5 * means),
        **dict.fromkeys(["simplified", "appendix-c"], U + 0.001 * means),
        "m2-adversarial": U + means + N_U * log_q / N_L,  # α = 1; the adversary's part has a gradient only
        "untapped": U
        + N_U
        * (
            L / N_L
            + sum(
                w * terms.get(k, 0) for k, w in {"reverse": 1, "discriminative_y": 10, "discriminative_x": 0.1}.items()
            )
        ),
    }


@pytest.mark.parametrize("name", PAPERS)
def test_weights_give_the_papers_sum(name: str) -> None:
    """loss · N_u = −J, with all rows in the batch and every weight from `weights`."""
    weights = PAPERS[name].weights(N_L, N_U)
    terms = perceptrons(name, **weights)(*batch_of(name))
    assert close(terms["loss"] * N_U, -paper_sums(terms)[name])


@pytest.mark.parametrize(
    ("name", "keyword", "weight"),
    [
        ("m2", "alpha", "classification_weight"),
        ("sdgm", "beta", "classification_weight"),
        ("agm-dgm", "alpha", "classification_weight"),
        ("cagem", "beta", "classification_weight"),
        ("simplified", "lam", "labelled_weight"),
    ],
)
def test_the_papers_constants_scale_their_weights(name: str, keyword: str, weight: str) -> None:
    """α, β and λ are keywords, and enter in proportion."""
    one, three = (PAPERS[name].weights(100, 900, **{keyword: value}) for value in (0.2, 0.6))
    assert three[weight] == pytest.approx(3 * one[weight])


@pytest.mark.parametrize("name", PAPERS)
def test_weights_are_settings_of_the_objective(name: str) -> None:
    """What `weights` returns is what `build` takes."""
    weights = PAPERS[name].weights(100, 1000)
    objective = PAPERS[name].build(5, 3, z_dim=2, hidden=(4,), **weights)
    assert {key: getattr(objective, key) for key in weights} == weights
