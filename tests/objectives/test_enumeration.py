"""The weights of the classes, log p(x, y, z) − log q(z | x, y): their values, and which draws the classes share."""

import math

import pyro
import pytest
import torch
from pyro import poutine
from pyro.distributions import Bernoulli, Normal, OneHotCategorical
from semipyro.distributions import StandardNormal
from semipyro.guides import ADGMGuide, CaGeMGuide
from semipyro.inference import Objective, log_likelihood
from semipyro.inference.objectives.enumeration import class_weights
from semipyro.models import ADGM, CaGeM
from torch import Tensor, nn

from helpers.comparisons import SIGMAS, close, gradients
from helpers.conditionals import Conditional
from helpers.log_densities import drawn, each_class, log_bernoulli, log_classes, log_gaussian, log_standard
from helpers.paper_networks import networks, rows, with_fixed_draws

pytestmark = pytest.mark.usefixtures("float64")


def m2_by_hand(objective: Objective, x: Tensor, y: Tensor, s: int) -> tuple[Tensor, Tensor]:
    model, guide = objective.model, objective.guide
    z, log_q_z = drawn(guide.q_z, s, x, y)
    log_p = y @ model.y_prior.log() + log_standard(z) + log_bernoulli(x, model.p_x(y, z))
    return log_p - log_q_z, log_classes(guide.q_y(x))


def adgm_by_hand(objective: Objective, x: Tensor, y: Tensor, s: int) -> tuple[Tensor, Tensor]:
    model, guide = objective.model, objective.guide
    a, log_q_a = drawn(guide.q_a, s, x)
    z, log_q_z = drawn(guide.q_z, s, a, y, x)
    log_p = y @ model.y_prior.log() + log_standard(z) + log_bernoulli(x, model.p_x(y, z))
    return log_p + log_gaussian(a, model.p_a(x, y, z)) - log_q_a - log_q_z, log_classes(guide.q_y(a, x))


def cagem_by_hand(objective: Objective, x: Tensor, y: Tensor, s: int) -> tuple[Tensor, Tensor]:
    model, guide = objective.model, objective.guide
    z1, log_q_z1 = drawn(guide.q_z1, s, x)
    z2, log_q_z2 = drawn(guide.q_z2, s, x, y, z1)
    log_p = log_standard(z2) + (y * log_classes(model.p_y(z2))).sum(-1) + log_gaussian(z1, model.p_z1(y, z2))
    return log_p + log_bernoulli(x, model.p_x(y, z1)) - log_q_z1 - log_q_z2, log_classes(guide.q_y(z1, x))


def thesis_by_hand(objective: Objective, x: Tensor, y: Tensor, s: int) -> tuple[Tensor, Tensor]:
    model, guide = objective.model, objective.guide
    z, log_q_z = drawn(guide.q_z, s, x)
    log_p_y = log_classes(model.p_y(z))
    log_p = log_standard(z) + (y * log_p_y).sum(-1) + log_gaussian(x, model.p_x(y, z))
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
    """Such a model counts as one class, and there is no q(y)."""
    objective, x = with_fixed_draws("m1", S=3), rows()[2]
    log_w, log_q_y, _ = class_weights(objective.model, objective.guide, x, 3)
    assert log_q_y is None
    assert log_w.shape == (1, 3, len(x))
    for s in range(3):
        z, log_q_z = drawn(objective.guide.q_z, s, x)
        assert close(log_w[0, s], log_standard(z) + log_bernoulli(x, objective.model.p_x(z)) - log_q_z)


def test_scales_count_in_the_class_weights_alone() -> None:
    """`poutine.scale` multiplies log p or log q of z in log w, and leaves log q(y | x) as it is."""
    objective, x = with_fixed_draws("m2"), rows()[2]
    model, guide = objective.model, objective.guide
    _, log_q_y, _ = class_weights(model, guide, x, 1)
    scaled, same, _ = class_weights(model, poutine.scale(guide, scale=0.3), x, 1)
    assert torch.equal(same, log_q_y)
    double, *_ = class_weights(poutine.scale(model, scale=2.0), guide, x, 1)
    for k, y in enumerate(each_class(4, len(x))):
        z, log_q_z = drawn(guide.q_z, 0, x, y)
        log_p = y @ model.y_prior.log() + log_standard(z) + log_bernoulli(x, model.p_x(y, z))
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
    """The latent would be drawn from the prior, and the bound would look plausible; so it is an error."""
    objective, x = networks(name), rows()[2]
    guide = Hides(objective.guide, *sites)
    message = f"the guide does not have the model's latent sites: {', '.join(sites)}$"
    with pytest.raises(ValueError, match=message):
        class_weights(objective.model, guide, x, 2)
    with pytest.raises(ValueError, match=message):
        log_likelihood(objective.model, guide, x, num_samples=2)


@pytest.mark.parametrize(("model", "guide", "site"), [("m2", "adgm", "a"), ("m1", "m2", "y")])
def test_a_latent_that_the_model_lacks_has_no_weight(model: str, guide: str, site: str) -> None:
    """The weight would hold its q(· | x) without a p: "bounds" on log p(x) above zero have come of that."""
    p, q, x = networks(model).model, networks(guide).guide, rows()[2]
    with pytest.raises(ValueError, match=f"the model does not have the guide's latent sites: {site}"):
        class_weights(p, q, x, 2)
    with pytest.raises(ValueError, match=site):
        log_likelihood(p, q, x, num_samples=2)


class DrawsAForEachY(ADGMGuide):
    """A guide that draws y first, and then an a for every y, as the formula could be misread."""

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
    log_w, *_ = class_weights(model, guide, x[:50], 2)
    assert close(log_w, log_w[:1].expand(3, 2, 50)) == shared
    assert log_w[0].std() > 0.5
    noise = log_likelihood(model, guide, x, num_samples=1) + 4 * math.log(2)
    of_one_draw = abs(noise.var() - 1) < SIGMAS * (2 / n) ** 0.5 and abs(noise.mean() + 0.5) < SIGMAS / n**0.5
    assert of_one_draw == shared


def test_cagems_first_layer_is_shared_by_the_classes() -> None:
    """All classes share one z1. Each has its own z2, so that their weights differ, unless q(z2 | ·) = p(z2)."""
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
        log_w, *_ = class_weights(model, CaGeMGuide(q_z1=q_z1, q_y=q_y, q_z2=q_z2), torch.ones(50, 4), 2)
        assert close(log_w, log_w[:1].expand(3, 2, 50)) == equal
