"""Training in reverse: the forward bounds with a summed and a relaxed y, the reverse bound, and what each moves.

The reverse bound, eq. (17), is summed by hand over every binary x, and the discriminative terms, eq. (7), are written
out. Everything is float64; "rounding" is 1e-10; what is drawn is compared within 5 standard errors.
"""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from semipyro.inference import Objective
from torch import Tensor
from torch.nn import functional

from helpers.comparisons import SIGMAS, agrees, close, differences, gradients, moving
from helpers.log_densities import each_class, log_bernoulli, log_classes, log_normal
from helpers.paper_networks import networks, rows, with_fixed_draws
from helpers.step_function_cases import Signs

pytestmark = pytest.mark.usefixtures("float64")


def place_in_box(objective: Objective, x: Tensor, y: Tensor, s: int) -> tuple[Tensor, Tensor]:
    """Draw s of z = −1.5 + 3 σ(z̃), and log q(z | x, y) = log N(z̃) − Σ_i [log 3 + log σ(z̃_i) + log σ(−z̃_i)]."""
    normal = objective.guide.q_z.net.normal(x, y).base_dist
    t = normal.loc + normal.scale * objective.guide.q_z.noise.rows[s]
    jacobian = math.log(3) + functional.logsigmoid(t) + functional.logsigmoid(-t)
    return 3 * torch.sigmoid(t) - 1.5, log_normal(t, normal.loc, normal.scale) - jacobian.sum(-1)


def forward_terms(
    objective: Objective, x: Tensor, y: Tensor, x_unlabelled: Tensor, plant: str = ""
) -> dict[str, Tensor]:
    """Eqs. (3), (4) and (7), and the loss, eq. (8), without the reverse bound."""
    model, guide, weight, S = objective.model, objective.guide, objective.kl_weight, objective.num_samples

    def bound(x: Tensor, y: Tensor, s: int) -> tuple[Tensor, Tensor, Tensor]:
        z, log_q_z = place_in_box(objective, x, y, s)
        log_p_z = 0 if plant == "no p(z)" else -z.shape[-1] * math.log(3)
        log_p_x = log_bernoulli(x, model.p_x(y, z))
        return log_p_x + weight * (log_p_z - log_q_z), (model.y_prior.log() * y).sum(-1), z

    labelled, distance, unlabelled = [], [], []
    for s in range(S):
        inner, log_p_y, z = bound(x, y, s)
        labelled.append(inner + log_p_y)
        miss = (x - torch.sigmoid(model.p_x(y, z).base_dist.logits)) ** 2
        distance.append(miss.sum(-1) if plant == "squared distance" else miss.sum(-1).sqrt())
        log_q_y = log_classes(guide.q_y(x_unlabelled))
        for k, one in enumerate(each_class(log_q_y.shape[-1], len(x_unlabelled))):
            inner, log_p_y, _ = bound(x_unlabelled, one, s)
            unlabelled.append(log_q_y[:, k].exp() * (inner + weight * (log_p_y - log_q_y[:, k])) / S)
    terms = {
        "labelled": torch.stack(labelled).mean(),
        "unlabelled": torch.stack(unlabelled).sum(0).mean(),
        "discriminative_y": (log_classes(guide.q_y(x)) * y).sum(-1).mean(),
        "discriminative_x": -torch.stack(distance).mean(),
    }
    weights = {"discriminative_y": 10.0, "discriminative_x": 0.5 if plant == "another weight" else 0.1}
    return {**terms, "loss": -sum(weights.get(name, 1.0) * term for name, term in terms.items())}


@pytest.mark.parametrize("kl_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("S", [1, 3])
def test_untapped_by_hand(S: int, kl_weight: float) -> None:
    """Both forward bounds with the logistic flow, and both discriminative terms: values and every gradient."""
    objective = with_fixed_draws("untapped", S=S, reverse_weight=0.0)
    objective.kl_weight.fill_(kl_weight)

    def found(plant: str) -> set[str]:
        hand = {**forward_terms(objective, *rows(), plant), "reverse": torch.zeros(())}
        return set(differences(objective, rows(), hand, {"reverse"}))

    assert found("") == set()
    bounds = {"labelled", "unlabelled"} if kl_weight else set()
    assert found("no p(z)") & {"labelled", "unlabelled"} == bounds
    assert {"discriminative_x", "model.p_x.mlp.first.weight"} <= found("squared distance")
    assert "loss" in found("another weight")


def images(D: int) -> Tensor:
    """Every binary x: (2^D, D)."""
    return torch.tensor(list(product([0.0, 1.0], repeat=D)))


def untapped(D: int = 3, K: int = 3, **settings: Any) -> Objective:
    """Its networks with two latents in the box, and a classifier that is far from p(y)."""
    objective = networks("untapped", D=D, K=K, z_dim=2, **settings)
    with torch.no_grad():
        objective.guide.q_y.mlp.rest[-1].bias.copy_(torch.linspace(1.5, -1.5, K))
        objective.model.y_prior.copy_(torch.tensor([0.7, 0.2, 0.1])[:K] / sum([0.7, 0.2, 0.1][:K]))
    return objective


def reverse_rows(objective: Objective, y: Tensor, z: Tensor, plant: str = "", log_q_y: Any = None) -> Tensor:
    """J_r(y, z) = Σ_x p(x | y, z) [log q(x) + log q(y | x) + log q(z | x, y) − log p(x | y, z)], eq. (17): (N,)."""
    D = objective.model.p_x(y, z).event_shape[0]
    total = torch.zeros(len(y))
    for x in images(D):
        x = x.expand(len(y), D)
        log_p_x = log_bernoulli(x, objective.model.p_x(y, z))
        log_q = torch.full((len(y),), -D * math.log(2))
        log_q = 0 * log_q if plant == "q(x) left out" else log_q
        log_q = log_q + ((log_classes(objective.guide.q_y(x)) * y).sum(-1) if log_q_y is None else log_q_y(x, y))
        if plant != "q(z | x, y) left out":
            log_q = log_q + objective.guide.q_z(x, y).log_prob(z)
        entropy = 0 if plant == "no entropy" else log_p_x
        weight = log_p_x.exp().detach() if plant == "weights detached" else log_p_x.exp()
        inner = (log_q - entropy).detach() if plant == "inside detached" else log_q - entropy
        total = total + weight * inner
    return total


def expected_reverse(objective: Objective, plant: str = "", **settings: Any) -> Tensor:
    """E_p(y) E_p(z) J_r(y, z), by the trapezoidal rule in the logits of z's place in its box."""
    classes = settings.pop("classes", torch.eye(3))
    t = torch.linspace(-16, 16, 65)
    weight = torch.sigmoid(t) * torch.sigmoid(-t)
    z = torch.cartesian_prod(3 * torch.sigmoid(t) - 1.5, 3 * torch.sigmoid(t) - 1.5)
    weight = torch.cartesian_prod(weight, weight).prod(-1)
    total = torch.zeros(())
    for y, p_y in zip(classes, objective.model.y_prior, strict=True):
        inner = reverse_rows(objective, y.expand(len(z), 3), z, plant, **settings)
        p_y = 1 / 3 if plant == "uniform classes" else p_y
        total = total + p_y * (weight * inner).sum() / weight.sum()
    return total


@torch.no_grad()
def reverse_draws(objective: Objective, times: int = 40, n: int = 2000) -> Tensor:
    x = torch.zeros(n, objective.model.p_x(torch.eye(3)[:1], torch.zeros(1, 2)).event_shape[0])
    return torch.stack([objective(None, None, x)["reverse"] for _ in range(times)])


@pytest.mark.parametrize("S", [1, 3])
@pytest.mark.parametrize("gradient", ["detached", "score", "relaxed"])
def test_the_reverse_bound_is_its_sum_over_images(gradient: str, S: int) -> None:
    """E J_r over y ~ p(y), z ~ p(z) and x ~ p(x | y, z), in every mode; and no bound that lacks a part."""
    objective = untapped(gradient=gradient, S=S)
    draws = reverse_draws(objective)
    with torch.no_grad():
        assert agrees(draws, expected_reverse(objective))
        for plant in ("q(x) left out", "q(z | x, y) left out", "no entropy", "uniform classes"):
            assert not agrees(draws, expected_reverse(objective, plant)), plant


@pytest.mark.parametrize("S", [1, 3])
def test_the_reverse_bound_is_exact_where_both_processes_are_one(S: int) -> None:
    """Where p(x) = Bern(x; 0.5) and the guide is exact, any draw gives log q(y, z) = log p(y) + log p(z)."""
    exact, wrong = (Signs.inverse_pair().objective(size, num_samples=S) for size in (0.0, 1.0))
    x, _ = Signs.inverse_pair().draw(5, 2)
    with torch.no_grad():
        for _ in range(3):
            terms = exact(None, None, x)
            assert close(terms["reverse"], -math.log(4) - 3 * math.log(3))
            assert close(terms["unlabelled"], -5 * math.log(2))
            assert abs(wrong(None, None, x)["reverse"] - terms["reverse"]) > 1e-3


REVERSE = {"reverse_weight": 1.0, "discriminative_y_weight": 0.0, "discriminative_x_weight": 0.0}


@pytest.mark.parametrize(
    ("gradient", "moved"),
    [
        ("detached", {"guide.q_y", "guide.q_z"}),
        ("score", {"guide.q_y", "guide.q_z", "model.p_x"}),
        ("relaxed", {"guide.q_y", "guide.q_z", "model.p_x"}),
    ],
)
def test_what_the_reverse_bound_moves(gradient: str, moved: set[str]) -> None:
    """Detached, it teaches the inference networks alone; through the draw of x, the decoder as well."""
    objective = untapped(gradient=gradient)
    assert moving(objective(None, None, torch.zeros(50, 3))["reverse"], objective) == moved


def mean_gradient(objective: Objective, times: int = 60, n: int = 1000) -> Callable[[str], Tensor]:
    """Draws of the reverse bound's gradient, by a parameter's name: (times, ...)."""
    x = torch.zeros(n, 3)
    draws = [gradients(objective(None, None, x)["reverse"], objective) for _ in range(times)]
    return lambda name: torch.stack([draw[name] for draw in draws])


@pytest.mark.parametrize("gradient", ["detached", "score"])
def test_the_reverse_bounds_gradient_is_unbiased(gradient: str) -> None:
    """Its mean is the gradient of the sum over images: of all of it, or of what does not pass through x's draw."""
    objective = untapped(gradient=gradient)
    draws, exact = mean_gradient(objective), gradients(expected_reverse(objective), objective)
    without_entropy = gradients(expected_reverse(objective, "inside detached"), objective)
    seen = 0
    for name, value in exact.items():
        if name.startswith("reverse") or (gradient == "detached" and "p_x" in name):
            continue
        assert agrees(draws(name), value), name
        seen += "p_x" in name
        if name == "model.p_x.mlp.first.weight":  # the part that the score function alone gives is not all of it
            assert without_entropy[name].abs().max() > 0
            assert not agrees(draws(name), 0 * value)
    assert (seen > 0) == (gradient == "score")


def test_the_straight_through_gradient_points_the_right_way() -> None:
    """It is biased, but no more than a Concrete draw: its angle with the exact gradient of p(x | y, z) is small."""
    objective = untapped(gradient="relaxed")
    draws, exact = mean_gradient(objective), gradients(expected_reverse(objective), objective)
    names = [n for n in exact if n.startswith("model.p_x")]
    found, right = (torch.cat([g(n).flatten() for n in names]) for g in (lambda n: draws(n).mean(0), exact.get))
    assert functional.cosine_similarity(found, right, dim=0) > 0.9


# A relaxed y


def log_concrete(y: Tensor, log_p: Tensor, temperature: float) -> Tensor:
    """log Γ(K) τ^(K−1) + Σ_k [log π_k − (τ + 1) log y_k] − K log Σ_k π_k y_k^−τ: eq. (10) of Maddison et al. (2016)."""
    K = y.shape[-1]
    head = math.lgamma(K) + (K - 1) * math.log(temperature)
    inner = (log_p - (temperature + 1) * y.log()).sum(-1)
    return head + inner - K * torch.logsumexp(log_p - temperature * y.log(), -1)


@torch.no_grad()
def relaxed_by_hand(objective: Objective, x: Tensor, temperature: float, plant: str = "") -> Tensor:
    """One draw for each row of log p(x|y,z) + w [log p(y) − log q(y|x) + log p(z) − log q(z|x,y)], y on the simplex."""
    model, weight = objective.model, objective.kl_weight
    log_q, log_p = log_classes(objective.guide.q_y(x)), model.y_prior.log()
    uniform = torch.rand_like(log_q).clamp_min(1e-300)
    y = torch.softmax((log_q - (-uniform.log()).log()) / temperature, -1).clamp_min(1e-300)
    z, log_q_z = place_in_box(objective, x, y, 0)
    kl_y = log_concrete(y, log_p, temperature) - log_concrete(y, log_q, temperature)
    if plant == "discrete densities":
        kl_y = (y * (log_p - log_q)).sum(-1)
    if plant == "y rounded":
        y = torch.eye(y.shape[-1])[y.argmax(-1)]
        z, log_q_z = place_in_box(objective, x, y, 0)
    return log_bernoulli(x, model.p_x(y, z)) + weight * (kl_y - z.shape[-1] * math.log(3) - log_q_z)


def same_mean(a: Tensor, b: Tensor) -> bool:
    """Whether two sets of independent draws have one mean, within standard errors."""
    return bool((a.mean() - b.mean()).abs() <= SIGMAS * (a.var() / len(a) + b.var() / len(b)).sqrt())


@torch.no_grad()
def relaxed_draws(objective: Objective, x: Tensor, times: int = 40, copies: int = 1000) -> Tensor:
    return torch.stack([objective(None, None, x.repeat(copies, 1))["relaxed"] for _ in range(times)])


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_the_relaxed_bound_is_its_mean_over_concrete_draws(temperature: float) -> None:
    """While training, y is a Concrete draw under a Concrete prior; in evaluation mode it is summed out as ever."""
    objective, x = with_fixed_draws("untapped", temperature=temperature, kl_weight=0.3), rows()[2]
    with torch.no_grad():
        objective.guide.q_y.mlp.rest[-1].bias.copy_(torch.linspace(1.5, -1.5, 4))
        objective.model.p_x.mlp.first.weight[:, :4] *= 8  # the columns of y
    found = relaxed_draws(objective, x)
    hand = {
        p: relaxed_by_hand(objective, x.repeat(20_000, 1), temperature, p)
        for p in ("", "discrete densities", "y rounded")
    }
    assert same_mean(found, hand[""])
    assert not same_mean(found, hand["discrete densities"])
    assert not same_mean(found, hand["y rounded"])
    objective.eval()
    assert close(objective(None, None, x)["unlabelled"], forward_terms(objective, *rows())["unlabelled"])


def test_the_relaxed_bound_moves_what_the_sum_moves() -> None:
    """The draw of y is reparametrised: its gradient reaches q(y | x), q(z | x, y) and p(x | y, z)."""
    objective = with_fixed_draws("untapped", temperature=0.5)
    assert moving(objective(None, None, rows()[2])["relaxed"], objective) == {"guide.q_y", "guide.q_z", "model.p_x"}


def logistic_divergence(shift: Tensor) -> Tensor:
    """KL between logistic distributions whose means differ by `shift`: that of two Concretes with K = 2, at any τ."""
    t = torch.linspace(-60, 60, 24_001)

    def log_density(t: Tensor) -> Tensor:
        return functional.logsigmoid(t) + functional.logsigmoid(-t)

    ratio = log_density(t) - log_density(t + shift[:, None])
    return torch.trapezoid(log_density(t).exp() * ratio, t)


@pytest.mark.parametrize("same", [True, False])
def test_the_relaxed_bound_at_low_temperature(same: bool) -> None:
    """As τ → 0 it becomes the sum over classes, but for KL(q(y | x) ‖ p(y)), in whose place is that of the Concretes.

    The latter is no smaller, and the same at every temperature: the relaxed bound stays below the sum unless
    q(y | x) = p(y). At τ = 1 it is another.
    """
    cold, warm = (with_fixed_draws("untapped", K=2, temperature=t) for t in (0.01, 1.0))
    x = rows()[2]
    with torch.no_grad():
        if same:
            for parameter in cold.guide.q_y.parameters():
                parameter.zero_()
            cold.guide.q_y.mlp.rest[-1].bias.copy_(cold.model.y_prior.log())
        warm.load_state_dict(cold.state_dict())
        log_q, log_p = log_classes(cold.guide.q_y(x)), cold.model.y_prior.log()
        kl = (log_q.exp() * (log_q - log_p)).sum(-1)
        concrete = logistic_divergence((log_q - log_p) @ torch.tensor([1.0, -1.0]))
        enumerated = cold.eval()(None, None, x)["unlabelled"]
        draws = relaxed_draws(cold.train(), x)
    assert close(kl.mean(), 0.0) == same
    assert (concrete - kl >= -1e-9).all()
    assert agrees(draws, enumerated + (kl - concrete).mean())
    assert agrees(draws, enumerated) == same
    assert not agrees(relaxed_draws(warm, x), enumerated + (kl - concrete).mean())


def test_the_reverse_bound_scores_smoothed_labels() -> None:
    """Where y is relaxed, the reverse bound's y is (1 − ε, ε / (K − 1), …), scored by its Concrete density."""
    temperature, smoothing = 0.7, 0.1
    objective = untapped(temperature=temperature, smoothing=smoothing)
    classes = (1 - smoothing) * torch.eye(3) + smoothing / 2 * (1 - torch.eye(3))

    def concrete(x: Tensor, y: Tensor) -> Tensor:
        return log_concrete(y, log_classes(objective.guide.q_y(x)), temperature)

    with torch.no_grad():
        draws = reverse_draws(objective)
        assert agrees(draws, expected_reverse(objective, log_q_y=concrete, classes=classes))
        assert not agrees(draws, expected_reverse(objective, classes=classes))
        assert not agrees(draws, expected_reverse(objective))
        assert agrees(reverse_draws(objective.eval()), expected_reverse(objective))
