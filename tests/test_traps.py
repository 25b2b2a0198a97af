"""What goes wrong in silence with Pyro: each of these gave a plausible loss somewhere."""

import warnings
from collections.abc import Iterator
from typing import Any

import pyro
import pytest
import torch
from semipyro.distributions import MLP
from semipyro.guides import M2Guide
from semipyro.inference import Objective, SemiSupervisedELBO, accuracy, log_likelihood, sample
from semipyro.models import M2
from semipyro.papers import PAPERS
from torch import Tensor, nn

D, K, L = 5, 3, 2


@pytest.fixture(autouse=True)
def _on_one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small(name: str, **settings: Any) -> Objective:
    """A paper's objective with small networks and weights that are not zero."""
    objective = PAPERS[name].build(D, K, z_dim=L, hidden=(6,), **settings)
    for parameter in objective.parameters():
        nn.init.normal_(parameter, std=0.5)
    return objective


def batch(name: str, N_l: int = 4, N_u: int = 7) -> tuple[Tensor | None, Tensor | None, Tensor]:
    x = torch.rand(N_l + N_u, D).round()
    if not PAPERS[name].classifies:
        return None, None, x[N_l:]
    return x[:N_l], torch.eye(K)[torch.arange(N_l) % K], x[N_l:]


def optimiser_step(objective: Objective, rows: tuple[Tensor | None, Tensor | None, Tensor]) -> None:
    optimiser = torch.optim.SGD(objective.parameters(), lr=0.1)
    objective(*rows)["loss"].backward()
    optimiser.step()


# Parameters that are never trained


@pytest.mark.parametrize("name", PAPERS)
def test_model_and_guide_are_both_trained(name: str) -> None:
    """Every parameter of both is among the objective's, and one step of a torch optimiser moves each."""
    objective = small(name)
    mine = {id(p) for p in objective.parameters()}
    parts = [*objective.model.parameters(), *objective.guide.parameters()]
    assert {id(p) for p in parts} <= mine
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


@pytest.mark.parametrize("name", PAPERS)
def test_batches_of_any_size(name: str) -> None:
    """A smaller last batch, one row, one labelled row, after a larger batch: nothing is remembered of the sizes."""
    objective = small(name, num_samples=2)
    for N_l, N_u in ((4, 7), (1, 3), (2, 1), (4, 7)):
        assert torch.isfinite(objective(*batch(name, N_l, N_u))["loss"])
    if PAPERS[name].classifies:
        x, y, _ = batch(name)
        assert set(objective(x, y, None)) == {"labelled", "classification", "loss"}
    assert set(objective(None, None, torch.zeros(2, D))) == {"unlabelled", "loss"}


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


@pytest.mark.parametrize("labels", [torch.tensor([0, 1, 2, 0]), torch.tensor([[0], [1], [2], [0]])], ids=["N", "N 1"])
def test_integer_labels_are_explained(labels: Tensor) -> None:
    """Not "mat1 and mat2 shapes cannot be multiplied"."""
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


def test_labels_reach_no_unlabelled_term() -> None:
    """The unlabelled bound is the same whatever the labels are."""
    objective, (x, y, x_unlabelled) = small("m2"), batch("m2")
    found = []
    for labels in (y, y.roll(1, -1)):
        torch.manual_seed(1)
        objective(x, labels, None)
        torch.manual_seed(1)
        found.append(objective(None, None, x_unlabelled)["unlabelled"])
    assert torch.equal(*found)


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
    """x in (0, 1) is accepted with validation on; x outside is not, on either side."""
    objective, (x, y, x_unlabelled) = small(name), batch(name)
    assert torch.isfinite(objective(None, None, 0.5 * x_unlabelled)["loss"])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        objective(None, None, 1.5 * torch.ones_like(x_unlabelled))
    if x is not None:
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            objective(1.5 * torch.ones_like(x), y, None)


@pytest.mark.parametrize("name", PAPERS)
def test_extreme_weights_stay_finite(name: str) -> None:
    """Logits of hundreds: the loss and its gradients are numbers (probabilities would have been 0 and 1)."""
    objective = small(name)
    for key, parameter in objective.named_parameters():
        if "q_z" not in key:
            nn.init.normal_(parameter, std=30.0)
    loss = objective(*batch(name))["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in objective.parameters())


def test_kl_weight_is_a_buffer() -> None:
    """1.0 at first, changed in place, moved with the module."""
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


def test_a_model_with_a_uniform_prior_keeps_k_ones() -> None:
    """`y_prior` is a buffer of K probabilities, uniform where it is None, and part of no gradient."""
    model = M2.build(D, K, z_dim=L)
    assert torch.allclose(model.y_prior, torch.full((K,), 1 / K))
    assert not any(p is model.y_prior for p in model.parameters())
