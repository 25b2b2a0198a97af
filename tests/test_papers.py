"""The table of papers is complete: it uses every model and guide, and every row builds and trains."""

import importlib
import re
from pathlib import Path

import pyro
import pytest
import torch
from pyro.distributions import Normal
from semipyro import guides, models
from semipyro.distributions import NormalNet
from semipyro.guides import M2Guide
from semipyro.inference import Objective
from semipyro.models import M2
from semipyro.papers import PAPERS, semi_unsupervised_prior

ROOT = Path(__file__).resolve().parent.parent
BINARY = {"untapped"}  # rows whose x has to be binary


@pytest.fixture(scope="module")
def built():
    return {name: row.build(6, 3, hidden=(4,), z_dim=2) for name, row in PAPERS.items()}


def test_every_row_says_what_it_is_and_builds_an_objective(built):
    for name, row in PAPERS.items():
        assert row.name == name
        assert isinstance(built[name], Objective)
        assert row.classifies == hasattr(built[name].guide, "classify")
        assert hasattr(built[name].guide, "encode")


@pytest.mark.parametrize("name", PAPERS)
def test_every_row_names_its_paper(name):
    """By its arXiv number, or by the title where it has none; the README lists the row and links the paper."""
    row, readme = PAPERS[name], (ROOT / "README.md").read_text()
    title, _, authors_and_year = row.title.partition(" (")
    assert re.fullmatch(r".*, (19|20)\d\d\)", authors_and_year)
    assert row.arxiv is None or re.fullmatch(r"\d{4}\.\d{4,5}", row.arxiv)
    assert (row.arxiv or title) in readme
    assert f"`{name}`" in readme


@pytest.mark.parametrize(("folder", "package"), [("models", models), ("guides", guides)])
def test_every_file_is_exported_and_used_by_a_row(folder, package, built):
    part = folder.rstrip("s")
    parts = (getattr(objective, name, None) for objective in built.values() for name in (part, f"reverse_{part}"))
    used = {type(each).__name__ for each in parts}
    for path in sorted((ROOT / folder).glob("[!_]*.py")):
        module = importlib.import_module(f"semipyro.{folder}.{path.stem}")
        classes = {name for name, thing in vars(module).items() if getattr(thing, "__module__", "") == module.__name__}
        assert classes
        assert classes <= set(package.__all__)
        assert classes & used, f"{path.name} is in no row of papers.py"


@pytest.mark.parametrize("name", PAPERS)
def test_every_row_takes_the_networks_settings(name):
    """`build` takes widths, activation and likelihood; a row that takes no normal likelihood says so."""
    build, settings = PAPERS[name].build, {"hidden": (4, 5), "z_dim": 2, "activation": "relu"}
    if name in BINARY:
        with pytest.raises(ValueError, match=f"likelihood must be 'bernoulli' for {name}, got 'normal'; .* binary x"):
            build(6, 3, **settings, likelihood="normal")
        objective = build(6, 3, **settings)
    else:
        objective = build(6, 3, **settings, likelihood="normal", scale=0.5)
        assert objective.model.p_x.scale == 0.5
        others = [net for net in objective.modules() if isinstance(net, NormalNet) and net is not objective.model.p_x]
        assert {net.scale for net in others} <= {None}
    widths = [p.shape for p in objective.parameters() if p.ndim == 2]
    assert (5, 4) in widths
    activations = {type(module) for module in objective.modules() if type(module).__module__.endswith("activation")}
    assert activations == {torch.nn.ReLU}


@pytest.mark.parametrize("name", PAPERS)
def test_every_row_takes_the_objectives_settings(name):
    assert PAPERS[name].build(6, 3, hidden=(4,), z_dim=2, num_samples=3).num_samples == 3


class OnTheCPU(torch.nn.Module):
    def forward(self, *conditions):
        return Normal(torch.zeros(2), 1.0).to_event(1)


@pytest.fixture
def elsewhere(monkeypatch):
    """Lets objectives compute on PyTorch's "meta" device, where tensors have shapes and no values.

    It stands for a GPU: operations refuse to mix it with the CPU.
    """
    monkeypatch.setattr(torch.Tensor, "item", lambda self: 0)
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda self: True)
    monkeypatch.setattr("pyro.util.torch_isnan", lambda value: False)
    with pyro.validation_enabled(False):
        yield torch.device("meta")


@pytest.mark.parametrize("name", PAPERS)
def test_everything_is_on_the_device_of_the_weights(name, elsewhere):
    objective = PAPERS[name].build(6, 3, z_dim=2, hidden=(4,)).to(elsewhere)
    x, y = torch.rand(5, 6, device=elsewhere), torch.zeros(5, 3, device=elsewhere)
    terms = objective(x, y, x)
    terms["loss"].backward()
    assert all(term.is_meta for term in terms.values())


def test_a_tensor_left_on_the_cpu_is_found(elsewhere):
    objective = PAPERS["m2"].build(6, 3, z_dim=2, hidden=(4,)).to(elsewhere)
    objective.model.p_z = OnTheCPU()
    with pytest.raises(RuntimeError, match="cpu"):
        objective(None, None, torch.rand(5, 6, device=elsewhere))


@pytest.mark.parametrize("how", [{"rank": 1}, {"flow": "iaf"}], ids=["rank", "flow"])
@pytest.mark.parametrize("name", PAPERS)
def test_the_model_starts_the_same_under_every_posterior(name, how):
    """With the same seed, so that a comparison of posteriors compares nothing else."""
    started = []
    for posterior in ({}, how):
        torch.manual_seed(0)
        started.append(PAPERS[name].build(6, 3, z_dim=10, hidden=(4,), **posterior).model.state_dict())
    assert all(torch.equal(value, started[1][key]) for key, value in started[0].items())


@pytest.mark.parametrize("name", [name for name, row in PAPERS.items() if row.classifies])
def test_a_prior_of_the_classes_is_the_models(name):
    """Where p(y) is a constant. Where y depends on a latent there is none to give, and the keyword is unknown."""
    settings = {"hidden": (4,), "z_dim": 2}
    if hasattr(PAPERS[name].build(6, 3, **settings).model, "y_prior"):
        objective = PAPERS[name].build(6, 3, **settings, y_prior=[0.5, 0.2, 0.3])
        assert torch.equal(objective.model.y_prior, torch.tensor([0.5, 0.2, 0.3]))
    else:
        with pytest.raises(TypeError, match="'y_prior'"):
            PAPERS[name].build(6, 3, **settings, y_prior=[0.5, 0.2, 0.3])


# What sets rows of the same classes apart


def test_the_workshops_form_reads_a_nowhere():
    """p(a) = N(0, I) and q(z | y, x); in the form of ICML both read more."""
    x, y, z = torch.rand(4, 6), torch.eye(3)[[0, 1, 2, 0]], torch.randn(4, 2)
    for name, reads in (("adgm-workshop", False), ("adgm", True)):
        objective = PAPERS[name].build(6, 3, hidden=(4,), z_dim=2, a_dim=5)
        means = [objective.model.p_a(x, y, each).mean for each in (z, -z)]
        assert torch.equal(*means) != reads
        assert means[0].shape[-1] == 5
        found = [objective.guide.q_z(a, y, x).mean for a in (torch.zeros(4, 5), torch.ones(4, 5))]
        assert torch.equal(*found) != reads


def test_appendix_c_classifies_by_a_part_of_z_which_the_other_part_follows():
    """p(y | z) reads the first fifth of z, or as much as it is told; q(z | x) draws it first."""
    objective = PAPERS["appendix-c"].build(6, 3, hidden=(4,), z_dim=10)
    z = torch.randn(4, 10)
    other = torch.cat([z[:, :2], torch.randn(4, 8)], -1)
    assert torch.equal(objective.model.p_y(z).logits, objective.model.p_y(other).logits)
    assert not torch.equal(objective.model.p_y(z).logits, objective.model.p_y(z.flip(-1)).logits)
    assert not torch.equal(objective.model.p_x(z).mean, objective.model.p_x(other).mean)
    assert objective.guide.q_z.dims == (2, 8)
    assert PAPERS["appendix-c"].build(6, 3, hidden=(4,), z_dim=10, zy_dim=7).guide.q_z.dims == (7, 3)
    assert PAPERS["appendix-c"].build(6, 3, hidden=(4,), z_dim=2).guide.q_z.dims == (1, 1)


def test_guides_of_the_thesis_hold_the_models_own_classifier():
    for name, tight in (("latent-classifier", False), ("latent-classifier-tight", True), ("simplified", True)):
        objective = PAPERS[name].build(6, 3, hidden=(4,), z_dim=2)
        assert objective.guide.p_y is objective.model.p_y
        assert objective.guide.tight == tight


def test_untapped_reverses_its_own_networks():
    objective = PAPERS["untapped"].build(6, 3, hidden=(4,), z_dim=2, half_width=2.0)
    assert objective.reverse_model.q_y is objective.guide.q_y
    assert objective.reverse_model.q_z is objective.guide.q_z
    assert objective.reverse_guide.p_x is objective.model.p_x
    assert (objective.guide.q_z.low, objective.guide.q_z.high) == (-2.0, 2.0)  # one box for prior and guide
    assert torch.equal(objective.model.p_z.low, torch.full((2,), -2.0))
    assert torch.equal(objective.model.p_z.high, torch.full((2,), 2.0))


def test_the_adversary_reads_z_through_layers_like_the_classifiers():
    objective = PAPERS["m2-adversarial"].build(6, 3, hidden=(4, 5), z_dim=2, activation="tanh", num_samples=2)
    shapes = [tuple(p.shape) for p in objective.adversary.parameters() if p.ndim == 2]
    assert shapes == [(4, 2), (5, 4), (3, 5)]
    assert {type(m) for m in objective.adversary.modules()} >= {torch.nn.Tanh}
    assert (type(objective.model), type(objective.guide)) == (M2, M2Guide)
    assert (objective.labelled_weight, objective.classification_weight) == (0.1, 50.0)
    assert objective.num_samples == 2


def test_cagems_z_dim_is_that_of_both_layers():
    objective = PAPERS["cagem"].build(6, 3, hidden=(4,), z_dim=2)
    x = torch.rand(5, 6)
    assert objective.guide.encode(x).shape == objective.guide.encode(x, "z1").shape == (5, 2)
    objective = PAPERS["cagem"].build(6, 3, hidden=(4,), z1_dim=7, z2_dim=3)
    assert objective.guide.encode(x).shape == (5, 3)
    assert objective.guide.encode(x, "z1").shape == (5, 7)


# The prior of semi-unsupervised learning, eqs. (34)-(35)


@pytest.mark.parametrize(("extra", "share"), [(0, 0.1), (5, 0.05), (20, 0.02)])
def test_hidden_classes_share_their_mass_with_the_extra_components(extra, share):
    """Ten classes of which five are hidden: 1/10 for each of the others, and ½ for hidden and extra ones together."""
    prior = semi_unsupervised_prior(10, range(5), extra)
    assert prior == pytest.approx([share] * 5 + [0.1] * 5 + [share] * extra, abs=1e-15)
    assert sum(prior) == pytest.approx(1, abs=1e-12)
    objective = PAPERS["gm-dgm"].build(6, 10 + extra, hidden=(4,), z_dim=2, y_prior=prior)
    assert objective.model.y_prior.tolist() == pytest.approx(prior)


@pytest.mark.parametrize("hidden", [(1, 3), {3, 1}, [3, 1, 1]])
def test_classes_keep_their_places_in_the_prior(hidden):
    """The order in which hidden classes are named, and naming one twice, change nothing."""
    assert semi_unsupervised_prior(4, hidden, 3) == pytest.approx([0.25, 0.1, 0.25, 0.1, 0.1, 0.1, 0.1])


def test_the_prior_where_nothing_or_everything_is_hidden():
    assert semi_unsupervised_prior(4, (), 0) == [0.25] * 4
    assert semi_unsupervised_prior(4, range(4), 4) == pytest.approx([0.125] * 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ((10, [10], 1), r"hidden_classes must be among 0 to 9, got \[10\]"),
        ((10, [-1, 3], 1), r"hidden_classes must be among 0 to 9, got \[-1, 3\]"),
        ((10, [3], -1), r"extra_classes must be an integer of at least 0, got -1"),
        ((10, [], 2), "extra_classes must be 0 without hidden classes, .* got 2; leave the prior uniform"),
    ],
)
def test_errors_of_the_prior(call, message):
    with pytest.raises(ValueError, match=message):
        semi_unsupervised_prior(*call)


# Wrong calls


@pytest.mark.parametrize("name", PAPERS)
def test_papers_know_their_settings(name: str) -> None:
    """An unknown keyword of `build` is Python's own error, and names the keyword."""
    with pytest.raises(TypeError, match="no_such_setting"):
        PAPERS[name].build(5, 3, no_such_setting=1)
    with pytest.raises(ValueError, match="num_samples"):
        PAPERS[name].build(5, 3, num_samples=0)


def test_unknown_papers() -> None:
    """`PAPERS` is a dictionary: a name that is not in it is a KeyError with that name."""
    with pytest.raises(KeyError, match="no-such-paper"):
        PAPERS["no-such-paper"]
