"""Order and limits: bounds that must lie below others, and models that are another model in a special case.

Everything is float64. "Rounding" is 1e-10; what is drawn is compared within 5 standard errors.
"""

from typing import Any

import pytest
import torch
from pyro.distributions import OneHotCategorical
from semipyro.distributions import CategoricalNet, StandardNormal
from semipyro.guides import ADGMGuide, LatentClassifierGuide, M2Guide
from semipyro.inference import ELBO, Objective, SemiSupervisedELBO, log_likelihood
from semipyro.models import ADGM, AGMDGM, GMDGM, M2, SDGM, LatentClassifier

from helpers.cases import Deviation
from helpers.cases_by_paper import CASES, DISTINCT
from helpers.comparisons import SIGMAS, close, differences, gradients
from helpers.conditionals import Conditional
from helpers.log_densities import drawn, log_classes
from helpers.paper_networks import PRIOR, WIDTHS, networks, rows, with_fixed_draws
from helpers.step_function_cases import STEPS, Thesis
from helpers.tractable_distributions import moved

pytestmark = pytest.mark.usefixtures("float64")

WEIGHTS = {"labelled_weight": 0.6, "classification_weight": 2.5}


# Order


@pytest.mark.parametrize("name", DISTINCT)
def test_order_of_the_bounds(name: str) -> None:
    """E ELBO ≤ E IW-5 ≤ E IW-50 ≤ log p(x), each by more than 5 standard errors, where the guide is not exact."""
    case = CASES[name](perturb=True)
    x = case.rows[2][:1].expand(10_000, -1)  # one row many times over: independent estimates
    with torch.no_grad():
        steps = [torch.stack([case.objective(None, None, x)["unlabelled"] for _ in range(30)])]
    steps += [log_likelihood(case.objective.model, case.objective.guide, x, num_samples=s) for s in (5, 50)]
    exact = case.exact["unlabelled"][:1].expand(2)
    for low, high in zip(steps, [*steps[1:], exact], strict=True):
        spread = (low.var() / len(low) + high.var() / len(high)).sqrt()
        assert high.mean() - low.mean() > SIGMAS * spread


@pytest.mark.parametrize("tight", [False, True])
def test_u_is_exact_where_x_does_not_read_y(tight: bool) -> None:
    """Then p(y | z) is the posterior of y given z, and U is the tight bound, whatever the classes do."""
    t = Thesis(torch.tensor(STEPS))
    p_y = Conditional(t.p_y_by_z)
    model = LatentClassifier(p_x=Conditional(lambda y, z: t.p_x(z).to_event(1)), p_y=p_y, z_dim=t.L)
    x = t.draw(5, 3)
    for perturb in (0.0, 1.0):
        how = Deviation.of(perturb)
        q_z = Conditional(lambda x, how=how: moved(t.p_z_x(x), how.z_shift, how.z_stretch))
        objective = SemiSupervisedELBO(model, LatentClassifierGuide(q_z=q_z, p_y=p_y, tight=tight))
        with torch.no_grad():
            bound = objective(None, None, x)["unlabelled"]
        assert close(bound, t.log_p_x(x).mean()) == (perturb == 0)


# One class


def with_one_class() -> tuple[ELBO, SemiSupervisedELBO]:
    """A VAE, and M2 with K = 1 and the very same networks, which do not read y."""
    vae = with_fixed_draws("m1")
    p_x, q_z = vae.model.p_x, vae.guide.q_z
    model = M2(p_x=Conditional(lambda y, z: p_x(z)), y_dim=1, z_dim=WIDTHS["z_dim"])
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
        a, b = gradients(-terms[term], vae), gradients(expected["loss"], vae)
        assert all(close(a[n], b[n]) for n in a)


def test_known_class_is_the_limit_of_a_sure_classifier() -> None:
    """Where q(y | x) is sure of y, U(x) = L(x, y): the weight, the entropy and the sum vanish."""
    objective, (x, y, _) = with_fixed_draws("m2"), rows()
    objective.guide.q_y = Conditional(lambda x: OneHotCategorical(logits=1e3 * y))
    terms = objective(x, y, x)
    assert close(terms["unlabelled"], terms["labelled"])


# An auxiliary variable that does nothing


def m2_with_a(m2: Objective, form: str) -> SemiSupervisedELBO:
    """M2's networks in a model with an auxiliary variable, to which p and q give the same density."""
    p_x, q_y, q_z, A = m2.model.p_x, m2.guide.q_y, m2.guide.q_z, WIDTHS["a_dim"]
    q_a = StandardNormal(A) if form in ("workshop", "sdgm") else networks("adgm").guide.q_a
    settings: dict[str, Any] = {"y_dim": 4, "z_dim": WIDTHS["z_dim"], "y_prior": PRIOR}
    models = {
        "workshop": lambda: ADGM(p_x=p_x, p_a=StandardNormal(A), **settings),
        "icml": lambda: ADGM(p_x=p_x, p_a=Conditional(lambda x, y, z: q_a(x)), **settings),
        "sdgm": lambda: SDGM(p_x=Conditional(lambda a, y, z: p_x(y, z)), p_a=StandardNormal(A), **settings),
    }
    guide = ADGMGuide(q_a=q_a, q_y=Conditional(lambda a, x: q_y(x)), q_z=Conditional(lambda a, y, x: q_z(x, y)))
    return SemiSupervisedELBO(models[form](), guide, **WEIGHTS)


@pytest.mark.parametrize("form", ["workshop", "icml", "sdgm"])
def test_with_an_idle_auxiliary_variable_a_model_is_m2(form: str) -> None:
    """p(a | ·) = q(a | x), and a read by nothing: every term of M2, whatever a is drawn, and every gradient."""
    m2 = with_fixed_draws("m2", **WEIGHTS)
    assert differences(m2, rows(), m2_with_a(m2, form)(*rows())) == []


def test_agm_dgm_with_an_idle_auxiliary_variable_is_gm_dgm() -> None:
    """With p(a | ·) = q(a | x), and a read by nothing, AGM-DGM has every term and gradient of GM-DGM."""
    gm = with_fixed_draws("gm-dgm", **WEIGHTS)
    p_x, p_z, q_y, q_z = gm.model.p_x, gm.model.p_z, gm.guide.q_y, gm.guide.q_z
    model = AGMDGM(p_x=p_x, p_z=p_z, p_a=StandardNormal(2), y_dim=4, y_prior=PRIOR)
    guide = ADGMGuide(
        q_a=StandardNormal(2),
        q_y=Conditional(lambda a, x: q_y(x)),
        q_z=Conditional(lambda a, y, x: q_z(x, y)),
    )
    assert differences(gm, rows(), SemiSupervisedELBO(model, guide, **WEIGHTS)(*rows())) == []


@pytest.mark.parametrize("name", ["adgm", "cagem"])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_a_classifier_need_not_read_the_latent_before_it(name: str, num_samples: int) -> None:
    """q(y | a, x) of width None in a: the mean over draws of a is the network itself, row by row."""
    objective, (x, y, _) = networks(name, S=num_samples), rows()
    objective.guide.q_y = CategoricalNet((None, 5), 4, hidden=(6,))
    expected = objective.guide.q_y(None, x)
    found = objective.guide.classify(x, num_samples)
    assert found.batch_shape == (len(x),)
    assert close(found.logits, expected.logits)
    term = "classification_q" if name == "cagem" else "classification"
    assert close(objective(x, y, None)[term], expected.log_prob(y).mean())


def test_a_deterministic_auxiliary_variable_is_a_feature_of_the_classifier() -> None:
    """q(y | x) = Cat(net(a(x), x)), where a(x) is a network's output without noise and is trained with the rest."""
    objective, (x, y, _) = with_fixed_draws("adgm-deterministic", **WEIGHTS), rows()
    q_y = objective.guide.q_y
    a = q_y.features(x)
    assert a.shape == (len(x), WIDTHS["a_dim"])
    first = q_y.net.mlp.first.weight
    by_hand = torch.cat([a, x], -1) @ first.T + q_y.net.mlp.first.bias
    by_hand = q_y.net.mlp.rest(by_hand)
    assert close(q_y(x).logits, torch.log_softmax(by_hand, -1))
    assert (first[:, : a.shape[-1]] != 0).any()
    moved = gradients(objective(x, y, None)["classification"], objective)
    assert all((g != 0).any() for n, g in moved.items() if "features" in n)


# A mixture of equal components, and a classifier beside a VAE


def test_gm_dgm_with_equal_components_is_the_vae() -> None:
    """p(z | y) = N(0, I) for every y: U(x) is the VAE's bound − KL(q(y | x) ‖ p(y)), and L(x, y) that + log p(y)."""
    vae, (x, y, x_unlabelled) = with_fixed_draws("m1"), rows()
    p_x, q_z, q_y = vae.model.p_x, vae.guide.q_z, networks("m2").guide.q_y
    model = GMDGM(p_x=p_x, p_z=StandardNormal(WIDTHS["z_dim"]), y_dim=4, y_prior=PRIOR)
    prior = torch.tensor(PRIOR)
    for classifier in (q_y, Conditional(lambda x: OneHotCategorical(prior).expand(x.shape[:-1]))):
        guide = M2Guide(q_y=classifier, q_z=Conditional(lambda x, y: q_z(x)))
        terms = SemiSupervisedELBO(model, guide)(x, y, x_unlabelled)
        log_q_y = log_classes(classifier(x_unlabelled))
        kl = (log_q_y.exp() * (log_q_y - prior.log())).sum(-1).mean()
        assert (kl > 1e-3) == (classifier is q_y)
        assert close(terms["unlabelled"], vae(None, None, x_unlabelled)["unlabelled"] - kl)
        assert close(terms["labelled"], vae(None, None, x)["unlabelled"] + (y @ prior.log()).mean())


def test_the_simplified_model_is_a_vae_and_a_classifier_of_its_latents() -> None:
    """U(x) is the VAE's bound, and L(x, y) that + E log p(y | z); tight or not, as x does not read y."""
    objective, (x, y, x_unlabelled) = with_fixed_draws("simplified"), rows()
    vae = with_fixed_draws("m1", likelihood="normal", scale=objective.model.p_x.scale)
    vae.model.p_x, vae.guide.q_z = objective.model.p_x, objective.guide.q_z
    z, _ = drawn(objective.guide.q_z, 0, x)
    log_p_y = (log_classes(objective.model.p_y(z)) * y).sum(-1).mean()
    for tight in (True, False):
        guide = LatentClassifierGuide(q_z=objective.guide.q_z, p_y=objective.model.p_y, tight=tight)
        terms = SemiSupervisedELBO(objective.model, guide)(x, y, x_unlabelled)
        assert close(terms["unlabelled"], vae(None, None, x_unlabelled)["unlabelled"])
        assert close(terms["labelled"], vae(None, None, x)["unlabelled"] + log_p_y)
        assert close(terms["classification"], log_p_y)
