"""By hand = by Pyro where classes hang on a continuous latent: the thesis' models and CaGeM, value and every gradient.

Thesis:

    L(x, y)  = E_q(z|x) [log p(x|y,z) + log p(y|z) + log p(z) − log q(z|x)]                             proposition 1
    U(x)     = E_q(z|x) [Σ_y p(y|z) log p(x|y,z) + log p(z) − log q(z|x)]                               proposition 2
    tight(x) = E_q(z|x) [log Σ_y p(y|z) p(x|y,z) + log p(z) − log q(z|x)]                  its first line, and eq. (6)

CaGeM, with z1 and z2 in the two classifiers drawn without gradient:

    F(x)   = E_q(z1|x) Σ_y q(y|z1,x) E_q(z2|x,y,z1) [log p(x|y,z1) + log p(z1|y,z2) + log p(y|z2) + log p(z2)
                                                     − log q(z1|x) − log q(y|z1,x) − log q(z2|x,y,z1)]
    q(y|x) = E_q(z1|x) q(y|z1,x)         p(y|x) = E_q(z1|x) Σ_ỹ q(ỹ|z1,x) E_q(z2|x,ỹ,z1) p(y|z2)

Everything is float64; "rounding" is 1e-10.
"""

from typing import Any

import pytest
import torch
from semipyro.distributions import BlockNormalNet
from semipyro.inference import Objective, cascade
from torch import Tensor

from helpers.comparisons import close, differences
from helpers.log_densities import drawn, each_class, log_bernoulli, log_classes, log_gaussian, log_normal
from helpers.paper_networks import rows, with_fixed_draws, with_swap

pytestmark = pytest.mark.usefixtures("float64")

SIDES = {"labelled": [0, 1], "unlabelled": [2], "both": [0, 1, 2]}


def sides(which: str) -> tuple[Any, Any, Any]:
    """The rows of these sides, and None for the others."""
    batch = rows()
    return tuple(batch[i] if i in SIDES[which] else None for i in range(3))


# The thesis

THESIS = ["latent-classifier", "latent-classifier-tight", "simplified", "appendix-c"]


def draw_z(objective: Objective, x: Tensor, s: int, plant: str) -> tuple[Tensor, Tensor]:
    """Draw s of z and log q(z | x); in appendix C, q(z_y | x) q(z_u | z_y, x), eq. (7)."""
    q_z = objective.guide.q_z
    if not isinstance(q_z, BlockNormalNet):
        return drawn(q_z, s, x)
    z_y, log_q_zy = drawn(q_z.first, s, x)
    given = q_z.first.net(x).base_dist.loc if plant == "z_u given the mean of z_y" else z_y
    z_u, log_q_zu = drawn(q_z.second, s, given, x)
    return torch.cat([z_y, z_u], -1), log_q_zy + (0 if plant == "q(z_u | z_y, x) left out" else log_q_zu)


def thesis_draw(name: str, objective: Objective, x: Tensor, y: Tensor | None, s: int, plant: str) -> Tensor:
    """What draw s of z adds to L(x, y), or to the bound on log p(x): (N,)."""
    model, weight = objective.model, objective.kl_weight
    z, log_q_z = draw_z(objective, x, s, plant)
    log_p_y = log_classes(model.p_y(z))
    kl = (1 if plant == "kl_weight ignored" else weight) * (log_normal(z, 0.0, 1.0) - log_q_z)
    kl = 0 * kl if plant == "no KL of z" else kl

    def log_p_x(y: Tensor) -> Tensor:
        return log_gaussian(x, model.p_x(z) if name in ("simplified", "appendix-c") else model.p_x(y, z))

    if y is not None:
        log_p_y = 0 if plant == "p(y | z) left out" else (log_p_y * y).sum(-1)
        return log_p_x(y) + log_p_y * (weight if plant == "p(y | z) under the weight" else 1) + kl
    each = torch.stack([log_p_x(y) for y in each_class(log_p_y.shape[-1], len(x))], -1)  # N, K
    tight = name == "latent-classifier-tight"
    if plant == "classes uniform":
        log_p_y = torch.zeros_like(log_p_y) - torch.tensor(log_p_y.shape[-1]).log()
    if plant == "entropy of p(y | z) added":
        each = each - log_p_y
    if plant == "p(y | z) detached":
        log_p_y = log_p_y.detach()
    if tight != (plant == "the other of U and tight"):
        return torch.logsumexp(log_p_y + each, -1) + kl
    return (log_p_y.exp() * each).sum(-1) + kl


def thesis(name: str, objective: Objective, batch: tuple[Any, Any, Any], plant: str = "") -> dict[str, Tensor]:
    """The terms, and the loss −(U + λ L): the classification term has no weight."""
    x, y, x_unlabelled = batch
    S = 1 if plant == "one sample" else objective.num_samples
    mean = torch.sum if plant == "sum for mean" else torch.mean
    terms = {}
    if x is not None:
        terms["labelled"] = mean(torch.stack([thesis_draw(name, objective, x, y, s, plant) for s in range(S)]).mean(0))
        log_p_y = torch.stack([log_classes(objective.model.p_y(draw_z(objective, x, s, "")[0])) for s in range(S)])
        log_p_y = log_p_y.exp().mean(0).log() if plant == "log of the mean" else log_p_y.mean(0)
        terms["classification"] = mean((log_p_y * y).sum(-1))
    if x_unlabelled is not None:
        bounds = [thesis_draw(name, objective, x_unlabelled, None, s, plant) for s in range(S)]
        terms["unlabelled"] = mean(torch.stack(bounds).mean(0))
    terms["loss"] = -(terms.get("unlabelled", 0.0) + 0.6 * terms.get("labelled", torch.tensor(0.0)))
    return terms


def thesis_objective(name: str, kl_weight: float, S: int) -> Objective:
    objective = with_fixed_draws(name, S=S, labelled_weight=0.6)
    objective.kl_weight.fill_(kl_weight)
    return objective


@pytest.mark.parametrize("kl_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("S", [1, 3])
@pytest.mark.parametrize("which", SIDES)
@pytest.mark.parametrize("name", THESIS)
def test_thesis_by_hand(name: str, which: str, S: int, kl_weight: float) -> None:
    """L, U or the tight bound, the simplified bounds and eq. (7): every term and every gradient, to rounding."""
    objective, batch = thesis_objective(name, kl_weight, S), sides(which)
    assert differences(objective, batch, thesis(name, objective, batch)) == []


BOUNDS = {"labelled", "unlabelled"}
THESIS_PLANTS = {  # an error, the terms or gradients in which it is found, and the models where it is one
    "no KL of z": (BOUNDS, THESIS),
    "kl_weight ignored": (BOUNDS, THESIS),
    "sum for mean": (BOUNDS | {"classification"}, THESIS),
    "one sample": (BOUNDS | {"classification"}, THESIS),
    "log of the mean": ({"classification"}, THESIS),
    "p(y | z) left out": ({"labelled"}, THESIS),
    "p(y | z) under the weight": ({"labelled"}, THESIS),
    "entropy of p(y | z) added": ({"unlabelled"}, THESIS[:1]),
    "classes uniform": ({"unlabelled"}, THESIS[:2]),
    "p(y | z) detached": ({"model.p_y.mlp.first.weight"}, THESIS[:2]),
    "the other of U and tight": ({"unlabelled"}, THESIS[:2]),
    "z_u given the mean of z_y": (BOUNDS, THESIS[3:]),
    "q(z_u | z_y, x) left out": (BOUNDS, THESIS[3:]),
}


@pytest.mark.parametrize(("name", "plant"), [(n, p) for p, (_, names) in THESIS_PLANTS.items() for n in names])
def test_errors_planted_in_the_thesis_are_found(name: str, plant: str) -> None:
    """The comparison by hand fails for each of these, in the terms where the error is, and in no other term."""
    objective, terms = thesis_objective(name, 0.3, 3), BOUNDS | {"classification"}
    wrong = set(differences(objective, rows(), thesis(name, objective, rows(), plant)))
    found = THESIS_PLANTS[plant][0]
    assert found <= wrong
    assert wrong & terms == found & terms


@pytest.mark.parametrize("S", [1, 3])
def test_u_lies_below_the_tight_bound_by_a_divergence(S: int) -> None:
    """For the same z, tight(x) − U(x) = KL(p(y | z) ‖ p(y | x, z)) ≥ 0, in every row."""
    tight = thesis_objective("latent-classifier-tight", 1.0, S)
    loose = thesis_objective("latent-classifier", 1.0, S)
    loose.load_state_dict(tight.state_dict())
    for x in rows()[2][:, None]:
        gap = torch.zeros(())
        for s in range(S):
            z, _ = draw_z(tight, x, s, "")
            log_p_y = log_classes(tight.model.p_y(z))
            log_p_x = torch.stack([log_gaussian(x, tight.model.p_x(y, z)) for y in each_class(4, 1)], -1)
            posterior = torch.log_softmax(log_p_y + log_p_x, -1)
            gap = gap + (log_p_y.exp() * (log_p_y - posterior)).sum() / S
        assert gap > 1e-3
        assert close(tight(None, None, x)["unlabelled"] - loose(None, None, x)["unlabelled"], gap)


# CaGeM


class CaGeMByHand:
    """F and the two classifiers, with an error planted in them where one is named."""

    def __init__(self, objective: Objective, plant: str = "") -> None:
        self.model, self.guide, self.weight, self.plant = objective.model, objective.guide, objective.kl_weight, plant
        self.S = 1 if plant == "one sample" else objective.num_samples
        self.mean = torch.sum if plant == "sum for mean" else torch.mean

    def z2(self, x: Tensor, y: Tensor, z1: Tensor, s: int) -> tuple[Tensor, Tensor]:
        y = each_class(y.shape[-1], len(y))[0] if self.plant == "z2 shared by the classes" else y
        return drawn(self.guide.q_z2, s, x, y, z1)

    def bound(self, x: Tensor) -> Tensor:
        """F of every row: (N,)."""
        model, guide, total = self.model, self.guide, torch.zeros(len(x))
        for s in range(self.S):
            z1, log_q_z1 = drawn(guide.q_z1, s, x)
            log_q_y = log_classes(guide.q_y(z1, x))
            for k, y in enumerate(each_class(log_q_y.shape[-1], len(x))):
                if self.plant == "z1 drawn for each class":
                    z1, log_q_z1 = drawn(guide.q_z1, (s + k) % self.S, x)
                z2, log_q_z2 = self.z2(x, y, z1, s)
                log_p_y = (log_classes(model.p_y(z2)) * y).sum(-1)
                kl_y = (0 if self.plant == "no p(y | z2)" else log_p_y) - (
                    0 if self.plant == "no entropy" else log_q_y[:, k]
                )
                log_p_z1 = log_gaussian(z1, model.p_z1(y, z2))
                kl_z1 = (0 if self.plant == "no p(z1 | y, z2)" else log_p_z1) - (
                    0 if self.plant == "no q(z1 | x)" else log_q_z1
                )
                kl_z2 = 0 if self.plant == "no KL of z2" else log_normal(z2, 0.0, 1.0) - log_q_z2
                weight_y = 1 if self.plant == "kl_weight not on y" else self.weight
                inner = log_bernoulli(x, model.p_x(y, z1)) + weight_y * kl_y + self.weight * (kl_z1 + kl_z2)
                total = total + log_q_y[:, k].exp() * inner / self.S
        return total

    def classifiers(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log q(y | x) and log p(y | x): (N, K) each."""
        q, p = [], []
        for s in range(self.S):
            z1, _ = drawn(self.guide.q_z1, s, x)
            z1 = z1 if self.plant == "z1 with its gradient" else z1.detach()
            q_y = log_classes(self.guide.q_y(z1, x)).exp()
            mixed = torch.zeros_like(q_y)
            for k, y in enumerate(each_class(q_y.shape[-1], len(x))):
                z2, _ = self.z2(x, y, z1, s)
                z2 = z2 if self.plant == "z2 with its gradient" else z2.detach()
                share = q_y[:, k : k + 1]
                share = torch.full_like(share, 1 / q_y.shape[-1]) if self.plant == "no mixture weights" else share
                share = share.detach() if self.plant == "mixture weights detached" else share
                mixed = mixed + share * log_classes(self.model.p_y(z2)).exp()
            q.append(q_y)
            p.append(mixed)
        if self.plant == "mean of logs":
            return torch.stack(q).log().mean(0), torch.stack(p).log().mean(0)
        return torch.stack(q).mean(0).log(), torch.stack(p).mean(0).log()

    def terms(self, x: Any, y: Any, x_unlabelled: Any) -> dict[str, Tensor]:
        terms = {}
        if x is not None:
            log_q, log_p = self.classifiers(x)
            terms["classification_q"] = self.mean((log_q * y).sum(-1))
            terms["classification_p"] = self.mean((log_p * y).sum(-1))
        if x_unlabelled is not None:
            terms["unlabelled"] = self.mean(self.bound(x_unlabelled))
        weight = {"classification_p": 0.0 if self.plant == "one classifier" else 2.5, "classification_q": 2.5}
        terms["loss"] = -sum(weight.get(name, 1.0) * term for name, term in terms.items())
        return terms


def cagem_objective(kl_weight: float, S: int, **settings: Any) -> Objective:
    objective = with_fixed_draws("cagem", S=S, classification_weight=2.5, **settings)
    objective.kl_weight.fill_(kl_weight)
    return objective


@pytest.mark.parametrize("kl_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("S", [1, 3])
@pytest.mark.parametrize("which", SIDES)
def test_cagem_by_hand(which: str, S: int, kl_weight: float) -> None:
    """F, log q(y | x) and log p(y | x): every term and every gradient, to rounding."""
    objective, batch = cagem_objective(kl_weight, S), sides(which)
    assert differences(objective, batch, CaGeMByHand(objective).terms(*batch)) == []


def test_the_classifiers_average_probabilities() -> None:
    """The guide's `classify` is q(y | x), `cascade` is p(y | x); the thesis' classifier is E_q(z|x) p(y | z)."""
    objective, x = cagem_objective(1.0, 3), rows()[0]
    log_q, log_p = CaGeMByHand(objective).classifiers(x)
    assert close(objective.guide.classify(x, 3).logits, log_q)
    assert close(cascade(objective.model, objective.guide, 3)(x).logits, log_p)
    assert not close(log_q, log_p)
    for name in THESIS:
        objective = thesis_objective(name, 1.0, 3)
        p_y = [log_classes(objective.model.p_y(draw_z(objective, x, s, "")[0])).exp() for s in range(3)]
        assert close(objective.guide.classify(x, 3).logits, torch.stack(p_y).mean(0).log())


@pytest.mark.parametrize("S", [1, 3])
def test_cagem_by_hand_with_batch_norm(S: int) -> None:
    """The same in evaluation mode with the statistics that a step in training mode left."""
    objective = cagem_objective(0.3, S, batch_norm=True)
    start = CaGeMByHand(objective.eval()).terms(*rows())
    objective.train()(*rows())
    hand = CaGeMByHand(objective.eval()).terms(*rows())
    assert differences(objective, rows(), hand) == []
    assert not close(start["loss"], hand["loss"])


F, Q, P = "unlabelled", "classification_q", "classification_p"


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        ("no p(y | z2)", {F}),
        ("no entropy", {F}),
        ("no p(z1 | y, z2)", {F}),
        ("no q(z1 | x)", {F}),
        ("no KL of z2", {F}),
        ("kl_weight not on y", {F}),
        ("z1 drawn for each class", {F}),
        ("z2 shared by the classes", {F, P}),
        ("sum for mean", {F, Q, P}),
        ("one sample", {F, Q, P}),
        ("mean of logs", {Q, P}),
        ("no mixture weights", {P}),
        ("mixture weights detached", {"guide.q_y.mlp.first.weight"}),
        ("z1 with its gradient", {"guide.q_z1.net.mlp.first.weight"}),
        ("z2 with its gradient", {"guide.q_z2.net.mlp.first.weight"}),
        ("one classifier", {"loss"}),
    ],
)
def test_errors_planted_in_cagem_are_found(plant: str, found: set[str]) -> None:
    """The comparison by hand fails for each of these, in the terms where the error is, and in no other term."""
    objective = cagem_objective(0.3, 3)
    wrong = set(differences(objective, rows(), CaGeMByHand(objective, plant).terms(*rows())))
    assert found <= wrong
    assert wrong & {F, Q, P} == found & {F, Q, P}


def test_cagem_with_one_class_is_the_two_layer_vae() -> None:
    """K = 1: log p(x | z1) + log p(z1 | z2) + log p(z2) − log q(z1 | x) − log q(z2 | x, z1), eq. (1)."""
    objective, x = cagem_objective(1.0, 1, K=1), rows()[2]
    model, guide, y = objective.model, objective.guide, torch.ones(len(x), 1)
    z1, log_q_z1 = drawn(guide.q_z1, 0, x)
    z2, log_q_z2 = drawn(guide.q_z2, 0, x, y, z1)
    bound = log_bernoulli(x, model.p_x(y, z1)) + log_gaussian(z1, model.p_z1(y, z2)) + log_normal(z2, 0.0, 1.0)
    bound = (bound - log_q_z1 - log_q_z2).mean()
    assert differences(objective, (None, None, x), {F: bound, "loss": -bound}) == []


# Arguments


@pytest.mark.parametrize(
    ("name", "factor", "i", "j"),
    [
        ("latent-classifier", "model.p_x", 0, 1),
        ("latent-classifier-tight", "model.p_x", 0, 1),
        ("cagem", "model.p_x", 0, 1),
        ("cagem", "model.p_z1", 0, 1),
        ("cagem", "guide.q_y", 0, 1),
        *[("cagem", "guide.q_z2", i, j) for i, j in [(0, 1), (0, 2), (1, 2)]],
    ],
)
def test_swapped_arguments_are_found(name: str, factor: str, i: int, j: int) -> None:
    """With different widths they are an error; with equal ones the bound by hand sees them."""
    objective = with_fixed_draws(name)
    with_swap(objective, factor, i, j)
    with pytest.raises(ValueError, match="must have shape"):
        objective(*rows())
    batch = (None, None, rows(D=4)[2])
    equal = with_fixed_draws(name, D=4, **({"z1_dim": 4, "z2_dim": 4} if name == "cagem" else {"z_dim": 4}))
    hand = CaGeMByHand(equal).terms(*batch) if name == "cagem" else thesis(name, equal, batch)
    assert differences(equal, batch, hand) == []
    with_swap(equal, factor, i, j)
    assert not close(equal(*batch)[F], hand[F])
