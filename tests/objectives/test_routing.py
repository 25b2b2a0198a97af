"""Which parameters and statistics a loss moves, and which it leaves alone: CaGeM and the adversary.

Everything is float64; "rounding" is 1e-10. What untapped moves is in `test_untapped.py`.
"""

import pytest
import torch
from pyro.distributions import OneHotCategorical
from semipyro.inference import SemiSupervisedELBO
from torch import nn

from helpers.comparisons import changed, close, gradients, moving, statistics
from helpers.conditionals import Conditional
from helpers.log_densities import drawn, log_classes
from helpers.paper_networks import networks, rows, with_fixed_draws

pytestmark = pytest.mark.usefixtures("float64")


# CaGeM


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_labels_move_only_the_two_classifiers(batch_norm: bool, num_samples: int) -> None:
    """A labelled pass has a gradient for q(y | z1, x) and p(y | z2), none for any other, and moves no statistic."""
    objective = networks("cagem", batch_norm=batch_norm, S=num_samples)
    before = statistics(objective)
    assert bool(before) == batch_norm
    terms = objective(*rows()[:2], None)
    assert moving(terms["classification_q"], objective) == {"guide.q_y"}
    assert moving(terms["classification_p"], objective) == {"guide.q_y", "model.p_y"}
    terms["loss"].backward()
    graded = {n for n, p in objective.named_parameters() if p.grad is not None}
    assert graded == {n for n, _ in objective.named_parameters() if n.startswith(("guide.q_y.", "model.p_y."))}
    assert changed(before, objective) == set()


def test_unlabelled_rows_move_all_of_cagem() -> None:
    """Unlabelled rows train every factor, and move the statistics of every batch norm; labelled rows move none."""
    objective = networks("cagem", batch_norm=True)
    before = statistics(objective)
    loss = objective(None, None, rows()[2])["loss"]
    assert moving(loss, objective) == {
        *("model.p_x", "model.p_z1", "model.p_y"),
        *("guide.q_z1", "guide.q_y", "guide.q_z2"),
    }
    assert changed(before, objective) == before.keys()


def test_labels_beside_unlabelled_rows_move_no_statistic() -> None:
    """With the same draws, the statistics after a step with labels are those after a step without them."""
    found = []
    for sides in (rows()[:2], (None, None)):
        torch.manual_seed(0)
        objective = with_fixed_draws("cagem", batch_norm=True)  # fixed z1 and z2
        objective.guide.q_y = sure(objective.guide.q_y)  # and y
        objective(*sides, rows()[2])
        found.append(statistics(objective))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][n], found[1][n]) for n in found[0])


def sure(net: nn.Module) -> nn.Module:
    """The classifier with its most probable class as its only one, so that its draw is no matter of chance."""
    conditional = Conditional(lambda *c: OneHotCategorical(logits=1e6 * net(*c).logits))
    conditional.net = net
    return conditional


# The adversary


@pytest.mark.parametrize("weight", [0.0, 0.7, 3.0])
@pytest.mark.parametrize("S", [1, 3])
def test_adversarial_by_hand(S: int, weight: float) -> None:
    """log f(y | z) at z ~ q(z | x, y); the loss is M2's, f gains and q(z | x, y) loses by `adversary`."""
    settings = {"labelled_weight": 0.6, "classification_weight": 2.5}
    objective = with_fixed_draws("m2-adversarial", S=S, adversary_weight=weight, **settings)
    x, y, x_unlabelled = rows()
    terms = objective(x, y, x_unlabelled)
    draws = [drawn(objective.guide.q_z, s, x, y)[0] for s in range(S)]
    log_f = torch.stack([(log_classes(objective.adversary(z)) * y).sum(-1) for z in draws]).mean()
    m2 = SemiSupervisedELBO(objective.model, objective.guide, num_samples=S, **settings)(x, y, x_unlabelled)
    assert set(terms) == {*m2, "adversary"}
    assert close(terms["adversary"], log_f)
    assert all(close(terms[name], m2[name]) for name in m2)
    found, of_m2, of_f = (gradients(loss, objective) for loss in (terms["loss"], m2["loss"], log_f))
    for name in found:
        sign = -1 if name.startswith("adversary") else 1
        assert close(found[name], of_m2[name] + sign * weight * of_f[name]), name
    assert {n.split(".")[1] for n, g in of_f.items() if (g != 0).any() and not n.startswith("adversary")} == {"q_z"}


def test_a_step_makes_the_adversary_better_and_the_latents_worse_for_it() -> None:
    """A step of gradient descent in f alone raises log f(y | z); a step in q(z | x, y) alone lowers it."""
    objective = with_fixed_draws("m2-adversarial", labelled_weight=0.0, classification_weight=0.0)
    batch = (*rows()[:2], None)
    start = objective(*batch)
    grads = gradients(start["loss"], objective)
    for part, sign in (("adversary", 1), ("guide.q_z", -1)):
        stepped = with_fixed_draws("m2-adversarial", labelled_weight=0.0, classification_weight=0.0)
        stepped.load_state_dict(objective.state_dict())
        with torch.no_grad():
            for name, parameter in stepped.named_parameters():
                if name.startswith(part):
                    parameter -= 1e-3 * grads[name]
        assert sign * (stepped(*batch)["adversary"] - start["adversary"]) > 0
