"""The shorter way to a bound is Pyro's, to rounding; and where there is none, Pyro goes its own."""

import pyro
import pytest
import torch
from pyro.distributions import Bernoulli, Normal, OneHotCategorical
from pyro.infer import TraceEnum_ELBO
from semipyro.inference import ELBO, ClusterAwareELBO, Objective, SemiSupervisedELBO
from semipyro.inference.objectives.summed import SummedELBO
from semipyro.papers import PAPERS
from torch import Tensor, nn

from helpers.comparisons import close, gradients
from helpers.paper_networks import batch_of, networks, rows

pytestmark = pytest.mark.usefixtures("float64")


def terms_and_gradients(objective: Objective, name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    torch.manual_seed(1)
    terms = objective(*batch_of(name))
    return terms, gradients(terms["loss"], objective)


def by_pyro(objective: Objective) -> Objective:
    """The same objective, whose bounds are Pyro's own."""
    settings = {
        "num_particles": objective.num_samples, "vectorize_particles": objective.num_samples > 1,
        "max_plate_nesting": 1, "strict_enumeration_warning": False,
    }  # fmt: skip
    for name in ("_elbo", "_reverse_elbo"):
        if hasattr(objective, name):
            setattr(objective, name, TraceEnum_ELBO(**settings))
    return objective


@pytest.mark.parametrize("S", [1, 3])
@pytest.mark.parametrize("name", PAPERS)
def test_every_paper_s_terms_and_gradients_are_pyro_s(name: str, S: int) -> None:
    """At the same random numbers, with a weight of the KL and without Pyro's checks, of which CaGeM fails one."""
    ours, pyro_s = (networks(name, S=S) for _ in range(2))
    pyro_s.load_state_dict(ours.state_dict())
    for objective in (ours, pyro_s):
        objective.kl_weight.fill_(0.7)
    with pyro.validation_enabled(False):
        terms, slopes = terms_and_gradients(ours, name)
        expected, expected_slopes = terms_and_gradients(by_pyro(pyro_s), name)
    assert all(close(terms[term], expected[term]) for term in expected)
    assert all(close(slopes[parameter], expected_slopes[parameter]) for parameter in expected_slopes)


@pytest.mark.parametrize("name", ["m2", "adgm", "cagem"])
def test_it_takes_the_shorter_way(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one of Pyro's contractions is made, and the check of this test would find one."""

    def contract(*_: object) -> None:
        raise AssertionError("Pyro's way")

    objective = networks(name)
    monkeypatch.setattr("pyro.infer.traceenum_elbo._compute_dice_elbo", contract)
    objective(*rows())
    with pytest.raises(AssertionError, match="Pyro's way"), pyro.validation_enabled(False):
        by_pyro(objective)(*rows())


@pytest.mark.parametrize("kind", [ELBO, SemiSupervisedELBO])
def test_a_y_that_reads_what_was_drawn_after_it(kind: type[Objective]) -> None:
    """CaGeM's p(y | z2) under any objective has the value F, though Pyro's contraction would not take it."""
    paper = networks("cagem")
    x = rows()[2]
    values = []
    for objective in (paper, kind(paper.model, paper.guide)):
        torch.manual_seed(1)
        values.append(objective(None, None, x)["unlabelled"])
    assert isinstance(paper, ClusterAwareELBO)
    assert torch.equal(*values)


class TwoDiscrete(nn.Module):
    """Two classes y and w of three, one latent z, and x; as a guide it has the logits of y and w."""

    y_dim = 3

    def __init__(self, *, is_guide: bool) -> None:
        super().__init__()
        self.is_guide = is_guide
        self.logits = nn.Parameter(torch.tensor([[0.3, -0.2, 0.1], [0.9, 0.0, -1.0]]))

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        enumerated = {"enumerate": "parallel"} if self.is_guide else {}
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", OneHotCategorical(logits=self.logits[0]), infer=enumerated)
            w = pyro.sample("w", OneHotCategorical(logits=self.logits[1]), infer=enumerated)
            z = pyro.sample("z", Normal(torch.zeros(1), 1.0).to_event(1))
            if not self.is_guide:
                pyro.sample("x", Bernoulli(logits=0.1 * z + (y * w).sum(-1, keepdim=True)).to_event(1), obs=x)


def test_two_discrete_latents_are_left_to_pyro() -> None:
    """With the value and the gradients that Pyro gives, from the same draws; also when it is asked again."""
    x = torch.tensor([[0.0], [1.0], [1.0]])
    ours, pyro_s = (ELBO(TwoDiscrete(is_guide=False), TwoDiscrete(is_guide=True)) for _ in range(2))
    for _ in range(2):
        found = []
        for objective in (ours, by_pyro(pyro_s)):
            torch.manual_seed(1)
            terms = objective(None, None, x)
            found.append((terms["loss"], gradients(terms["loss"], objective)))
        assert torch.equal(found[0][0], found[1][0])
        assert all(torch.equal(slope, found[1][1][parameter]) for parameter, slope in found[0][1].items())
    assert isinstance(ours._elbo, SummedELBO)
    assert ours._elbo.needs_pyro


def test_some_of_the_classes_beside_another_discrete_latent_are_refused() -> None:
    """Pyro's contraction would give the drawn class the weight of a summed one: a bound, and a wrong one."""
    objective = ELBO(TwoDiscrete(is_guide=False), TwoDiscrete(is_guide=True), summed_classes=1)
    for _ in range(2):
        with pytest.raises(ValueError, match="summed_classes needs a y that is the only discrete latent"):
            objective(None, None, torch.ones(3, 1))
