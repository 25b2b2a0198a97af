"""What is measured after training: the importance-weighted bound, accuracy, and draws of the model."""

from typing import Any

import pytest
import torch
from analytic import CASES, Conditional, LinearGaussian, m1, m2
from pyro.distributions import Normal, OneHotCategorical
from semipyro.guides import M2Guide
from semipyro.inference import accuracy, evaluate, log_likelihood, sample
from semipyro.models import M2
from semipyro.papers import PAPERS
from torch import Tensor

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


@pytest.mark.parametrize("name", PAPERS)
def test_mean_of_a_sample(name: str) -> None:
    """mean=True is the mean of p(x | …) at the latents; without it the draws have that mean and are in {0, 1}."""
    model = PAPERS[name].build(5, 3, z_dim=2, hidden=(4,)).model
    n = 3000
    z, y = torch.randn(1, 2).expand(n, 2), torch.eye(3)[[1]].expand(n, 3)
    labels = (y,) if PAPERS[name].classifies else ()
    expected = model.p_x(*labels, z).mean.detach()
    means = sample(model, n, *labels, latents={"z": z}, mean=True)
    draws = sample(model, n, *labels, latents={"z": z})
    assert torch.equal(means, expected)
    assert not means.requires_grad
    assert not draws.requires_grad
    assert set(draws.unique().tolist()) <= {0.0, 1.0}
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
    monkeypatch.setattr("semipyro.inference.evaluation.BOUND_ROWS", 3)
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
