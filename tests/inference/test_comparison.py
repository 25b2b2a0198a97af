"""Comparisons of guides and figures of a posterior, for models in which both are known in closed form."""

import copy
import re
from functools import partial

import pytest
import torch
from pyro.distributions import transforms
from semipyro.distributions import FlowNet, NormalNet
from semipyro.distributions.conditionals import MIN_SCALE
from semipyro.guides import M2Guide, VAEGuide
from semipyro.inference import (
    ELBO,
    SemiSupervisedELBO,
    accuracy,
    compare_guides,
    compare_objectives,
    log_likelihood,
)
from semipyro.models import M2, VAE
from semipyro.papers import PAPERS
from semipyro.plots import compared_guides, posterior_2d

from helpers.comparisons import SIGMAS
from helpers.conditionals import Conditional
from helpers.linear_gaussian_cases import LinearGaussian

ROWS = 2000
pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def linear():
    """A model of one class with z of two dimensions, whose posterior has independent units."""
    return LinearGaussian(K=1, D=5, L=2, sigma=0.7)


def vae(linear):
    y = torch.ones(1, 1)
    return VAE(p_x=Conditional(lambda z: linear.p_x(y, z)), z_dim=2)


def linear_guide(linear, how):
    """q(z | x) as a network without hidden layers: the posterior, or one that is off by `how`."""
    net = NormalNet((linear.D,), linear.L, hidden=())
    zero, one = torch.zeros(1, linear.D), torch.ones(1, 1)
    variance = 1 / (1 + linear.s[0] ** 2 / linear.sigma**2)
    last = net.mlp.last
    with torch.no_grad():
        last.weight[:2] = (variance * linear.s[0])[:, None] * linear.Q.T / linear.sigma**2
        last.bias[:2] = linear.q_z(zero, one, how).base_dist.loc[0]
        last.bias[2:] = (variance.sqrt() * how.stretch - MIN_SCALE).log()
    return VAEGuide(q_z=net)


def compared(linear, guides, x, **settings):
    """The comparison of guides as they start: the learning rate is too small to move them."""
    batches = [(None, None, x[:50])] * 3
    settings = {"epochs": 1, "learning_rate": 1e-12, "progress": False, "num_samples": 20, **settings}
    return compare_guides(vae(linear), guides, batches, x=x, objective=ELBO, **settings)


def test_gap_and_kl_are_those_of_the_closed_form(linear):
    x, _ = linear.draw(ROWS)
    off = linear.perturbed()
    found = compared(linear, {"exact": linear_guide(linear, linear.exact()), "off": linear_guide(linear, off)}, x)
    exact, wrong = found.rows
    log_p = linear.log_joint(x)[:, 0].mean().item()
    for name in ("bound", "iw_bound"):  # without chance: the guide is the posterior
        assert exact[name] == pytest.approx(log_p, abs=1e-9)
    assert exact["gap"] == pytest.approx(0, abs=1e-9)
    kl = linear.kl_z(off).item()
    error = SIGMAS * 3 / (10 * ROWS) ** 0.5  # log q − log p of one draw has a standard deviation below 3
    assert wrong["bound"] == pytest.approx(log_p - kl, abs=error)
    assert wrong["bound"] < log_p - kl / 2
    assert wrong["gap"] == pytest.approx(wrong["iw_bound"] - wrong["bound"], abs=1e-12)
    assert kl / 2 < wrong["gap"] < kl + error
    q = linear_guide(linear, off).q_z(x).base_dist
    prior_kl = (-q.scale.log() + (q.scale**2 + q.loc**2 - 1) / 2).sum(-1).mean().item()
    assert wrong["kl"] == pytest.approx(prior_kl, abs=error)


def test_a_trained_guide_closes_the_gap_and_nothing_given_is_changed(linear):
    x, _ = linear.draw(400)
    guide = linear_guide(linear, linear.perturbed())
    before, noise = copy.deepcopy(guide.state_dict()), torch.get_rng_state()
    found = compared(linear, {"off": guide, "again": guide}, x, epochs=40, learning_rate=0.02)
    assert found.rows[0]["gap"] < linear.kl_z(linear.perturbed()) / 5
    assert all(torch.equal(value, before[name]) for name, value in guide.state_dict().items())
    assert torch.equal(torch.get_rng_state(), noise)
    same = [{name: row[name] for name in ("bound", "iw_bound", "kl")} for row in found.rows]
    assert same[0] == same[1]  # the same start, noise and batches
    trained = found.objectives["off"]
    assert log_likelihood(trained.model, trained.guide, x, num_samples=20).mean() > found.rows[0]["bound"]


def test_every_guide_starts_from_the_model_and_shares_what_it_shared():
    """The thesis' guide holds the model's own p(y | z), so the copy of the guide holds that of the copied model."""
    ours = PAPERS["latent-classifier"].build(4, 3, z_dim=2, hidden=(5,), likelihood="bernoulli")
    x = torch.rand(12, 4)
    rows = [(x[:6], torch.eye(3)[[0, 1, 2, 0, 1, 2]], x[6:])]
    start = copy.deepcopy(ours.state_dict())
    found = compare_guides(
        ours.model, {"a": ours.guide, "b": ours.guide}, rows, epochs=1, x=x, y=torch.arange(12) % 3, learning_rate=0.1,
        objective=partial(SemiSupervisedELBO, labelled_weight=0.5), num_samples=2, draws=2, progress=False,
    )  # fmt: skip
    a, b = found.objectives.values()
    assert a.guide.p_y is a.model.p_y is not b.model.p_y
    assert ours.guide.p_y is ours.model.p_y
    assert all(torch.equal(value, start[name]) for name, value in ours.state_dict().items())
    assert all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())
    assert not all(torch.equal(value, start[name]) for name, value in a.state_dict().items())
    assert 0 <= found.rows[0]["accuracy"] <= 1
    assert float(a.kl_weight) == 1


def test_rows_of_papers_are_compared_as_their_models_and_guides_are(linear):
    """Objectives and their parts give the same numbers; bounds are those of `bound_x`, accuracy that of x."""
    built = {}
    for name, how in {"diagonal": {}, "rank 1": {"rank": 1}}.items():
        torch.manual_seed(0)
        built[name] = PAPERS["latent-classifier"].build(4, 3, z_dim=2, hidden=(5,), scale=0.5, **how)
    x, y = torch.rand(30, 4), torch.arange(30) % 3
    rows = [(x[:6], torch.eye(3)[[0, 1, 2, 0, 1, 2]], x[6:])]
    settings = {"epochs": 2, "learning_rate": 0.1, "num_samples": 3, "draws": 2, "progress": False}
    found = compare_objectives(built, rows, x=x, y=y, bound_x=x[:10], **settings).rows
    for (name, objective), row in zip(built.items(), found, strict=True):
        weights = partial(SemiSupervisedELBO, labelled_weight=0.5)
        alone = compare_guides(
            objective.model, {name: objective.guide}, rows, x=x[:10], y=y[:10], objective=weights, **settings
        )
        measured = ("bound", "iw_bound", "gap", "kl", "parameters")
        assert {key: row[key] for key in measured} == {key: alone.rows[0][key] for key in measured}
        torch.manual_seed(0)
        assert row["accuracy"] == accuracy(partial(alone.objectives[name].guide.classify, num_samples=3), x, y)
    assert found[0]["bound"] != found[1]["bound"]


def test_it_prints_as_a_table_with_a_line_for_each_guide(linear):
    x, _ = linear.draw(60)
    guide = linear_guide(linear, linear.exact())
    found = compared(linear, {"a": guide, "longer": guide}, x)
    head, *lines = str(found).splitlines()
    assert re.split(r"  +", head) == ["guide", "bound", "iw bound", "gap", "kl", "parameters", "seconds per step"]
    assert [line.split()[0] for line in lines] == ["a", "longer"]
    assert lines[0].split()[1] == f"{found.rows[0]['bound']:.2f}"
    assert lines[0].split()[5] == "24"  # 2 · 2 · (5 + 1)
    assert len({line.index(line.split()[1]) + len(line.split()[1]) for line in lines}) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"guides": {}}, "nothing to compare"),
        ({"draws": 0}, "draws must be an integer of at least 1"),
        ({"x": torch.zeros(5)}, r"\(N, D\)"),
        ({"bound_x": torch.zeros(5)}, r"\(N, D\)"),
        ({"num_samples": 0}, "num_samples must be an integer of at least 1"),
        ({"epochs": 0}, "epochs"),
    ],
)
def test_wrong_settings_are_refused(linear, change, message):
    x, _ = linear.draw(60)
    guides = change.pop("guides", {"exact": linear_guide(linear, linear.exact())})
    with pytest.raises(ValueError, match=message):
        compared(linear, guides, change.pop("x", x), **change)


# The figure


def numbers(axes):
    """The number in a panel's title, in nats."""
    return float(re.search(r"(-?[\d.]+) nats", axes.get_title())[1])


def test_the_posterior_s_evidence_and_each_guide_s_kl_are_in_the_titles(linear):
    x, _ = linear.draw(2)
    off = linear.perturbed()
    guides = {"exact": linear_guide(linear, linear.exact()), "off": linear_guide(linear, off)}
    noise = torch.get_rng_state()
    figure = posterior_2d(vae(linear), guides, x, row_names=["first", "second"])
    assert torch.equal(torch.get_rng_state(), noise)
    panels = [figure.axes[:3], figure.axes[3:]]
    for row, (truth, exact, wrong) in enumerate(panels):
        assert numbers(truth) == pytest.approx(linear.log_joint(x)[row, 0].item(), abs=0.06)  # a decimal is written
        assert numbers(exact) == pytest.approx(0, abs=0.006)
        assert numbers(wrong) == pytest.approx(linear.kl_z(off).item(), abs=SIGMAS * 3 / 4000**0.5)
        assert truth.get_ylabel() == ["first", "second"][row]


def test_the_posterior_is_where_it_is_and_the_contours_hold_their_mass(linear):
    x, _ = linear.draw(1)
    guide = linear_guide(linear, linear.exact())
    figure = posterior_2d(vae(linear), {"exact": guide}, x, size=200)
    truth, panel = figure.axes
    image = truth.images[0]
    left, right, bottom, top = image.get_extent()
    density = torch.as_tensor(image.get_array())
    weights = density / density.sum()
    q = guide.q_z(x).base_dist
    across, up = torch.linspace(left, right, 200), torch.linspace(bottom, top, 200)
    assert (weights.sum(0) @ across).item() == pytest.approx(q.loc[0, 0].item(), abs=0.01)
    assert (weights.sum(1) @ up).item() == pytest.approx(q.loc[0, 1].item(), abs=0.01)
    assert (weights.sum(0) @ (across - q.loc[0, 0]) ** 2).sqrt().item() == pytest.approx(q.scale[0, 0].item(), rel=0.01)
    z = q.sample((4000,))[:, 0]
    for line, part in zip(panel.collections[0].get_paths(), (0.9, 0.5, 0.1), strict=True):
        inside = line.contains_points(z.numpy()).mean()
        assert inside == pytest.approx(part, abs=SIGMAS * (part * (1 - part) / 4000) ** 0.5 + 0.01)


@pytest.mark.parametrize("flow", ["planar", "iaf"])
def test_a_flow_s_density_is_that_of_its_draws(linear, flow):
    """A contour on the pushed grid holds its part of the draws, whether the flow has an inverse or not."""
    torch.manual_seed(3)
    guide = VAEGuide(q_z=FlowNet((5,), 2, flow=flow, length=3, hidden=(6,)))
    for parameter in guide.q_z.transforms.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x, _ = linear.draw(1)
    panel = posterior_2d(vae(linear), {flow: guide}, x, size=300).axes[1]
    z = guide.q_z(x).sample((4000,))[:, 0]
    paths = panel.collections[0].get_paths()
    for line, part in zip(paths, (0.9, 0.5, 0.1), strict=True):
        inside = (
            sum(piece.contains_points(z.numpy()).astype(int) for piece in pieces(line)) % 2
        ).mean()  # a hole is a curve too
        assert inside == pytest.approx(part, abs=SIGMAS * (part * (1 - part) / 4000) ** 0.5 + 0.01)


def pieces(path):
    """The closed curves of a contour."""
    return [type(path)(vertices) for vertices in path.to_polygons(closed_only=False)]


def test_a_model_with_classes_shows_the_posterior_given_the_class():
    linear = LinearGaussian(K=3, D=5, L=2)
    model = M2(p_x=Conditional(linear.p_x), y_dim=3, z_dim=2, y_prior=linear.prior)
    how = linear.perturbed()
    guide = M2Guide(q_y=Conditional(lambda x: linear.q_y(x, how)), q_z=Conditional(lambda x, y: linear.q_z(x, y, how)))
    x, _ = linear.draw(3)
    figure = posterior_2d(model, {"off": guide}, x, torch.eye(3), size=60)
    for k, (truth, panel) in enumerate(zip(figure.axes[::2], figure.axes[1::2], strict=True)):
        assert numbers(truth) == pytest.approx(linear.log_joint(x)[k, k].item(), abs=0.06)
        assert numbers(panel) == pytest.approx(linear.kl_z(how)[k].item(), abs=SIGMAS * 3 / 4000**0.5)


def test_a_given_extent_is_shown_and_moves_no_number(linear):
    x, _ = linear.draw(1)
    guides = {"off": linear_guide(linear, linear.perturbed())}
    shown = posterior_2d(vae(linear), guides, x, extent=(0.0, 1.0, -2.0, 3.0)).axes
    usual = posterior_2d(vae(linear), guides, x).axes
    assert [axes.get_title() for axes in shown] == [axes.get_title() for axes in usual]
    assert all(axes.get_xlim() == (0, 1) and axes.get_ylim() == (-2, 3) for axes in shown)


def wide(linear):
    return {"wide": VAEGuide(q_z=NormalNet((5,), 3, hidden=()))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"guides": lambda linear: {}}, "guides must hold at least one"),
        ({"guides": wide}, "guides must have a z of 2 dimensions, got one of 3"),
        ({"y": torch.ones(3, 1)}, "y"),
        ({"row_names": ["one"]}, "row_names must be 2 names, one per row of x, got 1"),
        ({"x": torch.zeros(5)}, r"\(N, D\)"),
    ],
)
def test_what_cannot_be_drawn_is_refused(linear, change, message):
    x, _ = linear.draw(2)
    guides = change.pop("guides", lambda linear: {"exact": linear_guide(linear, linear.exact())})(linear)
    with pytest.raises(ValueError, match=message):
        posterior_2d(vae(linear), guides, change.pop("x", x), change.pop("y", None), **change)


@pytest.mark.parametrize(("paper", "message"), [("m2", "y must be given"), ("adgm", "beside z, got a")])
def test_a_model_with_more_to_integrate_out_is_refused(paper, message):
    objective = PAPERS[paper].build(5, 3, z_dim=2, hidden=(4,), **({"a_dim": 2} if paper == "adgm" else {}))
    y = None if paper == "m2" else torch.eye(3)[:1]
    guide = VAEGuide(q_z=NormalNet((5,), 2, hidden=())) if y is None else objective.guide
    with pytest.raises(ValueError, match=message):
        posterior_2d(objective.model, {"q": guide}, torch.rand(1, 5), y)


def test_a_callable_flow_of_pyro_is_drawn_too(linear):
    guide = VAEGuide(q_z=FlowNet((5,), 2, flow=transforms.radial, hidden=()))
    x, _ = linear.draw(1)
    assert numbers(posterior_2d(vae(linear), {"radial": guide}, x, size=50).axes[1]) > 0


def a_row(guide, bound, **others):
    return {"guide": guide, "bound": bound, "iw_bound": bound + 2, "gap": 2.0, "seconds_per_step": 0.05, **others}


def dots(axes):
    return [line.get_xdata().tolist() for line in axes.get_lines() if line.get_marker() == "o"]


def test_compared_guides_has_a_line_for_each():
    bounds, accuracies, seconds = compared_guides(
        [a_row("diagonal", -98.0, accuracy=0.9), a_row("iaf", -97.0, accuracy=0.92)]
    ).axes
    assert [label.get_text() for label in bounds.get_yticklabels()] == ["diagonal", "iaf"]
    assert dots(bounds) == [[-98, -97], [-96, -95]]
    assert dots(accuracies) == [[0.9, 0.92]]
    assert dots(seconds) == [[50, 50]]
    assert bounds.get_ylim()[0] > bounds.get_ylim()[1]  # the first above
    assert accuracies.get_xlabel() == "accuracy"


def test_compared_guides_without_accuracy_has_no_panel_for_it():
    assert [axes.get_xlabel() for axes in compared_guides([a_row("diagonal", -98.0)]).axes] == [
        "nats per row", "milliseconds a step"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "message"), [([], "rows must be .*, got no row"), ([{"guide": "a"}], "without bound, iw_bound")]
)
def test_compared_guides_asks_for_rows_of_a_comparison(rows, message):
    with pytest.raises(ValueError, match=message):
        compared_guides(rows)
