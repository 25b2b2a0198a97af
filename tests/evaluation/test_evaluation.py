"""What is measured after training: the importance-weighted bound, accuracy, and draws of the model."""

import functools
import math
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.distributions import Bernoulli, Normal, OneHotCategorical
from semipyro.distributions import BernoulliNet, StandardNormal
from semipyro.guides import ADGMGuide, CaGeMGuide, M2Guide
from semipyro.inference import Objective, accuracy, cascade, evaluate, log_likelihood, sample
from semipyro.inference.objectives.enumeration import class_weights
from semipyro.models import (
    ADGM,
    AGMDGM,
    GMDGM,
    M2,
    SDGM,
    VAE,
    CaGeM,
    LatentClassifier,
    SimplifiedLatentClassifier,
)
from semipyro.modules import evaluating, owner_of
from semipyro.papers import PAPERS
from torch import Tensor, nn

from helpers.cases_by_paper import CASES
from helpers.comparisons import close, gradients
from helpers.conditionals import Conditional
from helpers.linear_gaussian_cases import LinearGaussian, m1, m2
from helpers.log_densities import drawn, each_class, log_bernoulli, log_classes, log_gaussian, log_normal
from helpers.paper_networks import networks, rows, with_fixed_draws

ROUNDING = 1e-10
SIGMAS = 5


pytestmark = pytest.mark.usefixtures("float64")


def standard_error(draws: Tensor) -> Tensor:
    return draws.std(0) / len(draws) ** 0.5


# log_likelihood


@pytest.mark.parametrize("num_samples", [1, 7, 1500])
@pytest.mark.parametrize("name", CASES)
def test_log_likelihood_is_exact_at_the_exact_posterior(name: str, num_samples: int) -> None:
    """Every weight p(x, y, z) / q(z | x, y) is p(x, y): any number of draws gives log p(x), row by row."""
    case = CASES[name]()
    objective, x = case.objective, case.rows[2]
    found = log_likelihood(objective.model, objective.guide, x, num_samples=num_samples)
    assert found.shape == (len(x),)
    assert torch.allclose(found, case.exact["unlabelled"], atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_log_likelihood_converges(name: str) -> None:
    """With a wrong guide it comes to the exact log p(x), y summed out, within 5 standard errors; a small S does not."""
    case = CASES[name](perturb=True)
    model, guide, x = case.objective.model, case.objective.guide, case.rows[2]
    exact = case.exact["unlabelled"]
    draws = log_likelihood(model, guide, x.repeat(20, 1), num_samples=2000).view(20, len(x))
    assert ((draws.mean(0) - exact).abs() <= SIGMAS * standard_error(draws)).all()
    rough = log_likelihood(model, guide, x.repeat(1000, 1), num_samples=1).view(1000, len(x))
    assert ((exact - rough.mean(0)) > SIGMAS * standard_error(rough)).all()


def test_one_sample_is_the_bound_with_the_optimal_classifier() -> None:
    """S = 1: log Σ_y p(x, y, z^y) / q(z^y | x, y) does not depend on q(y | x), and lies above U(x) on average."""
    case = m2(perturb=True)
    guide, x = case.objective.guide, case.rows[2].repeat(2000, 1)
    other = M2Guide(q_y=Conditional(lambda x: OneHotCategorical(torch.ones(len(x), 3))), q_z=guide.q_z)
    torch.manual_seed(1)
    mine = log_likelihood(case.objective.model, guide, x, num_samples=1).view(2000, -1)
    torch.manual_seed(1)
    theirs = log_likelihood(case.objective.model, other, x, num_samples=1).view(2000, -1)
    assert ((mine.mean(0) - theirs.mean(0)).abs() < SIGMAS * 2**0.5 * standard_error(mine)).all()
    bound = case.exact["unlabelled"] - case.gap["unlabelled"]
    assert (mine.mean(0) - bound).mean() > SIGMAS * standard_error(mine.mean(1))


def test_log_likelihood_by_enumeration() -> None:
    """Discrete x: log p(x) over all images of two pixels sums to one, whatever the (untrained) networks are."""
    torch.manual_seed(3)
    model = M2.build(2, 3, z_dim=1, hidden=(4,), y_prior=[0.5, 0.2, 0.3])
    guide = M2Guide.build(2, 3, z_dim=1, hidden=(4,))
    images = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    draws = torch.stack([log_likelihood(model, guide, images, num_samples=2000).exp().sum() for _ in range(10)])
    assert abs(draws.mean() - 1) < SIGMAS * standard_error(draws)


@pytest.mark.parametrize("name", PAPERS)
def test_log_likelihood_leaves_no_trace(name: str) -> None:
    """No graph, no gradient, and the training mode of both modules as it was."""
    objective = PAPERS[name].build(5, 3, z_dim=2, hidden=(4,))
    for training in (True, False):
        objective.train(training)
        found = log_likelihood(objective.model, objective.guide, torch.rand(4, 5).round(), num_samples=3)
        assert not found.requires_grad
        assert all(module.training == training for module in objective.modules())
    assert all(p.grad is None for p in objective.parameters())


# class_weights


def standard(z: Tensor) -> Tensor:
    return log_normal(z, 0.0, 1.0)


def m2_by_hand(objective: Objective, x: Tensor, y: Tensor, s: int) -> tuple[Tensor, Tensor]:
    model, guide = objective.model, objective.guide
    z, log_q_z = drawn(guide.q_z, s, x, y)
    log_p = y @ model.y_prior.log() + standard(z) + log_bernoulli(x, model.p_x(y, z))
    return log_p - log_q_z, log_classes(guide.q_y(x))


def adgm_by_hand(objective: Objective, x: Tensor, y: Tensor, s: int) -> tuple[Tensor, Tensor]:
    model, guide = objective.model, objective.guide
    a, log_q_a = drawn(guide.q_a, s, x)
    z, log_q_z = drawn(guide.q_z, s, a, y, x)
    log_p = y @ model.y_prior.log() + standard(z) + log_bernoulli(x, model.p_x(y, z))
    return log_p + log_gaussian(a, model.p_a(x, y, z)) - log_q_a - log_q_z, log_classes(guide.q_y(a, x))


def cagem_by_hand(objective: Objective, x: Tensor, y: Tensor, s: int) -> tuple[Tensor, Tensor]:
    model, guide = objective.model, objective.guide
    z1, log_q_z1 = drawn(guide.q_z1, s, x)
    z2, log_q_z2 = drawn(guide.q_z2, s, x, y, z1)
    log_p = standard(z2) + (y * log_classes(model.p_y(z2))).sum(-1) + log_gaussian(z1, model.p_z1(y, z2))
    return log_p + log_bernoulli(x, model.p_x(y, z1)) - log_q_z1 - log_q_z2, log_classes(guide.q_y(z1, x))


def thesis_by_hand(objective: Objective, x: Tensor, y: Tensor, s: int) -> tuple[Tensor, Tensor]:
    model, guide = objective.model, objective.guide
    z, log_q_z = drawn(guide.q_z, s, x)
    log_p_y = log_classes(model.p_y(z))
    log_p = standard(z) + (y * log_p_y).sum(-1) + log_gaussian(x, model.p_x(y, z))
    return log_p - log_q_z, log_p_y


BY_HAND = {
    "m2": m2_by_hand,
    "adgm": adgm_by_hand,
    "cagem": cagem_by_hand,
    "latent-classifier": thesis_by_hand,
    "latent-classifier-tight": thesis_by_hand,
}


@pytest.mark.parametrize("S", [1, 3])
@pytest.mark.parametrize("name", BY_HAND)
def test_class_weights_by_hand(name: str, S: int) -> None:
    """log w_y = log p(x, y, z) − log q(z | x, y) and log q(y | ·), class by class and draw by draw, and gradients."""
    objective, x = with_fixed_draws(name, S=S), rows()[2]
    found = class_weights(objective.model, objective.guide, x, S)
    hand = [[BY_HAND[name](objective, x, y, s) for s in range(S)] for y in each_class(4, len(x))]
    log_w = torch.stack([torch.stack([weight for weight, _ in draws]) for draws in hand])
    log_q = torch.stack([log_q for _, log_q in hand[0]]).movedim(-1, 0)
    assert found[0].shape == (4, S, len(x))
    assert close(found[0], log_w)
    assert (found[1] is None) == (name == "latent-classifier-tight")  # its guide leaves y to the model
    assert found[1] is None or close(found[1], log_q)
    mine, theirs = (gradients((each * torch.arange(4.0)[:, None, None]).sum(), objective) for each in (found[0], log_w))
    assert all(close(mine[parameter], theirs[parameter]) for parameter in mine)
    expected = torch.logsumexp(log_w.flatten(0, 1), 0) - math.log(S)
    for module in objective.modules():
        if hasattr(module, "noise"):
            module.noise.turn = 0
    found_likelihood = log_likelihood(objective.model, objective.guide, x, num_samples=S)
    assert close(found_likelihood, expected.detach())


def test_class_weights_of_a_model_without_classes() -> None:
    """K = 1, and no q(y)."""
    objective, x = with_fixed_draws("m1", S=3), rows()[2]
    log_w, log_q_y = class_weights(objective.model, objective.guide, x, 3)
    assert log_q_y is None
    assert log_w.shape == (1, 3, len(x))
    for s in range(3):
        z, log_q_z = drawn(objective.guide.q_z, s, x)
        assert close(log_w[0, s], standard(z) + log_bernoulli(x, objective.model.p_x(z)) - log_q_z)


def test_scales_count_in_the_class_weights_alone() -> None:
    """`poutine.scale` multiplies log p or log q of z in log w, and leaves log q(y | x) as it is."""
    objective, x = with_fixed_draws("m2"), rows()[2]
    model, guide = objective.model, objective.guide
    _, log_q_y = class_weights(model, guide, x, 1)
    scaled, same = class_weights(model, poutine.scale(guide, scale=0.3), x, 1)
    assert torch.equal(same, log_q_y)
    double, _ = class_weights(poutine.scale(model, scale=2.0), guide, x, 1)
    for k, y in enumerate(each_class(4, len(x))):
        z, log_q_z = drawn(guide.q_z, 0, x, y)
        log_p = y @ model.y_prior.log() + standard(z) + log_bernoulli(x, model.p_x(y, z))
        assert close(scaled[k, 0], log_p - 0.3 * log_q_z)
        assert close(double[k, 0], 2 * log_p - log_q_z)


class Hides(nn.Module):
    """A guide of which Pyro does not see some sites."""

    def __init__(self, guide: nn.Module, *sites: str) -> None:
        super().__init__()
        self.guide, self.sites = guide, list(sites)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with poutine.block(hide=self.sites):
            self.guide(x, y)


@pytest.mark.parametrize(
    ("name", "sites"), [("m1", "z"), ("m2", "z"), ("adgm", "a"), ("adgm", "az"), ("latent-classifier", "z")]
)
def test_a_latent_that_the_guide_lacks_has_no_weight(name: str, sites: str) -> None:
    """It would be drawn from the prior, and the bound look plausible."""
    objective, x = networks(name), rows()[2]
    guide = Hides(objective.guide, *sites)
    message = f"the guide does not have the model's latent sites: {', '.join(sites)}$"
    with pytest.raises(ValueError, match=message):
        class_weights(objective.model, guide, x, 2)
    with pytest.raises(ValueError, match=message):
        log_likelihood(objective.model, guide, x, num_samples=2)


@pytest.mark.parametrize(("model", "guide", "site"), [("m2", "adgm", "a"), ("m1", "m2", "y")])
def test_a_latent_that_the_model_lacks_has_no_weight(model: str, guide: str, site: str) -> None:
    """Its q(· | x) would stay in the weight alone: "bounds" on log p(x) above zero have come of it."""
    p, q, x = networks(model).model, networks(guide).guide, rows()[2]
    with pytest.raises(ValueError, match=f"the model does not have the guide's latent sites: {site}"):
        class_weights(p, q, x, 2)
    with pytest.raises(ValueError, match=site):
        log_likelihood(p, q, x, num_samples=2)


class DrawsAForEachY(ADGMGuide):
    """The guide that a second reading of the formula would give: y first, and a for every y."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", OneHotCategorical(torch.ones(3)), infer={"enumerate": "parallel"})
            shape = torch.broadcast_shapes(y.shape[:-1], (len(x),))
            pyro.sample("a", self.q_a(x).expand(shape))
            pyro.sample("z", self.q_z())


def indifferent(guide: type[ADGMGuide]) -> tuple[ADGM, ADGMGuide]:
    """Nothing reads y or z, p(a) = N(0, 1) and q(a) = N(1, 1): log p(a) − log q(a) = −½ − ε, ε the noise of a."""
    model = ADGM(
        p_x=Conditional(lambda y, z: Bernoulli(logits=0 * z + torch.zeros(4)).to_event(1)),
        p_a=StandardNormal(1),
        y_dim=3,
        z_dim=1,
    )
    return model, guide(
        q_a=Conditional(lambda x: Normal(torch.ones(len(x), 1), 1.0).to_event(1)),
        q_y=Conditional(lambda a, x: OneHotCategorical(torch.ones(*a.shape[:-1], 3))),
        q_z=StandardNormal(1),
    )


@pytest.mark.parametrize("guide", [ADGMGuide, DrawsAForEachY])
def test_what_is_drawn_before_y_is_shared_by_the_classes(guide: type[ADGMGuide]) -> None:
    """One a for all classes: their weights are equal, and log w is −½ − ε with its variance of 1.

    If each class had its own a, the sum over classes would average over three draws, and vary less.
    """
    shared, (model, guide), n = guide is ADGMGuide, indifferent(guide), 4000
    x = torch.ones(n, 4)
    log_w, _ = class_weights(model, guide, x[:50], 2)
    assert close(log_w, log_w[:1].expand(3, 2, 50)) == shared
    assert log_w[0].std() > 0.5
    noise = log_likelihood(model, guide, x, num_samples=1) + 4 * math.log(2)
    of_one_draw = abs(noise.var() - 1) < SIGMAS * (2 / n) ** 0.5 and abs(noise.mean() + 0.5) < SIGMAS / n**0.5
    assert of_one_draw == shared


def test_cagems_first_layer_is_shared_by_the_classes() -> None:
    """The same of z1. z2 is drawn for every class, and sets their weights apart unless q(z2 | ·) = p(z2)."""
    model = CaGeM(
        p_x=Conditional(lambda y, z1: Bernoulli(logits=0 * z1 + torch.zeros(4)).to_event(1)),
        p_z1=StandardNormal(1),
        p_y=Conditional(lambda z2: OneHotCategorical(torch.ones(*z2.shape[:-1], 3))),
        z2_dim=1,
    )
    q_y = Conditional(lambda z1, x: OneHotCategorical(torch.ones(*z1.shape[:-1], 3)))
    q_z1 = Conditional(lambda x: Normal(torch.ones(len(x), 1), 1.0).to_event(1))
    other = Conditional(lambda x, y, z1: Normal(1 + 0 * y[..., :1] * z1, 1.0).to_event(1))
    for q_z2, equal in ((StandardNormal(1), True), (other, False)):
        log_w, _ = class_weights(model, CaGeMGuide(q_z1=q_z1, q_y=q_y, q_z2=q_z2), torch.ones(50, 4), 2)
        assert close(log_w, log_w[:1].expand(3, 2, 50)) == equal


# accuracy


def classifier(x: Tensor) -> OneHotCategorical:
    """The class is the largest entry of x."""
    return OneHotCategorical(logits=5 * x)


def test_accuracy_is_a_fraction_of_labelled_rows() -> None:
    """Three of four right; rows with -1 are left out."""
    x = torch.eye(3)[[0, 1, 2, 0, 1]]
    assert accuracy(classifier, x, torch.tensor([0, 1, 2, 1, -1])) == 0.75
    assert accuracy(classifier, x, torch.tensor([0, 1, 2, 0, 1])) == 1.0
    assert accuracy(classifier, x, torch.tensor([-1, -1, 1, -1, -1])) == 0.0


def test_accuracy_of_the_exact_classifier_is_bayes() -> None:
    """q(y | x) = p(y | x): its accuracy is the mean probability of its answers, within 5 standard errors."""
    model = LinearGaussian(K=3, D=5, L=2)
    x, y = model.draw(4000)
    case = m2()
    guide = case.objective.guide
    sure = torch.softmax(model.log_joint(x), -1).max(-1).values.mean()
    found = accuracy(guide.classify, x, y.argmax(-1))
    assert isinstance(found, float)
    assert abs(found - sure) < SIGMAS * (sure * (1 - sure) / 4000) ** 0.5


def test_classify_and_encode_are_the_posteriors() -> None:
    """classify(x) = q(y | x), batch shape (N,); encode(x) = the mean of q(z | x, y) at the most probable y."""
    case = m2(perturb=True)
    guide, x = case.objective.guide, case.rows[2]
    found = guide.classify(x, num_samples=3)
    assert found.batch_shape == (len(x),)
    assert torch.allclose(found.probs, guide.q_y(x).probs, atol=1e-15)
    y = torch.eye(3)[found.probs.argmax(-1)]
    assert torch.equal(guide.encode(x), guide.q_z(x, y).mean)
    assert torch.equal(guide.encode(x, site="z"), guide.encode(x))
    vae = m1(perturb=True).objective.guide
    assert torch.equal(vae.encode(x), vae.q_z(x).mean)


# sample


def showing_its_parts() -> M2:
    """M2 whose x is [y, z], up to 1e-9."""

    def p_x(y: Tensor, z: Tensor) -> Any:
        return Normal(torch.cat([y, z], -1), 1e-9).to_event(1)

    return M2(p_x=Conditional(p_x), y_dim=3, z_dim=2, y_prior=[0.5, 0.2, 0.3])


def test_sample_runs_the_model_forward() -> None:
    """Frequencies of y are π, z is standard normal and independent of y, all within 5 standard errors."""
    n = 5000
    x = sample(showing_its_parts(), n)
    assert x.shape == (n, 5)
    y, z, prior = x[:, :3].round(), x[:, 3:], torch.tensor([0.5, 0.2, 0.3])
    assert ((y.mean(0) - prior).abs() < SIGMAS * (prior * (1 - prior) / n).sqrt()).all()
    assert (z.mean(0).abs() < SIGMAS / n**0.5).all()
    assert (((z**2).mean(0) - 1).abs() < SIGMAS * (2 / n) ** 0.5).all()
    products = z[:, :, None] * (y - prior)[:, None]
    assert (products.mean(0).abs() < SIGMAS * standard_error(products)).all()


def test_sample_keeps_what_is_given() -> None:
    """y and latents are used as they are, and what is not given is drawn."""
    y, z = torch.eye(3)[[2, 0, 1, 1]], torch.arange(8.0).view(4, 2)
    both = sample(showing_its_parts(), 4, y, latents={"z": z})
    assert torch.allclose(both, torch.cat([y, z], -1), atol=1e-6)
    only_y = sample(showing_its_parts(), 4, y)
    assert torch.allclose(only_y[:, :3], y, atol=1e-6)
    assert not torch.allclose(only_y[:, 3:], sample(showing_its_parts(), 4, y)[:, 3:])
    only_z = sample(showing_its_parts(), 4, latents={"z": z})
    assert torch.allclose(only_z[:, 3:], z, atol=1e-6)


READ_BY_X: dict[type, tuple[str, ...]] = {  # the conditions of p(x | …), in their order
    VAE: ("z",),
    M2: ("y", "z"),
    ADGM: ("y", "z"),
    SDGM: ("a", "y", "z"),
    GMDGM: ("z",),
    AGMDGM: ("z",),
    CaGeM: ("y", "z1"),
    LatentClassifier: ("y", "z"),
    SimplifiedLatentClassifier: ("z",),
}


@pytest.mark.parametrize("name", PAPERS)
def test_mean_of_a_sample(name: str) -> None:
    """mean=True is the mean of p(x | …) at the latents; the draws have that mean, and a Bernoulli's are in {0, 1}."""
    model, n = networks(name, K=3).model.eval(), 3000
    widths = {site: StandardNormal(width) for site, width in {"z": 8, "a": 2, "z1": 8}.items()}
    given = {site: widths[site]().sample((1,)).expand(n, -1) for site in READ_BY_X[type(model)] if site != "y"}
    y = torch.eye(3)[[1]].expand(n, 3) if PAPERS[name].classifies else None
    expected = model.p_x(*({**given, "y": y}[site] for site in READ_BY_X[type(model)])).mean.detach()
    means = sample(model, n, y, latents=given, mean=True)
    draws = sample(model, n, y, latents=given)
    assert torch.equal(means, expected)
    assert not means.requires_grad
    assert not draws.requires_grad
    assert (set(draws.unique().tolist()) <= {0.0, 1.0}) == isinstance(model.p_x, BernoulliNet)
    assert ((draws.mean(0) - expected[0]).abs() <= SIGMAS * standard_error(draws)).all()


@pytest.mark.parametrize("name", PAPERS)
def test_sample_is_seeded_and_keeps_modes(name: str) -> None:
    """The same seed gives the same draws; training mode and type are kept."""
    for dtype in (torch.float32, torch.float64):
        model = PAPERS[name].build(5, 3, z_dim=2, hidden=(4,)).model.to(dtype).train()
        torch.manual_seed(4)
        first = sample(model, 20)
        torch.manual_seed(4)
        assert torch.equal(sample(model, 20), first)
        assert first.dtype == dtype
        assert model.training


def test_evaluate_is_the_mean_over_all_rows_and_over_the_labelled_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks, without noise (the draw is the mean): equal to one call on all rows, and on those with a label."""
    monkeypatch.setattr(Normal, "rsample", lambda self, shape=(): self.loc.expand(self.batch_shape))
    monkeypatch.setattr("semipyro.inference.evaluation.measures.BOUND_ROWS", 3)
    objective = PAPERS["m2"].build(5, 3, z_dim=2, hidden=(4,))
    x, other = torch.rand(10, 5), torch.rand(10, 5)
    y = torch.tensor([0, -1, 2, 1, -1, -1, 0, 2, 1, -1])
    known, one_hot = y >= 0, torch.eye(3)[y[y >= 0]]
    for bound_x in (None, other):
        rows = x if bound_x is None else bound_x
        terms = objective(rows[known], one_hot, rows)
        measured = evaluate(objective, x, y, bound_x=bound_x)
        assert set(measured) == {"labelled", "classification", "unlabelled", "accuracy"}
        for name in ("labelled", "classification", "unlabelled"):
            assert measured[name] == pytest.approx(terms[name].item(), rel=1e-5)
        assert measured["accuracy"] == accuracy(objective.guide.classify, x, y)
    assert set(evaluate(objective, x)) == set(evaluate(objective, x, torch.full((10,), -1))) == {"unlabelled"}


def test_evaluation_mode_is_used_and_given_back() -> None:
    """Batch norm: statistics of the batch neither matter nor move."""
    objective = PAPERS["m2"].build(5, 3, z_dim=2, hidden=(4,), batch_norm=True)
    x = torch.rand(6, 5)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    objective.train()
    log_likelihood(objective.model, objective.guide, x, num_samples=2)
    sample(objective.model, 4)
    assert objective.model.training
    assert objective.guide.training
    assert all(torch.equal(before[name], value) for name, value in objective.state_dict().items())


class Watched(nn.Module):
    """A conditional that notes in which mode, and with or without gradients, it is called."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.seen = net, []

    def forward(self, *conditions: Tensor) -> Any:
        modes = {module.training for module in self.modules()}
        self.seen.append((modes, torch.is_grad_enabled(), conditions[0].shape[:-1]))
        return self.net(*conditions)


@pytest.mark.parametrize("mixed", [False, True])
def test_a_method_with_some_arguments_given_belongs_to_its_module(mixed: bool) -> None:
    """accuracy(partial(guide.classify, num_samples=7), …): the guide is in evaluation mode, and then as it was."""
    objective = networks("adgm", batch_norm=True).train()
    guide, x, y = objective.guide, rows()[2], torch.zeros(7, dtype=torch.long)
    guide.q_y = Watched(guide.q_y)
    if mixed:
        guide.q_a.eval()
    modes = {name: module.training for name, module in objective.named_modules()}
    state = {name: value.clone() for name, value in objective.state_dict().items()}
    for classifier in (
        functools.partial(guide.classify, num_samples=7),
        functools.partial(functools.partial(guide.classify), num_samples=7),
    ):
        guide.q_y.seen.clear()
        assert owner_of(classifier) is guide
        accuracy(classifier, x, y)
        assert [found[:2] for found in guide.q_y.seen] == [({False}, False)] * 2  # one row for K, then all
        assert [found[2] for found in guide.q_y.seen] == [(7, 1), (7, 7)]
        assert {name: module.training for name, module in objective.named_modules()} == modes
        assert torch.is_grad_enabled()
    assert all(torch.equal(state[name], value) for name, value in objective.state_dict().items())


def test_modes_are_given_back_after_an_error_and_functions_have_none() -> None:
    """`evaluating` restores whatever happens; a function, or a partial of one, is its own owner."""
    objective = networks("cagem", batch_norm=True).train()
    modes = []

    def fails(x: Tensor) -> OneHotCategorical:
        modes.append({part: {m.training for m in getattr(objective, part).modules()} for part in ("guide", "model")})
        raise ZeroDivisionError

    objective.guide.q_y.forward = lambda z1, x: fails(x)
    with pytest.raises(ZeroDivisionError):
        accuracy(objective.guide.classify, rows()[2], torch.zeros(7, dtype=torch.long))
    assert modes == [{"guide": {False}, "model": {True}}]
    del objective.guide.q_y.forward
    with evaluating(objective.guide.classify, classifier):
        assert not any(module.training for module in objective.guide.modules())
    assert all(module.training for module in objective.modules())
    assert owner_of(classifier) is classifier
    assert owner_of(functools.partial(classifier)) is classifier
    both = cascade(objective.model, objective.guide)
    assert owner_of(both) is both
    accuracy(both, rows()[2], torch.zeros(7, dtype=torch.long))
    assert all(module.training for module in objective.modules())
