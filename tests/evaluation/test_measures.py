"""What is measured after training: the importance-weighted bound, accuracy, and the mean of every term."""

import functools
from typing import Any

import pytest
import torch
from pyro.distributions import Normal, OneHotCategorical
from semipyro.guides import M2Guide
from semipyro.inference import accuracy, cascade, evaluate, log_likelihood, sample
from semipyro.models import M2
from semipyro.modules import evaluating, owner_of
from semipyro.papers import PAPERS
from torch import Tensor, nn

from helpers.cases_by_paper import CASES
from helpers.comparisons import ROUNDING, SIGMAS, standard_error
from helpers.conditionals import Conditional
from helpers.linear_gaussian_cases import LinearGaussian, m2
from helpers.paper_networks import networks, rows

pytestmark = pytest.mark.usefixtures("float64")


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
    """With a wrong guide many samples come within 5 standard errors of the exact log p(x); one sample does not."""
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
    """It has no graph and leaves no gradient, and both modules are in the mode in which they were."""
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
    """Three of four labelled rows are right; rows with -1 are left out."""
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


# evaluate


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


# Evaluation mode


def test_evaluation_mode_is_used_and_given_back() -> None:
    """With batch norm, a measure neither uses nor changes the statistics of the rows that it is given."""
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
