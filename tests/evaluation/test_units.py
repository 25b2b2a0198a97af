"""What units carry, against closed forms written out here, with errors planted and found."""

import math

import pyro
import pytest
import torch
from pyro.distributions import Normal, OneHotCategorical, TransformedDistribution, transforms
from pyro.infer import Trace_ELBO
from semipyro.distributions import BlockNormalNet, BoundedNormalNet, CategoricalNet, NormalNet, UniformBox
from semipyro.guides import ADGMGuide, CaGeMGuide, LatentClassifierGuide, M2Guide, VAEGuide
from semipyro.inference.evaluation.units import active_units, component_kl, unit_kl, unit_kl_by_cluster
from semipyro.models import ADGM, GMDGM, M2, VAE, CaGeM, LatentClassifier
from torch import nn

from helpers.comparisons import SIGMAS

D, K, L, A = 6, 3, 4, 2
SMALL = {"hidden": (8,)}

pytestmark = pytest.mark.usefixtures("float64")


def by_hand(m, s, n, t):
    """KL(N(m, s²) ‖ N(n, t²))."""
    return (t / s).log() + (s**2 + (m - n) ** 2) / (2 * t**2) - 0.5


def moments(distribution):
    return distribution.base_dist.loc, distribution.base_dist.scale


def one_hot(labels, num_classes=K):
    return torch.eye(num_classes)[labels]


def randomised(*nets):
    """The same modules with every parameter drawn anew: scales, too, depend on the conditions."""
    for net in nets:
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.4)
    return nets if len(nets) > 1 else nets[0]


def vae():
    return randomised(VAE.build(D, z_dim=L, **SMALL), VAEGuide.build(D, z_dim=L, **SMALL))


def m2():
    return randomised(M2.build(D, K, z_dim=L, **SMALL), M2Guide.build(D, K, z_dim=L, **SMALL))


def gmdgm():
    return randomised(GMDGM.build(D, K, z_dim=L, **SMALL), M2Guide.build(D, K, z_dim=L, **SMALL))


def adgm():
    sizes = {"z_dim": L, "a_dim": A, **SMALL}
    return randomised(ADGM.build(D, K, **sizes), ADGMGuide.build(D, K, **sizes))


def cagem():
    sizes = {"z1_dim": L, "z2_dim": A, "z2_hidden": (8,), **SMALL}
    return randomised(CaGeM.build(D, K, **sizes), CaGeMGuide.build(D, K, **sizes))


def x_and_y(rows=20):
    return torch.rand(rows, D), torch.randint(0, K, (rows,))


# unit_kl


def test_a_vae_is_the_textbooks_formula(monkeypatch):
    monkeypatch.setattr("semipyro.inference.evaluation.units.BOUND_ROWS", 7)  # in chunks of unlike size
    model, guide = vae()
    x, _ = x_and_y()
    m, s = moments(guide.q_z(x))
    expected = (0.5 * (s**2 + m**2 - 1) - s.log()).mean(0)
    found = unit_kl(model, guide, x)
    torch.testing.assert_close(found, expected.detach())
    assert not found.requires_grad


def test_with_a_given_y_both_sides_are_conditioned_on_it():
    model, guide = gmdgm()
    x, labels = x_and_y()
    y = one_hot(labels)
    expected = by_hand(*moments(guide.q_z(x, y)), *moments(model.p_z(y))).mean(0)
    torch.testing.assert_close(unit_kl(model, guide, x, y=y), expected.detach())
    wrong = by_hand(*moments(guide.q_z(x, y)), *moments(model.p_z(y.roll(1, 1)))).mean(0)  # a prior of another class
    assert (wrong - expected).abs().max() > 1e-3


def test_an_unknown_y_is_drawn_from_the_guide():
    """Its mean is Σ_y q(y | x) KL(q(z_i | x, y) ‖ p(z_i | y)), within 5 standard errors; with a uniform y it is not."""
    model, guide = gmdgm()
    x = torch.rand(1, D)
    classes = torch.eye(K)
    of_class = by_hand(*moments(guide.q_z(x.expand(K, D), classes)), *moments(model.p_z(classes)))  # (K, L)
    expected = (guide.q_y(x).probs.T * of_class).sum(0)
    draws = torch.stack([unit_kl(model, guide, x.expand(500, D)) for _ in range(20)])
    error = draws.std(0) / 20**0.5
    assert ((draws.mean(0) - expected).abs() < SIGMAS * error).all()
    assert ((draws.mean(0) - of_class.mean(0)).abs() > SIGMAS * error).any()


@pytest.mark.parametrize("site", ["z", "a"])
def test_each_latent_of_an_auxiliary_model_is_conditioned_on_the_same_draws(site):
    """KL(q(a | x) ‖ p(a | x, y, z)) and KL(q(z | a, y, x) ‖ p(z)), the latents drawn again from the same seed."""
    model, guide = adgm()
    x, labels = x_and_y()
    y = one_hot(labels)
    pyro.set_rng_seed(3)
    found = unit_kl(model, guide, x, site=site, y=y)
    pyro.set_rng_seed(3)
    a = guide.q_a(x).rsample()
    z = guide.q_z(a, y, x).rsample()
    q, p = (guide.q_a(x), model.p_a(x, y, z)) if site == "a" else (guide.q_z(a, y, x), model.p_z())
    torch.testing.assert_close(found, by_hand(*moments(q), *moments(p)).mean(0).detach())
    assert found.shape == (A if site == "a" else L,)


def test_both_layers_of_cagem():
    model, guide = cagem()
    x, labels = x_and_y()
    y = one_hot(labels)
    for site in ("z1", "z2"):
        pyro.set_rng_seed(3)
        found = unit_kl(model, guide, x, site=site, y=y)
        pyro.set_rng_seed(3)
        z1 = guide.q_z1(x).rsample()
        z2 = guide.q_z2(x, y, z1).rsample()
        pairs = {"z1": (guide.q_z1(x), model.p_z1(y, z2)), "z2": (guide.q_z2(x, y, z1), model.p_z2())}
        expected = by_hand(*moments(pairs[site][0]), *moments(pairs[site][1])).mean(0)
        torch.testing.assert_close(found, expected.detach())


@pytest.mark.parametrize("tight", [False, True])
def test_a_guide_that_leaves_y_to_the_model(tight):
    model = LatentClassifier.build(D, K, z_dim=L, **SMALL)
    guide = randomised(LatentClassifierGuide.build(D, model.p_y, z_dim=L, tight=tight, **SMALL))
    x, _ = x_and_y()
    m, s = moments(guide.q_z(x))
    expected = (0.5 * (s**2 + m**2 - 1) - s.log()).mean(0)
    torch.testing.assert_close(unit_kl(model, guide, x), expected.detach())


def test_a_latent_in_two_blocks_is_measured_block_by_block():
    """The second block given a draw of the first: the chain rule of the divergence, seeded."""
    q_z = randomised(BlockNormalNet((D,), (1, 3), **SMALL))
    model, guide = vae()[0], VAEGuide(q_z=q_z)
    x, _ = x_and_y()
    pyro.set_rng_seed(3)
    found = unit_kl(model, guide, x)
    pyro.set_rng_seed(3)
    z = q_z(x).rsample()
    moments_of = [moments(q_z.first(x)), moments(q_z.second(z[:, :1], x))]
    expected = torch.cat([(0.5 * (s**2 + m**2 - 1) - s.log()).mean(0) for m, s in moments_of])
    torch.testing.assert_close(found, expected.detach())


def test_the_sum_over_units_is_the_rest_of_the_bound():
    """Σ_i KL_i = E[log p(x | z)] − ELBO, with the bound by Pyro, within 5 standard errors."""
    model, guide = vae()
    x, _ = x_and_y(5)
    elbo, rows = Trace_ELBO(num_particles=1), 4000
    many = x.repeat(rows // 5, 1)
    with torch.no_grad():
        bounds = torch.tensor([-elbo.loss(model, guide, many) / rows for _ in range(30)])
        z = guide.q_z(many).sample((30,))
        likelihoods = model.p_x(z).log_prob(many).mean(1)
    difference = likelihoods - bounds
    assert abs(difference.mean() - unit_kl(model, guide, x).sum()) < SIGMAS * difference.std() / 30**0.5


def test_a_unit_that_is_its_prior_has_no_kl():
    model, guide = m2()
    last = guide.q_z.mlp.rest[-1]
    last.weight.data[[1, L + 1]] = 0.0
    last.bias.data[[1, L + 1]] = 0.0  # N(0, 1 + 1e-4)
    x, _ = x_and_y()
    found = unit_kl(model, guide, x)
    assert abs(found[1]) < 1e-7
    assert (found[[0, 2, 3]] > 1e-3).all()


def test_a_transformed_unit_is_measured_at_a_draw():
    """q a Gaussian in a box, p uniform: no closed form, but the same mean as KL(N ‖ the uniform's image)."""
    low, high = -1.5, 1.5
    q_z = randomised(BoundedNormalNet((D, K), L, low, high, **SMALL))
    model = M2(p_x=NormalNet((K, L), D, **SMALL), y_dim=K, z_dim=L, p_z=UniformBox(L, low, high))
    guide = M2Guide(q_y=CategoricalNet((D,), K, **SMALL), q_z=q_z)
    x, y = torch.rand(1, D), one_hot([1])
    draws = torch.stack([unit_kl(model, guide, x.expand(500, D), y=y.expand(500, K)) for _ in range(20)])
    z = torch.linspace(low, high, 200_001)[1:-1, None]
    log_q = q_z(x, y).base_dist.log_prob(z)  # (points, L)
    expected = (log_q.exp() * (log_q + math.log(high - low))).mean(0) * (high - low)
    assert ((draws.mean(0) - expected).abs() < SIGMAS * draws.std(0) / 20**0.5).all()
    assert draws.std() > 0


def test_the_one_draw_estimate_has_the_mean_of_the_closed_form(monkeypatch):
    def unknown(q, p):
        raise NotImplementedError

    model, guide = gmdgm()
    x, y = torch.rand(1, D), one_hot([2])
    exact = unit_kl(model, guide, x, y=y)
    monkeypatch.setattr("semipyro.inference.evaluation.units.kl_divergence", unknown)
    draws = torch.stack([unit_kl(model, guide, x.expand(500, D), y=y.expand(500, K)) for _ in range(20)])
    assert ((draws.mean(0) - exact).abs() < SIGMAS * draws.std(0) / 20**0.5).all()


# By cluster


def test_by_cluster_is_the_mean_of_each_cluster_under_its_own_y(monkeypatch):
    monkeypatch.setattr("semipyro.inference.evaluation.units.BOUND_ROWS", 7)
    model, guide = gmdgm()
    x, _ = x_and_y(40)
    clusters = torch.arange(40) % 2 * 2  # cluster 1 stays empty
    classifier = lambda rows: OneHotCategorical(logits=9 * one_hot(clusters[: len(rows)]))  # noqa: E731
    found = unit_kl_by_cluster(model, guide, classifier, x)
    for k in (0, 2):
        rows = x[clusters == k]
        expected = unit_kl(model, guide, rows, y=one_hot([k]).expand(len(rows), K))
        torch.testing.assert_close(found[k], expected)
    assert found.shape == (K, L)
    assert found[1].isnan().all()


def test_true_classes_share_the_mean_of_their_cluster():
    model, guide = gmdgm()
    classifier = lambda rows: OneHotCategorical(logits=9 * rows[:, :K])  # noqa: E731
    x, labels = x_and_y(60)
    labels = torch.where(torch.arange(60) % 5 == 0, -1, labels + 1)  # classes 1 to 3 of 4
    clusters = x[:, :K].argmax(-1)
    parts = unit_kl_by_cluster(model, guide, classifier, x, labels=labels)
    assert parts.shape == (K, 4, L)
    known = labels >= 0
    torch.testing.assert_close(parts.sum(1), unit_kl_by_cluster(model, guide, classifier, x[known]))
    for k in range(K):
        inside = known & (clusters == k)
        for c in range(4):
            rows = x[inside & (labels == c)]
            share = len(rows) / inside.sum()
            mean = unit_kl(model, guide, rows, y=one_hot([k]).expand(len(rows), K)) if len(rows) else torch.zeros(L)
            torch.testing.assert_close(parts[k, c], share * mean)


# Components


def test_components_are_compared_in_closed_form():
    p_z = randomised(NormalNet((K,), L, hidden=()))
    found = component_kl(p_z, K)
    assert found.shape == (K, K, L)
    m, s = (value.detach() for value in moments(p_z(torch.eye(K))))
    for j in range(K):
        for k in range(K):
            torch.testing.assert_close(found[j, k], by_hand(m[j], s[j], m[k], s[k]))
    torch.testing.assert_close(found.diagonal().T, torch.zeros(K, L))
    assert not torch.allclose(found, found.transpose(0, 1)), "j and k do not commute"
    assert not found.requires_grad


def test_components_under_the_same_bijection_are_as_far_apart():
    p_z = randomised(BoundedNormalNet((K,), L, -1.0, 1.0, hidden=()))
    torch.testing.assert_close(component_kl(p_z, K), component_kl(p_z.normal, K))


def test_a_function_is_a_conditional_too():
    means = torch.tensor([[0.0, 3.0], [0.0, 0.0]])
    found = component_kl(lambda y: Normal(y @ means, 2.0).to_event(1), 2)
    torch.testing.assert_close(found[0, 1], torch.tensor([0.0, 9 / 8]))


# Active units


class Encodes(nn.Module):
    """z = a x, unit by unit, and b = x."""

    def __init__(self, slopes):
        super().__init__()
        self.slopes = nn.Parameter(torch.tensor(slopes))
        self.noise = nn.Dropout(0.5)

    def encode(self, x, site=None):
        return self.noise(x if site == "b" else x * self.slopes)


def test_active_units_are_those_whose_mean_moves(monkeypatch):
    monkeypatch.setattr("semipyro.inference.evaluation.units.ROWS", 3)
    x = torch.tensor([[-1.0], [1.0]]).repeat(5, 4)  # variance 1
    guide = Encodes([0.0, 0.0999, 0.1001, 2.0]).train()
    assert active_units(guide, x + 7) == 2
    assert active_units(guide, x, threshold=0.0) == 3
    assert active_units(guide, x, threshold=4.1) == 0
    assert active_units(guide, x, site="b") == 4
    assert guide.training


def test_units_of_a_shipped_guide():
    _, guide = cagem()
    x, _ = x_and_y()
    for site, width in ((None, A), ("z2", A), ("z1", L)):
        moved = guide.encode(x, site).var(0, correction=0) > 1e-4
        assert moved.numel() == width
        assert active_units(guide, x, site=site, threshold=1e-4) == moved.sum()


def test_modes_are_kept_and_no_gradient_left():
    model, guide = gmdgm()
    x, labels = x_and_y()
    model.train()
    guide.eval()
    unit_kl(model, guide, x)
    unit_kl_by_cluster(model, guide, guide.classify, x, labels=labels)
    component_kl(model.p_z, K)
    assert (model.training, model.p_z.training, guide.training) == (True, True, False)
    assert all(parameter.grad is None for parameter in [*model.parameters(), *guide.parameters()])


# Errors


class Flow(nn.Module):
    """A Gaussian through one autoregressive layer: the units depend on each other."""

    def __init__(self):
        super().__init__()
        self.layer = transforms.affine_autoregressive(L)

    def forward(self, x, y):
        return TransformedDistribution(Normal(x.new_zeros(len(x), L), 1.0).to_event(1), [self.layer])


class Broken(nn.Module):
    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("y", OneHotCategorical(x.new_ones(K)))


X, LABELS = torch.rand(6, D, dtype=torch.float64), torch.tensor([0, 1, 2, 0, -1, 1])
Y = torch.eye(K, dtype=torch.float64)[[0, 1, 2, 0, 0, 1]]
ERRORS = {
    "no site": (lambda m, g: unit_kl(m, g, X, site="a"), "the guide has no latent site 'a', only y, z"),
    "observed": (lambda m, g: unit_kl(m, g, X, site="x"), "no latent site 'x'"),
    "a y that is given": (lambda m, g: unit_kl(m, g, X, site="y", y=Y), "no latent site 'y', only z"),
    "y is no product": (lambda m, g: unit_kl(m, g, X, site="y"), r"q\(y | …\) is OneHotCategorical, not a product"),
    "model without": (lambda m, g: unit_kl(Broken(), g, X), "the model has no latent site 'z', only y"),
    "flow": (lambda m, g: unit_kl(m, M2Guide(q_y=g.q_y, q_z=Flow()), X), "TransformedDistribution, not a product"),
    "integers": (lambda m, g: unit_kl(m, g, X, y=LABELS), "y must be one-hot"),
    "rows": (lambda m, g: unit_kl(m, g, X, y=Y[:2]), "y has 2 rows, expected 6"),
    "classes": (lambda m, g: unit_kl(m, g, X, y=Y[:, :2]), "y has 2 classes, but the model has 3"),
    "NaN": (lambda m, g: unit_kl(m, g, X * math.nan), "x holds NaN"),
    "no rows": (lambda m, g: unit_kl_by_cluster(m, g, g.classify, X[:0]), "x has no rows"),
    "one-hot": (lambda m, g: unit_kl_by_cluster(m, g, g.classify, X, labels=Y), "labels must be 6 integer labels"),
    "far away": (
        lambda m, g: unit_kl_by_cluster(m, g, g.classify, X, labels=LABELS * 0 + 2 * 10**9),
        "2000000000 in 6",
    ),
    "unknown": (lambda m, g: unit_kl_by_cluster(m, g, g.classify, X, labels=LABELS * 0 - 1), "labels has no label"),
    "no classes": (lambda m, g: component_kl(m.p_z, 0), "num_classes must be an integer of at least 1, got 0"),
    "p(z) without y": (lambda m, g: component_kl(m2()[0].p_z, K), r"does not read y: its units have shape \(4,\)"),
    "closed form": (
        lambda m, g: component_kl(lambda y: transformed(y), K),
        "TransformedDistribution, which has no KL divergence in closed form",
    ),
    "one row": (lambda m, g: active_units(g, X[:1]), "x has one row"),
    "threshold": (lambda m, g: active_units(g, X, threshold=-1.0), "threshold must not be negative"),
    "encode": (lambda m, g: active_units(g, X, site="a"), "site must be one of z, got 'a'"),
}


def transformed(y):
    """A distribution whose bijection depends on the shape of y."""
    return TransformedDistribution(Normal(y, 1.0), [transforms.AffineTransform(0.0, 1.0 + len(y))]).to_event(1)


@pytest.mark.parametrize("name", ERRORS)
def test_wrong_calls_say_what_is_wrong(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        call(*gmdgm())
