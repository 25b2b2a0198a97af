"""By hand = by Pyro: M1, M2 and the models with an auxiliary variable or a mixture in z, value and every gradient.

Each bound is the paper's equation in PyTorch alone, with its sum over y written out and the draws of a and z fixed:

    L(x, y) = E_q(a|x) E_q(z|a,y,x) [log p(x|·) + log p(y) + log p(z|·) + log p(a|·) − log q(a|x) − log q(z|a,y,x)]
    U(x)    = E_q(a|x) Σ_y q(y|a,x) (L_a(x, y) − log q(y|a,x))

M2 and GM-DGM have no a. Everything is float64; "rounding" is 1e-10.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pyro.distributions import OneHotCategorical
from pyro.poutine import condition, trace
from semipyro.inference import Objective, log_likelihood
from semipyro.papers import PAPERS
from torch import Tensor

from helpers.comparisons import SIGMAS, close, differences
from helpers.log_densities import drawn, each_class, log_bernoulli, log_classes, log_gaussian, log_standard
from helpers.paper_networks import PRIOR, rows, with_fixed_draws, with_swap

pytestmark = pytest.mark.usefixtures("float64")

WEIGHTS = {"labelled_weight": 0.6, "classification_weight": 2.5}


# log p(x | ·), log p(z | ·) and log p(a | ·) of the paper, for the factors p of its model
GENERATIVE: dict[str, Callable[..., tuple[Tensor, Tensor, Any]]] = {
    "m2": lambda p, x, a, y, z: (log_bernoulli(x, p.p_x(y, z)), log_standard(z), 0),
    "adgm-deterministic": lambda p, x, a, y, z: (log_bernoulli(x, p.p_x(y, z)), log_standard(z), 0),
    "adgm-workshop": lambda p, x, a, y, z: (log_bernoulli(x, p.p_x(y, z)), log_standard(z), log_standard(a)),
    "adgm": lambda p, x, a, y, z: (log_bernoulli(x, p.p_x(y, z)), log_standard(z), log_gaussian(a, p.p_a(x, y, z))),
    "sdgm": lambda p, x, a, y, z: (log_bernoulli(x, p.p_x(a, y, z)), log_standard(z), log_gaussian(a, p.p_a(y, z))),
    "gm-dgm": lambda p, x, a, y, z: (log_bernoulli(x, p.p_x(z)), log_gaussian(z, p.p_z(y)), 0),
    "agm-dgm": lambda p, x, a, y, z: (
        log_bernoulli(x, p.p_x(z)), log_gaussian(z, p.p_z(y)), log_gaussian(a, p.p_a(x, y, z))
    ),
}  # fmt: skip
AUXILIARY = ["adgm-workshop", "adgm", "sdgm", "agm-dgm"]


class ByHand:
    """The bounds of an objective, with an error planted in them where one is named."""

    def __init__(self, name: str, objective: Objective, plant: str = "") -> None:
        self.name, self.plant = name, plant
        self.model, self.guide, self.weight = objective.model, objective.guide, objective.kl_weight
        self.S = 1 if plant == "one sample" else objective.num_samples
        self.mean = torch.sum if plant == "sum for mean" else torch.mean

    def a(self, x: Tensor, s: int) -> tuple[Any, Any]:
        """Draw s of a and log q(a | x), where the paper has one."""
        return drawn(self.guide.q_a, s, x) if self.name in AUXILIARY else (None, 0)

    def log_q_y(self, x: Tensor, a: Any) -> Tensor:
        """log q(y | a, x) or log q(y | x): (N, K)."""
        if a is None:
            return log_classes(self.guide.q_y(x))
        if self.plant == "classifier reads the mean of a":
            a = self.guide.q_a.net(x).base_dist.loc
        return log_classes(self.guide.q_y(a, x))

    def parts(self, x: Tensor, y: Tensor, s: int, a: Any, log_q_a: Any) -> tuple[Tensor, Tensor, Tensor]:
        """log p(x | ·), log p(y), and log p − log q of z and a under the weight: (N,) each."""
        N, K = y.shape
        y_of_z = each_class(K, N)[0] if self.plant == "z shared by the classes" else y
        z, log_q_z = drawn(self.guide.q_z, s, x, y_of_z) if a is None else drawn(self.guide.q_z, s, a, y_of_z, x)
        log_p_x, log_p_z, log_p_a = GENERATIVE[self.name](self.model, x, a, y, z)
        log_p_y = (self.model.y_prior.log() * y).sum(-1)
        if self.plant in ("no p(y)", "prior ignored"):
            log_p_y = torch.full((N,), 0.0 if self.plant == "no p(y)" else -torch.tensor(K).log())
        kl_z = 0 * log_p_z if self.plant == "no KL of z" else log_p_z - log_q_z
        log_p_a = 0 if self.plant == "p(a | ·) left out" else log_p_a
        log_q_a = 0 if self.plant == "q(a | x) left out" else log_q_a
        kl_a = log_p_a - log_q_a
        if self.plant == "kl_weight not on a":
            return log_p_x, log_p_y, self.weight * kl_z + kl_a
        return log_p_x, log_p_y, (1 if self.plant == "kl_weight ignored" else self.weight) * (kl_z + kl_a)

    def labelled(self, x: Tensor, y: Tensor) -> Tensor:
        """L(x, y) of every row: (N,)."""
        bounds = []
        for s in range(self.S):
            log_p_x, log_p_y, kl = self.parts(x, y, s, *self.a(x, s))
            bounds.append(log_p_x + kl + log_p_y * (self.weight if self.plant == "p(y) of known y scaled" else 1))
        return torch.stack(bounds).mean(0)

    def unlabelled(self, x: Tensor) -> Tensor:
        """U(x) of every row, y latent and hence under the weight as well: (N,)."""
        bounds = []
        for s in range(self.S):
            a, log_q_a = self.a(x, s)
            log_q_y = self.log_q_y(x, a)
            q_y = torch.full_like(log_q_y, 1 / log_q_y.shape[-1]) if self.plant == "uniform weights" else log_q_y.exp()
            q_y = q_y.detach() if self.plant == "q(y) detached" else q_y
            for k, y in enumerate(each_class(log_q_y.shape[-1], len(x))):
                if self.plant == "a drawn for each class":
                    a, log_q_a = self.a(x, (s + k) % self.S)
                log_p_x, log_p_y, kl = self.parts(x, y, s, a, log_q_a)
                kl_y = log_p_y - (0 if self.plant == "no entropy" else log_q_y[:, k])
                kl_y = kl_y * (1 if self.plant == "kl_weight not on y" else self.weight)
                bounds.append(q_y[:, k] * (log_p_x + kl_y + kl))
        return torch.stack(bounds).sum(0) / self.S

    def surrogate(self, x: Tensor) -> Tensor:
        """Σ_y q̄(y) (L̄(x, y) − log q̄(y)), with the means over draws q̄ and L̄: (N,)."""
        draws = [self.a(x, s) for s in range(self.S)]
        log_q_y = torch.stack([self.log_q_y(x, a) for a, _ in draws])  # S, N, K
        q_y = log_q_y.exp().mean(0)
        log_q_y = log_q_y.mean(0) if self.plant == "mean of logs" else q_y.log()
        total = torch.zeros(len(x))
        for k, y in enumerate(each_class(q_y.shape[-1], len(x))):
            parts = [torch.stack(self.parts(x, y, s, *draws[s])) for s in range(self.S)]
            log_p_x, log_p_y, kl = torch.stack(parts).mean(0)
            total = total + q_y[:, k] * (log_p_x + kl + self.weight * (log_p_y - log_q_y[:, k]))
        return total

    def classification(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean over draws of log q(y | a, x): (N,)."""
        log_q_y = torch.stack([self.log_q_y(x, self.a(x, s)[0]) for s in range(self.S)])
        log_q_y = log_q_y.exp().mean(0).log() if self.plant == "log of the mean" else log_q_y.mean(0)
        return (log_q_y * y).sum(-1)

    def terms(self, x: Any, y: Any, x_unlabelled: Any, *, surrogate: bool = False) -> dict[str, Tensor]:
        """Every term and the loss, eq. (9) of Kingma et al. with means for sums."""
        terms = {}
        if x is not None:
            terms["labelled"] = self.mean(self.labelled(x, y))
            terms["classification"] = self.mean(self.classification(x, y))
        if x_unlabelled is not None:
            name = "surrogate" if surrogate else "unlabelled"
            terms[name] = self.mean(getattr(self, name)(x_unlabelled))
        weights = {"labelled": WEIGHTS["labelled_weight"], "classification": WEIGHTS["classification_weight"]}
        weights["labelled"] = 1.0 if self.plant == "labelled weight dropped" else weights["labelled"]
        weights["classification"] = 0.0 if self.plant == "classification weight dropped" else weights["classification"]
        terms["loss"] = -sum(weights.get(name, 1.0) * term for name, term in terms.items())
        return terms


def weighted(name: str, kl_weight: float = 1.0, **settings: Any) -> Objective:
    objective = with_fixed_draws(name, **WEIGHTS, **settings)
    objective.kl_weight.fill_(kl_weight)
    return objective


@pytest.mark.parametrize("kl_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("S", [1, 3])
@pytest.mark.parametrize("sides", ["labelled", "unlabelled", "both"])
@pytest.mark.parametrize("name", GENERATIVE)
def test_by_hand(name: str, sides: str, S: int, kl_weight: float) -> None:
    """L, U and the classification term in PyTorch alone: every term and every gradient, to rounding."""
    objective = weighted(name, kl_weight, S=S)
    x, y, x_unlabelled = rows()
    batch = {"labelled": (x, y, None), "unlabelled": (None, None, x_unlabelled), "both": (x, y, x_unlabelled)}[sides]
    assert differences(objective, batch, ByHand(name, objective).terms(*batch)) == []


LABELLED, UNLABELLED, CLASSIFICATION = {"labelled"}, {"unlabelled"}, {"classification"}
PLANTS = {  # an error, and the terms or gradients in which it is found
    "no p(y)": LABELLED | UNLABELLED,
    "prior ignored": LABELLED | UNLABELLED,
    "no entropy": UNLABELLED,
    "no KL of z": LABELLED | UNLABELLED,
    "z shared by the classes": LABELLED | UNLABELLED,
    "uniform weights": UNLABELLED,
    "q(y) detached": {"guide.q_y.mlp.first.weight"},
    "sum for mean": LABELLED | UNLABELLED | CLASSIFICATION,
    "one sample": LABELLED | UNLABELLED | CLASSIFICATION,
    "kl_weight ignored": LABELLED | UNLABELLED,
    "kl_weight not on y": UNLABELLED,
    "p(y) of known y scaled": LABELLED,
    "labelled weight dropped": {"loss"},
    "classification weight dropped": {"loss"},
}
PLANTS_IN_A = {
    "p(a | ·) left out": LABELLED | UNLABELLED,
    "q(a | x) left out": LABELLED | UNLABELLED,
    "a drawn for each class": UNLABELLED,
    "classifier reads the mean of a": UNLABELLED | CLASSIFICATION,
    "kl_weight not on a": LABELLED | UNLABELLED,
    "log of the mean": CLASSIFICATION,
}


@pytest.mark.parametrize(
    ("name", "plant"),
    [(name, plant) for name in GENERATIVE for plant in PLANTS if name != "adgm-deterministic"]
    + [(name, plant) for name in AUXILIARY for plant in PLANTS_IN_A],
)
def test_planted_errors_are_found(name: str, plant: str) -> None:
    """The comparison by hand fails for each of these, in the terms where the error is, and in no other term."""
    objective = weighted(name, 0.3, S=3)
    wrong = set(differences(objective, rows(), ByHand(name, objective, plant).terms(*rows())))
    found = {**PLANTS, **PLANTS_IN_A}[plant]
    if plant == "one sample" and name not in AUXILIARY:
        found = found - CLASSIFICATION  # nothing is drawn before y
    assert found <= wrong
    assert wrong & (LABELLED | UNLABELLED | CLASSIFICATION) == found & (LABELLED | UNLABELLED | CLASSIFICATION)


# The averaged classifier


@pytest.mark.parametrize("kl_weight", [0.3, 1.0])
@pytest.mark.parametrize("S", [1, 3])
@pytest.mark.parametrize("name", AUXILIARY)
def test_averaged_classifier_by_hand(name: str, S: int, kl_weight: float) -> None:
    """Σ_y q̄(y) (L̄ − log q̄(y)), as the authors' code has it, while training; the bound in evaluation mode."""
    objective = weighted(name, kl_weight, S=S, averaged_classifier=True)
    hand = ByHand(name, objective)
    assert differences(objective, rows(), hand.terms(*rows(), surrogate=True)) == []
    found = differences(objective, rows(), ByHand(name, objective, "mean of logs").terms(*rows(), surrogate=True))
    assert ("surrogate" in found) == (S > 1)
    objective.eval()
    assert differences(objective, rows(), hand.terms(*rows())) == []


@torch.no_grad()
def forgetful(objective: Objective, x: Tensor, S: int, entropy: str) -> Tensor:
    """log p − log q of a guide whose y does not know which draw of a it goes with, once for every row: (N,).

    a_1 ... a_S ~ q(a | x), y ~ q̄(y) = mean_s q(y | a_s, x), s uniform, z ~ q(z | a_s, y, x). The model adds to
    p(x, y, z, a_s) a uniform s and the other a_t ~ q(a | x), which cancel those of the guide.
    """
    model, guide = objective.model, objective.guide
    a = guide.q_a(x).sample((S,))
    q_y = guide.q_y(a, x).probs.mean(0)
    y = OneHotCategorical(q_y).sample()
    a = a[torch.randint(S, (len(x),)), torch.arange(len(x))]
    q_z = guide.q_z(a, y, x)
    z = q_z.sample()
    log_q_y = {"averaged": q_y, "own": guide.q_y(a, x).probs}[entropy].log()
    nodes = trace(condition(model, {"y": y, "a": a, "z": z})).get_trace(x)
    nodes.compute_log_prob()
    log_p = sum(nodes.nodes[site]["log_prob"] for site in ("y", "a", "z", "x"))
    return log_p - guide.q_a(x).log_prob(a) - (y * log_q_y).sum(-1) - q_z.log_prob(z)


@pytest.mark.parametrize("name", AUXILIARY)
def test_the_surrogate_is_a_bound(name: str) -> None:
    """It is that of the forgetful guide, whose importance weights average to p(x); with q(y | a_s, x) it is another."""
    S, repeats = 3, 50
    torch.manual_seed(0)
    objective = PAPERS[name].build(3, 3, z_dim=2, a_dim=2, hidden=(4,), num_samples=S, averaged_classifier=True)
    for parameter in objective.guide.q_y.parameters():
        parameter.data *= 2  # it reads a
    x = torch.tensor([[1.0, 0.0, 1.0]]).expand(2000, -1)
    surrogate = torch.stack([objective.train()(None, None, x)["surrogate"].detach() for _ in range(repeats)])
    evidence = log_likelihood(objective.model, objective.guide, x[:1], num_samples=300_000)
    for entropy in ("averaged", "own"):
        log_w = torch.cat([forgetful(objective, x, S, entropy) for _ in range(repeats)])
        error = (log_w.var() / len(log_w) + surrogate.var() / repeats).sqrt()
        assert (abs(log_w.mean() - surrogate.mean()) < SIGMAS * error) == (entropy == "averaged")
        if entropy == "averaged":
            w = (log_w - evidence).exp()
            assert abs(w.mean() - 1) < SIGMAS * w.std() / len(w) ** 0.5 < 0.2
    assert surrogate.mean() + SIGMAS * error < evidence


@pytest.mark.parametrize("name", AUXILIARY)
def test_averaged_classifier_matters_only_where_the_classifier_reads_a(name: str) -> None:
    """Where q(y | a, x) ignores a, q̄ = q, and the surrogate is U; elsewhere it is another bound."""
    objective, x = weighted(name, S=3, averaged_classifier=True), rows()[2]

    def both() -> tuple[Tensor, Tensor]:
        surrogate = objective.train()(None, None, x)["surrogate"]
        return surrogate, objective.eval()(None, None, x)["unlabelled"]

    assert not close(*both())
    with torch.no_grad():
        objective.guide.q_y.mlp.first.weight[:, :2] = 0  # the columns of a
    assert close(*both())
    alone = weighted(name, S=1, averaged_classifier=True)
    assert close(alone(None, None, x)["surrogate"], alone.eval()(None, None, x)["unlabelled"])


@pytest.mark.parametrize("name", AUXILIARY)
def test_the_classifier_averages_probabilities(name: str) -> None:
    """`classify` is eq. (33) of Willetts et al.: the mean over draws of a of q(y | a, x), not of its logarithm."""
    objective, x = weighted(name, S=3), rows()[0]
    hand = ByHand(name, objective)
    log_q_y = torch.stack([hand.log_q_y(x, hand.a(x, s)[0]) for s in range(3)])
    found = objective.guide.classify(x, 3).logits
    assert close(found, log_q_y.exp().mean(0).log())
    assert not close(found, torch.log_softmax(log_q_y.mean(0), -1))


# Other likelihoods, and M1


@pytest.mark.parametrize("kl_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("S", [1, 3])
def test_m1_by_hand(S: int, kl_weight: float) -> None:
    """Eq. (5) of the paper, log p(x | z) + log p(z) − log q(z | x): value and every gradient, to rounding."""
    objective, (_, _, x) = with_fixed_draws("m1", S=S), rows()
    objective.kl_weight.fill_(kl_weight)
    bounds = []
    for s in range(S):
        z, log_q_z = drawn(objective.guide.q_z, s, x)
        bounds.append(log_bernoulli(x, objective.model.p_x(z)) + kl_weight * (log_standard(z) - log_q_z))
    bound = torch.stack(bounds).mean()
    assert differences(objective, (None, None, x), {"unlabelled": bound, "loss": -bound}) == []


@pytest.mark.parametrize("name", ["m2", "m1-m2"])
def test_by_hand_with_a_gaussian_likelihood(name: str) -> None:
    """p(x | y, z) = N, as M1+M2 has it for its features: mean and scale from the network."""
    objective = with_fixed_draws(name, **({"likelihood": "normal"} if name == "m2" else {}))
    x, (_, y, _) = torch.randn(6, 5), rows()
    z, log_q_z = drawn(objective.guide.q_z, 0, x, y)
    hand = (
        log_gaussian(x, objective.model.p_x(y, z)) + (y * torch.tensor(PRIOR).log()).sum(-1) + log_standard(z) - log_q_z
    )
    assert close(objective(x, y, None)["labelled"], hand.mean())


# Arguments

FACTORS = {  # factor: how many arguments it takes
    "m2": {"model.p_x": 2, "guide.q_z": 2},
    "gm-dgm": {"guide.q_z": 2},
    "adgm": {"model.p_x": 2, "model.p_a": 3, "guide.q_y": 2, "guide.q_z": 3},
    "sdgm": {"model.p_x": 3, "model.p_a": 2},
    "agm-dgm": {"model.p_a": 3},
}
SWAPS = [
    (name, factor, i, j)
    for name, factors in FACTORS.items()
    for factor, count in factors.items()
    for i in range(count)
    for j in range(i)
]


@pytest.mark.parametrize(("name", "factor", "i", "j"), SWAPS)
def test_swapped_arguments_are_found(name: str, factor: str, i: int, j: int) -> None:
    """With different widths they are an error; with equal ones the bound by hand sees them."""
    objective = weighted(name)
    with_swap(objective, factor, i, j)
    with pytest.raises(ValueError, match="must have shape"):
        objective(*rows())
    widths = {"z_dim": 4, "a_dim": 4} if name in AUXILIARY else {"z_dim": 4}
    equal, batch = weighted(name, D=4, **widths), rows(D=4)
    hand = ByHand(name, equal).terms(*batch)
    assert differences(equal, batch, hand) == []
    with_swap(equal, factor, i, j)
    assert not close(equal(*batch)["loss"], hand["loss"])
