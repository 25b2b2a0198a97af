"""A sum over some of the classes: what may be drawn, enumerated with its probabilities, has the whole sum's mean."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from semipyro.inference import Objective, evaluate, log_likelihood
from semipyro.inference.objectives import some_classes
from semipyro.inference.objectives.some_classes import SomeClasses, sum_over_classes
from semipyro.papers import PAPERS
from torch import Tensor

from helpers.comparisons import close, gradients
from helpers.paper_networks import networks, rows, with_fixed_draws

pytestmark = pytest.mark.usefixtures("float64")
K = 4  # of `paper_networks`
SUMMING = [name for name in PAPERS if name not in ("m1", "latent-classifier-tight", "simplified", "appendix-c")]
AVERAGING = ["m2", "adgm", "sdgm", "agm-dgm", "m2-adversarial"]
Draws = Callable[[], Iterator[float]]


@pytest.fixture
def every_draw(monkeypatch: pytest.MonkeyPatch) -> Draws:
    """Goes through all classes that may be drawn for the rows, and gives the probability of each.

    A first pass has no probability, since it is there to see them.
    """
    draw, asked = torch.multinomial, list[Tensor]()

    def draws() -> Iterator[float]:
        chosen: tuple[int, ...] = ()

        def multinomial(p: Tensor, *how: Any) -> Tensor:
            if how != (1,):
                return draw(p, *how)  # of another distribution
            asked.append(p)
            return torch.tensor(chosen)[:, None] if chosen else p.argmax(-1, keepdim=True)

        monkeypatch.setattr(torch, "multinomial", multinomial)
        yield math.nan
        probabilities = asked[-1].tolist()
        for chosen in itertools.product(*([k for k, p in enumerate(row) if p > 0] for row in probabilities)):
            yield math.prod(row[k] for row, k in zip(probabilities, chosen, strict=True))

    return draws


def mean_over_draws(objective: Objective, x: Tensor, every_draw: Draws) -> tuple[Tensor, dict[str, Tensor]]:
    """The expectation of the loss, and of its gradients, over everything that can be drawn."""
    value, slopes = torch.zeros(()), dict[str, Tensor]()
    for probability in every_draw():
        turn_back(objective)
        loss = objective(None, None, x)["loss"]
        if not math.isnan(probability):
            value = value + probability * loss.detach()
            for parameter, slope in gradients(loss, objective).items():
                slopes[parameter] = slopes.get(parameter, torch.zeros(())) + probability * slope
    return value, slopes


def turn_back(objective: Objective) -> None:
    """The fixed draws of the latents begin again; untapped's reverse process has its own."""
    torch.manual_seed(0)
    for module in objective.modules():
        if hasattr(module, "noise"):
            module.noise.turn = 0


def same(objective: Objective, x: Tensor, every_draw: Draws) -> bool:
    """Whether the mean over draws of a sum over some classes, and of its gradients, is the sum over all of them."""
    found, slopes = mean_over_draws(objective, x, every_draw)
    objective.summed_classes = None
    turn_back(objective)
    loss = objective(None, None, x)["loss"]
    return close(found, loss) and all(close(slopes[name], slope) for name, slope in gradients(loss, objective).items())


@pytest.mark.parametrize(("m", "S"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("name", SUMMING)
def test_value_and_gradients_have_the_mean_of_the_whole_sum(name: str, m: int, S: int, every_draw: Draws) -> None:
    """For every paper with a sum over y, whether its y comes before or after the other latents."""
    objective = with_fixed_draws(name, S=S)
    objective.summed_classes = m
    objective.kl_weight.fill_(0.7)
    assert same(objective, rows()[2][:1], every_draw)


@pytest.mark.parametrize("name", AVERAGING)
def test_so_has_the_surrogate(name: str, every_draw: Draws) -> None:
    """Its y is that of the mean of q(y | a, x), the same for all draws of a."""
    objective = with_fixed_draws(name, S=2, averaged_classifier=True)
    objective.summed_classes = 1
    objective.kl_weight.fill_(0.7)
    assert same(objective, rows()[2][:2], every_draw)


def without_weight(values: Tensor, log_q: Tensor, log_r: Tensor | None = None) -> Tensor:
    return sum_over_classes(values, log_q, None if log_r is None else torch.zeros_like(log_r))


def with_the_draw_s_baseline(values: Tensor, log_q: Tensor, log_r: Tensor | None = None) -> Tensor:
    if log_r is None:
        return sum_over_classes(values, log_q)
    baseline = values[-1].detach()
    return ((log_q - log_r).exp() * (values - baseline)).sum(0) + baseline


def with_a_moving_proposal(values: Tensor, log_q: Tensor, log_r: Tensor | None = None) -> Tensor:
    if log_r is None:
        return sum_over_classes(values, log_q)
    rest = torch.log1p(-log_q[:-1].exp().sum(0))  # log q − log r is log (1 − Σ q), with the gradient of all of it
    log_w = torch.cat([log_q[:-1], rest[None]])
    return (log_w.exp() * values).sum(0)


@pytest.mark.parametrize("planted", [without_weight, with_the_draw_s_baseline, with_a_moving_proposal])
def test_errors_in_the_weights_are_found(
    planted: Callable[..., Tensor], every_draw: Draws, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weight that is left out, a baseline that depends on the draw, a gradient that passes through r."""
    objective = with_fixed_draws("m2")
    objective.summed_classes = 1
    monkeypatch.setattr("semipyro.inference.objectives.summed.sum_over_classes", planted)
    assert not same(objective, rows()[2][:1], every_draw)


def test_a_draw_that_repeats_a_summed_class_is_found(every_draw: Draws, monkeypatch: pytest.MonkeyPatch) -> None:
    """r over all classes counts the most probable one twice."""
    monkeypatch.setattr(Tensor, "scatter", lambda self, *_: self)
    objective = with_fixed_draws("m2")
    objective.summed_classes = 1
    assert not same(objective, rows()[2][:1], every_draw)


@pytest.mark.parametrize("m", [K - 1, K, K + 5])
def test_with_all_classes_it_is_the_whole_sum(m: int) -> None:
    """Nothing is drawn, and the numbers are the same to the last bit."""
    x, found = rows()[2], []
    for summed in (m, None):
        torch.manual_seed(0)
        objective = with_fixed_draws("m2")
        objective.summed_classes = summed
        state = torch.get_rng_state()
        found.append(objective(None, None, x)["loss"])
        assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(*found)


def test_evaluation_sums_all_classes() -> None:
    """Bounds in evaluation mode, `evaluate` and `log_likelihood`."""
    x, y = rows()[2], torch.tensor([0, -1, 2, 1, 3, 0, 1])[: len(rows()[2])]
    found = []
    for summed in (1, None):
        torch.manual_seed(0)
        objective = networks("adgm", S=2, summed_classes=summed).eval()
        terms = evaluate(objective, x, y)
        found.append((terms, log_likelihood(objective.model, objective.guide, x, num_samples=5)))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "logits", [[0.0, -200.0, -300.0, -1e4], [0.0, -200.0, -torch.inf, -torch.inf], [900.0, 1, 2, 3]]
)
def test_classes_of_probability_zero(logits: list[float], dtype: torch.dtype) -> None:
    """The others are drawn among themselves, weigh nothing, and neither value nor gradient is NaN."""
    given = torch.tensor([logits] * 50, dtype=dtype, requires_grad=True)
    q_y = SomeClasses(given, 1)
    y = q_y.enumerate_support(expand=False)
    assert y.shape == (2, 50, K)
    assert (y.argmax(-1)[0] == 0).all()
    assert (y.argmax(-1)[1] != 0).all()
    finite = given.masked_fill(given.isinf(), -1e4)
    value = sum_over_classes(
        torch.ones(2, 50, dtype=dtype), SomeClasses(finite, 1).log_prob(y), q_y.log_proposal
    ).mean()
    (slope,) = torch.autograd.grad(value, given)
    assert torch.isfinite(slope).all()
    assert torch.allclose(slope, torch.zeros_like(slope), atol=1e-7)  # the weights add up to one, whatever the logits
    assert value.item() == pytest.approx(1.0)


def test_the_baseline_takes_variance_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient through q(y | x) has many times the variance without it, where every bound is about −100."""

    def variance(sum_up: Callable[..., Tensor]) -> float:
        torch.manual_seed(0)
        logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]], requires_grad=True)
        values = torch.tensor([-100.0, -101.0, -103.0, -99.0])
        slopes = []
        for _ in range(500):
            q_y = SomeClasses(logits, 1)
            y = q_y.enumerate_support(expand=False)
            total = sum_up((y * values).sum(-1), q_y.log_prob(y), q_y.log_proposal).sum()
            slopes.append(torch.autograd.grad(total, logits)[0])
        return torch.stack(slopes).var(0).sum().item()

    def without(values: Tensor, log_q: Tensor, log_r: Tensor) -> Tensor:
        return ((log_q - log_r).exp() * values).sum(0)

    assert variance(some_classes.sum_over_classes) < variance(without) / 100


@pytest.mark.parametrize("name", SUMMING)
def test_every_row_takes_it(name: str) -> None:
    """By its keyword, as one of the settings that make a run what it is."""
    objective = networks(name, summed_classes=2)
    assert objective.summed_classes == 2
    assert "summed_classes" in objective.declared_settings
    losses = {}
    for m, training in itertools.product((2, None), (True, False)):
        objective.train(training).summed_classes = m
        torch.manual_seed(0)
        losses[m, training] = objective(*rows())["loss"]
    assert torch.isfinite(losses[2, True])
    assert not torch.equal(losses[2, True], losses[None, True])  # a class is drawn, and its sum another
    assert torch.equal(losses[2, False], losses[None, False])


@pytest.mark.parametrize("m", [0, -1, 1.5, True, "2"])
def test_it_is_a_positive_integer(m: object) -> None:
    with pytest.raises(ValueError, match="summed_classes must be an integer of at least 1"):
        networks("m2", summed_classes=m)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("m1", {}, "summed_classes must be None for VAE, which has no y to sum over"),
        ("latent-classifier-tight", {}, "y is summed inside a logarithm"),
        ("simplified", {}, "y is summed inside a logarithm"),
        ("untapped", {"temperature": 0.5}, "where y is drawn at a temperature"),
    ],
)
def test_where_there_is_no_such_sum_it_is_refused(name: str, settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        networks(name, summed_classes=1, **settings)
