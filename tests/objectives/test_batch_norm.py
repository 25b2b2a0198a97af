"""Batch normalisation goes by the unlabelled rows in every term of a step, and by their statistics in evaluation."""

import pytest
from semipyro.inference import Objective
from semipyro.inference.objectives.batch_norm import batch_norms, normalised_alike
from semipyro.papers import PAPERS
from torch import Tensor, nn

from helpers.comparisons import changed, close, gradients, statistics
from helpers.paper_networks import batch_of, networks, rows, with_fixed_draws

pytestmark = pytest.mark.usefixtures("float64")


NORMED = [name for name in PAPERS if name != "untapped"]


def by_plain_pass(objective: Objective, x: Tensor) -> dict[str, Tensor]:
    """Each batch norm's statistics after one pass of the guide's and the model's networks over x, y drawn."""
    normed = {n: m for n, m in objective.named_modules() if isinstance(m, nn.BatchNorm1d)}
    calls: dict[str, list[Tensor]] = {n: [] for n in normed}
    hooks = [
        m.register_forward_pre_hook(
            lambda module, args, n=n: calls[n].append(args[0].detach()) if module.training else None
        )
        for n, m in normed.items()
    ]
    objective(None, None, x)
    for hook in hooks:
        hook.remove()
    expected = {}
    for n, m in normed.items():
        plain, kept = calls[n][0].flatten(0, -2), (1 - m.momentum) ** m.num_batches_tracked
        assert len(plain) == len(x)
        expected[n + ".running_mean"] = (1 - kept) * plain.mean(0)
        expected[n + ".running_var"] = kept + (1 - kept) * plain.var(0)
    return expected


@pytest.mark.parametrize("name", NORMED)
def test_statistics_come_from_one_plain_pass(name: str) -> None:
    """Every batch norm sees each unlabelled row once: no copies under classes that it does not have."""
    objective = networks(name, batch_norm=True)
    x = rows()[2]
    expected = by_plain_pass(objective, x)
    after = statistics(objective)
    counts = {n: v.item() for n, v in after.items() if n.endswith("num_batches_tracked")}
    assert counts
    shared = {n for n in counts if name == "latent-classifier" and "p_y" in n}  # p(y | z) is in model and guide
    assert all(count == (2 if n in shared else 1) for n, count in counts.items()), counts
    for n, value in expected.items():
        assert close(after[n], value), n


@pytest.mark.parametrize("S", [1, 3])
@pytest.mark.parametrize("name", NORMED)
def test_training_and_evaluation_normalise_alike(name: str, S: int) -> None:
    """In training every term has the value that evaluation gives it with the statistics of the step's unlabelled rows.

    It would have another, were enumerated and labelled rows normalised by their own statistics.
    """
    objective = with_fixed_draws(name, S=S, batch_norm=True)
    batch = batch_of(name)
    with normalised_alike(objective, lambda: None):
        by_their_own = objective.terms(*batch)
    layers = batch_norms(objective)
    for layer in layers:
        layer.momentum = 1.0
    in_training = objective(*batch)
    count = len(batch[2])
    for layer in layers:
        layer.running_var *= (count - 1) / count  # PyTorch keeps the unbiased variance, and normalises by the other
    in_evaluation = objective.eval()(*batch)
    assert in_training.keys() == in_evaluation.keys()
    for term, value in in_training.items():
        assert close(value, in_evaluation[term]), term
    if (name, S) != ("m1", 1):  # whose only rows are the plain ones
        assert not all(close(value, in_evaluation[term]) for term, value in by_their_own.items())


@pytest.mark.parametrize("name", NORMED)
def test_evaluation_moves_no_statistic(name: str) -> None:
    """In evaluation mode the running statistics are read and not changed."""
    objective = networks(name, batch_norm=True).eval()
    before = statistics(objective)
    objective(*batch_of(name))
    assert changed(before, objective) == set()


@pytest.mark.parametrize("name", [name for name in NORMED if PAPERS[name].classifies and name != "cagem"])
def test_labelled_rows_count_where_there_are_no_others(name: str) -> None:
    """Otherwise a model trained on labelled rows alone would be evaluated with the statistics that it started with."""
    objective = networks(name, batch_norm=True)
    before = statistics(objective)
    terms = objective(*rows()[:2], None)
    used = {n for n, g in gradients(sum(terms.values()), objective).items() if (g.abs() > 1e-12).any()}
    networks_used = {n.split(".mlp.")[0] for n in used}
    assert {n for n in before if n.split(".mlp.")[0] in networks_used} <= changed(before, objective)
