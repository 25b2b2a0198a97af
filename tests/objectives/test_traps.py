"""Mistakes that Pyro does not report: each of them once gave a loss that looked plausible."""

import warnings
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.distributions import OneHotCategorical
from semipyro.distributions import MLP, BernoulliNet, GreyBernoulli, NormalNet, StandardNormal
from semipyro.distributions.mlp import BatchNorm
from semipyro.guides import LatentClassifierGuide, M2Guide
from semipyro.inference import (
    ELBO,
    AdversarialELBO,
    ClusterAwareELBO,
    InvertedELBO,
    Objective,
    SemiSupervisedELBO,
    accuracy,
    log_likelihood,
    sample,
)
from semipyro.models import LatentClassifier
from semipyro.papers import PAPERS
from torch import Tensor, nn

from helpers.conditionals import Conditional
from helpers.paper_networks import WIDTHS_BY_PAPER

D, K, L = 5, 3, 2
Rows = tuple[Tensor | None, Tensor | None, Tensor]
CLASSIFYING = [name for name in PAPERS if PAPERS[name].classifies]


@pytest.fixture(autouse=True)
def _on_one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small(name: str, std: float = 0.2, **settings: Any) -> Objective:
    """A paper's objective with small networks and weights that are not zero.

    The weights are not large either: where one Gaussian is scored under another, quadratic forms divide by
    e^(2 log σ), and weights of 0.5 have given losses of 1e9. The activation is softplus, as all of six rectified units
    may happen to be zero.
    """
    widths = {"a_dim": L} if "a_dim" in WIDTHS_BY_PAPER.get(name, ()) else {}
    objective = PAPERS[name].build(D, K, **{"z_dim": L, "hidden": (6,), "activation": "softplus", **widths, **settings})
    for parameter in objective.parameters():
        nn.init.normal_(parameter, std=std)
    return objective


def binary(name: str) -> bool:
    """Whether the paper's x is in [0, 1], and not any real numbers."""
    return isinstance(small(name).model.p_x, BernoulliNet)


def batch(name: str, N_l: int = 4, N_u: int = 7) -> Rows:
    """Rows that suit the paper's likelihood: zeros and ones, or real numbers."""
    x = torch.rand(N_l + N_u, D).round() if binary(name) else torch.randn(N_l + N_u, D)
    if not PAPERS[name].classifies:
        return None, None, x[N_l:]
    return x[:N_l], torch.eye(K)[torch.arange(N_l) % K], x[N_l:]


def optimiser_step(objective: Objective, rows: Rows) -> None:
    optimiser = torch.optim.SGD(objective.parameters(), lr=0.1)
    objective(*rows)["loss"].backward()
    optimiser.step()


# Parameters that are never trained


def cancelled(objective: Objective) -> set[int]:
    """The biases that a batch norm after them subtracts again: they have no gradient but rounding."""
    found = set()
    for network in objective.modules():
        if hasattr(network, "features") and any(isinstance(layer, BatchNorm) for layer in network.modules()):
            found.add(id(network.features.last.bias))  # deterministic features, which nothing but a network reads
        if isinstance(network, MLP):
            layers = pairwise([network.first, *network.rest])
            found |= {id(layer.bias) for layer, following in layers if isinstance(following, BatchNorm)}
    return found


@pytest.mark.parametrize(
    ("name", "batch_norm"),
    [*((name, False) for name in PAPERS), *((name, True) for name in PAPERS if name != "untapped")],  # it takes none
)
def test_model_and_guide_are_both_trained(name: str, batch_norm: bool) -> None:
    """Every parameter of both is among the objective's, and one step of a torch optimiser moves each."""
    objective = small(name, **({} if name == "untapped" else {"batch_norm": batch_norm}))
    mine = {id(p) for p in objective.parameters()}
    parts = [*objective.model.parameters(), *objective.guide.parameters()]
    assert {id(p) for p in parts} <= mine
    without = cancelled(objective)
    assert bool(without) == batch_norm
    parts = [p for p in parts if id(p) not in without]
    before = [p.detach().clone() for p in parts]
    optimiser_step(objective, batch(name))
    assert all((old != new).any() for old, new in zip(before, parts, strict=True))


@pytest.mark.parametrize("name", PAPERS)
def test_the_parameter_store_stays_empty(name: str) -> None:
    """Training and every measure leave nothing in Pyro's store."""
    objective, rows = small(name), batch(name)
    optimiser_step(objective, rows)
    log_likelihood(objective.model, objective.guide, rows[2], num_samples=2)
    sample(objective.model, 3)
    if PAPERS[name].classifies:
        accuracy(objective.guide.classify, rows[2], torch.zeros(len(rows[2]), dtype=torch.long))
    assert not list(pyro.get_param_store().keys())


@pytest.mark.parametrize("name", PAPERS)
def test_state_holds_every_weight_and_no_setting(name: str) -> None:
    """A fresh objective with the saved state computes the same terms; `kl_weight` is a setting, not state."""
    objective, rows = small(name), batch(name)
    fresh = small(name)
    assert not any("kl_weight" in key for key in objective.state_dict())
    fresh.load_state_dict(objective.state_dict())
    torch.manual_seed(1)
    expected = objective(*rows)
    torch.manual_seed(1)
    assert all(torch.equal(value, expected[term]) for term, value in fresh(*rows).items())


# Evaluation


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("name", PAPERS)
def test_evaluation_without_gradients_is_the_same(name: str, num_samples: int) -> None:
    """Under `no_grad` every term is what it is with gradients and the same seed, and carries no graph."""
    objective, rows = small(name, num_samples=num_samples), batch(name)
    torch.manual_seed(1)
    expected = objective(*rows)
    torch.manual_seed(1)
    with torch.no_grad():
        terms = objective(*rows)
    assert set(terms) == set(expected)
    for term, value in terms.items():
        assert torch.allclose(value, expected[term], rtol=1e-5)
        assert not value.requires_grad
        assert expected[term].requires_grad
        assert value.shape == ()


TERMS: dict[type[Objective], tuple[set[str], set[str]]] = {  # of labelled and of unlabelled rows
    ELBO: (set(), {"unlabelled"}),
    SemiSupervisedELBO: ({"labelled", "classification"}, {"unlabelled"}),
    AdversarialELBO: ({"labelled", "classification", "adversary"}, {"unlabelled"}),
    ClusterAwareELBO: ({"classification_q", "classification_p"}, {"unlabelled"}),
    InvertedELBO: ({"labelled", "discriminative_y", "discriminative_x"}, {"unlabelled", "reverse"}),
}


@pytest.mark.parametrize("name", PAPERS)
def test_batches_of_any_size(name: str) -> None:
    """A smaller last batch, a single row, or a single labelled row may follow a larger batch: no size is remembered."""
    objective = small(name, num_samples=2)
    labelled, unlabelled = TERMS[type(objective)]
    for training in (True, False):
        objective.train(training)
        for N_l, N_u in ((4, 7), (1, 3), (2, 1), (4, 7)):
            terms = objective(*batch(name, N_l, N_u))
            assert torch.isfinite(terms["loss"])
            assert set(terms) == {*(labelled if PAPERS[name].classifies else ()), *unlabelled, "loss"}
        if PAPERS[name].classifies:
            x, y, _ = batch(name)
            assert set(objective(x, y, None)) == {*labelled, "loss"}
        assert set(objective(None, None, torch.zeros(2, D))) == {*unlabelled, "loss"}


# Sites


class ForgetsZ(M2Guide):
    """A guide without z: Pyro takes z from the prior, and the loss looks plausible."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            if y is None:
                pyro.sample("y", self.q_y(x), infer={"enumerate": "parallel"})


class ForgetsY(M2Guide):
    """A guide without y where it is unknown."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.q_z(x, torch.ones(len(x), K) / K if y is None else y))


class AddsA(M2Guide):
    """A guide with a site that the model lacks."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            if y is None:
                y = pyro.sample("y", self.q_y(x), infer={"enumerate": "parallel"})
            pyro.sample("z", self.q_z(x, y))
            pyro.sample("a", pyro.distributions.Normal(torch.zeros(L), 1.0).to_event(1))


@pytest.mark.parametrize(
    ("wrong", "site", "sides"),
    [
        (ForgetsZ, "z", "labelled"),
        (ForgetsZ, "z", "unlabelled"),
        (ForgetsY, "y", "unlabelled"),
        (AddsA, "a", "labelled"),
        (AddsA, "a", "unlabelled"),
    ],
)
def test_a_guide_with_other_sites_is_found(wrong: type[M2Guide], site: str, sides: str) -> None:
    """Pyro warns and goes on; warnings are errors in these tests, and the message names the site."""
    right, (x, y, x_unlabelled) = small("m2"), batch("m2")
    objective = SemiSupervisedELBO(right.model, wrong(q_y=right.guide.q_y, q_z=right.guide.q_z))
    with pytest.raises((UserWarning, ValueError), match=f"'{site}'"):
        objective(*((x, y, None) if sides == "labelled" else (None, None, x_unlabelled)))


class Hides(nn.Module):
    """A guide of which Pyro does not see one site."""

    def __init__(self, guide: nn.Module, site: str) -> None:
        super().__init__()
        self.guide, self.site = guide, site

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with poutine.block(hide=[self.site]):
            self.guide(x, y)


def latents(name: str) -> list[str]:
    """What the paper's guide draws where y is unknown."""
    nodes: Any = poutine.trace(small(name).guide).get_trace(batch(name)[2]).nodes
    return [site for site, node in nodes.items() if node["type"] == "sample" and site != "data"]


@pytest.mark.parametrize(("name", "site"), [(name, site) for name in PAPERS for site in latents(name)])
def test_a_site_that_the_guide_forgets_is_named(name: str, site: str) -> None:
    """For every latent of every paper, also where warnings are ignored, as few users make them errors.

    A guide of the thesis without y is no slip: it is the tight bound.
    """
    warnings.simplefilter("ignore")  # pytest puts its own filters back after each test
    objective, (x, y, x_unlabelled) = small(name), batch(name)
    objective.guide = Hides(objective.guide, site)
    if (name, site) == ("latent-classifier", "y"):
        tight = small("latent-classifier-tight")
        tight.load_state_dict({key.replace("guide.guide", "guide"): v for key, v in objective.state_dict().items()})
        losses = []
        for each in (objective, tight):
            torch.manual_seed(1)
            losses.append(each(None, None, x_unlabelled)["loss"])
        assert torch.allclose(*losses, rtol=1e-6)
        return
    with pytest.raises(ValueError, match=f"same latent sites.*'{site}'"):
        objective(None, None, x_unlabelled)
    if site != "y" and "labelled" in TERMS[type(objective)][0]:
        with pytest.raises(ValueError, match=f"same latent sites.*'{site}'"):
            objective(x, y, None)


@pytest.mark.parametrize("labels", [torch.tensor([0, 1, 2, 0]), torch.tensor([[0], [1], [2], [0]])], ids=["N", "N 1"])
def test_integer_labels_are_explained(labels: Tensor) -> None:
    """The error speaks of one-hot labels, not of "mat1 and mat2 shapes cannot be multiplied"."""
    with pytest.raises(ValueError, match=r"one-hot"):
        small("m2")(batch("m2")[0], labels, None)


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("name", PAPERS)
def test_no_warning(name: str, num_samples: int) -> None:
    """Neither the labelled call, which enumerates nothing, nor any other warns."""
    objective, (x, y, x_unlabelled) = small(name, num_samples=num_samples), batch(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for sides in ((x, y, None), (None, None, x_unlabelled), (x, y, x_unlabelled)):
            if any(side is not None for side in sides):
                objective(*sides)["loss"].backward()
        with torch.no_grad():
            objective(x, y, x_unlabelled)


@pytest.mark.parametrize("name", CLASSIFYING)
def test_labels_reach_no_unlabelled_term(name: str) -> None:
    """The unlabelled terms are the same whatever the labels are, which every labelled term reads."""
    objective, (x, y, x_unlabelled) = small(name), batch(name)
    found = []
    for labels in (y, y.roll(1, -1)):
        torch.manual_seed(1)
        found.append(objective(x, labels, x_unlabelled))
    labelled, unlabelled = TERMS[type(objective)]
    assert all(torch.equal(found[0][term], found[1][term]) for term in unlabelled)
    assert all(found[0][term] != found[1][term] for term in labelled)


# Numbers


@pytest.mark.parametrize("name", PAPERS)
def test_autocast_stays_inside_the_networks(name: str) -> None:
    """bfloat16 in every MLP: the loss and its gradients are float32, and the loss is near the float32 loss."""
    objective, rows = small(name), batch(name)
    torch.manual_seed(1)
    exact = objective(*rows)["loss"]
    networks = [module for module in objective.modules() if isinstance(module, MLP)]
    assert networks
    for network in networks:
        network.autocast_dtype = torch.bfloat16
    torch.manual_seed(1)
    rough = objective(*rows)["loss"]
    rough.backward()
    assert rough.dtype == torch.float32
    assert rough != exact
    assert abs(rough - exact) < 0.03 * abs(exact)
    assert all(p.grad.dtype == torch.float32 for p in objective.parameters())


@pytest.mark.parametrize("name", PAPERS)
def test_grey_images_pass_and_others_do_not(name: str) -> None:
    """Under a Bernoulli likelihood, x in (0, 1) is accepted with validation on, and x outside is not, on either side.

    CaGeM's labelled terms score no x. Under a normal likelihood any real x is accepted.
    """
    objective, (x, y, x_unlabelled) = small(name), batch(name)
    assert torch.isfinite(objective(None, None, torch.rand_like(x_unlabelled))["loss"])
    sides: list[tuple[Any, Any, Any]] = [(None, None, 1.5 * torch.ones_like(x_unlabelled))]
    if x is not None and not isinstance(objective, ClusterAwareELBO):
        sides.append((1.5 * torch.ones_like(x), y, None))
    for rows in sides:
        if binary(name):
            with pytest.raises(ValueError, match=r"\[0, 1\]"):
                objective(*rows)
        else:
            assert torch.isfinite(objective(*rows)["loss"])


@pytest.mark.parametrize("name", PAPERS)
def test_extreme_weights_stay_finite(name: str) -> None:
    """With logits of hundreds the loss and its gradients are finite (with probabilities, 0 and 1, they would not be).

    This is asked of every network that ends in logits. A network of a Gaussian cannot keep it, as its σ = e^hundreds is
    infinity; `test_a_network_that_broke_is_named` says what is told then. For the tight bound p(y | z) keeps its small
    weights; `test_the_tight_bound_where_two_classifiers_contradict_each_other` says why.
    """
    objective = small(name, likelihood="bernoulli")
    modest = [net for net in objective.modules() if isinstance(net, NormalNet)]
    modest += [objective.model.p_y] if name == "latent-classifier-tight" else []
    kept = {id(p) for net in modest for p in net.parameters()}
    for parameter in objective.parameters():
        if id(parameter) not in kept:
            nn.init.normal_(parameter, std=30.0)
    seen: list[Tensor] = []
    objective.model.p_x.register_forward_hook(lambda net, inputs, output: seen.append(output.base_dist.logits))
    x, y, x_unlabelled = batch(name)
    loss = objective(None if x is None else (x > 0.5).float(), y, (x_unlabelled > 0.5).float())["loss"]
    loss.backward()
    assert max(logits.abs().max() for logits in seen) > 100
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in objective.parameters())


@pytest.mark.parametrize("nats", [1.0, 50.0, 200.0])
def test_the_tight_bound_where_two_classifiers_contradict_each_other(nats: float) -> None:
    """log Σ_y p(y | z) p(x | y, z) where p(y | z) is sure of one class and x of the other.

    Pyro's own sum shifts each of the two factors by its own maximum before it multiplies them. In float32 their product
    would be zero, and the bound −∞, where they contradict each other by more than 103 nats for every class.
    """
    p_y = Conditional(lambda z: OneHotCategorical(logits=torch.tensor([0.0, -nats, -nats])).expand(z.shape[:-1]))
    p_x = Conditional(lambda y, z: GreyBernoulli(logits=0 * z[..., :1] - nats * y[..., :1]).to_event(1))
    q_z = Conditional(lambda x: StandardNormal(L)().expand((len(x),)))
    model, guide = LatentClassifier(p_x=p_x, p_y=p_y, z_dim=L), LatentClassifierGuide(q_z=q_z, p_y=p_y, tight=True)
    with torch.no_grad():
        found = SemiSupervisedELBO(model, guide)(None, None, torch.ones(4, 1))["unlabelled"].double()
    log_p_y = torch.log_softmax(torch.tensor([0.0, -nats, -nats]).double(), 0)
    log_p_x = nn.functional.logsigmoid(torch.tensor([-nats, 0.0, 0.0]).double())
    assert torch.allclose(found, torch.logsumexp(log_p_y + log_p_x, 0), rtol=1e-5)


def factors(name: str) -> list[str]:
    """The paper's networks, such as "guide.q_y" and "adversary"."""
    names = [key.split(".") for key, _ in small(name).named_parameters() if not key.startswith("reverse")]
    return sorted({".".join(parts[: 2 if parts[0] in ("model", "guide") else 1]) for parts in names})


def sides(name: str) -> list[str]:
    return ["labelled", "unlabelled"] if PAPERS[name].classifies else ["unlabelled"]


@pytest.mark.parametrize(("name", "factor", "side"), [(n, f, s) for n in PAPERS for f in factors(n) for s in sides(n)])
def test_a_network_that_broke_is_named(name: str, factor: str, side: str) -> None:
    """One network's weights are NaN: a `FloatingPointError` says in which bound, where a term reads that network."""
    whole, objective, (x, y, x_unlabelled) = small(name), small(name), batch(name)
    rows = (x, y, None) if side == "labelled" else (None, None, x_unlabelled)
    reads: list[Any] = []
    whole.get_submodule(factor).register_forward_hook(lambda *call: reads.append(call))
    whole(*rows)
    for parameter in objective.get_submodule(factor).parameters():
        nn.init.constant_(parameter, torch.nan)
    if not reads:
        assert torch.isfinite(objective(*rows)["loss"])
        return
    with pytest.raises(FloatingPointError, match=f"NaN in the {side}"):
        objective(*rows)


@pytest.mark.parametrize("factor", ["guide.q_y", "guide.q_z", "model.p_x"])
@pytest.mark.parametrize(
    ("name", "settings"), [("adgm", {"averaged_classifier": True}), ("untapped", {"temperature": 1.0})]
)
def test_a_network_that_broke_is_named_in_stand_ins(name: str, settings: dict[str, Any], factor: str) -> None:
    """The same holds for `surrogate` and `relaxed`, which replace the unlabelled bound while training."""
    objective = small(name, **settings)
    for parameter in objective.get_submodule(factor).parameters():
        nn.init.constant_(parameter, torch.nan)
    with pytest.raises(FloatingPointError, match="NaN in the unlabelled"):
        objective(None, None, batch(name)[2])


def test_kl_weight_is_a_buffer() -> None:
    """It is 1.0 at first, can be changed in place, and moves with the module."""
    objective = small("m2")
    assert objective.kl_weight == 1.0
    assert "kl_weight" in dict(objective.named_buffers())
    assert objective.double().kl_weight.dtype == torch.float64


@pytest.mark.parametrize("name", PAPERS)
def test_float64(name: str) -> None:
    """`.double()` moves everything: terms are float64."""
    objective = small(name).double()
    rows = tuple(None if part is None else part.double() for part in batch(name))
    assert all(value.dtype == torch.float64 for value in objective(*rows).values())


def test_validation_is_left_as_it_was() -> None:
    """Neither an import nor a call switches Pyro's or torch's validation off."""
    before = pyro.settings.get("validate_distributions_pyro")
    objective, rows = small("m2"), batch("m2")
    objective(*rows)
    log_likelihood(objective.model, objective.guide, rows[2], num_samples=2)
    assert before
    assert pyro.settings.get("validate_distributions_pyro") == before
    assert torch.distributions.Distribution._validate_args
