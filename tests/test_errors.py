"""Bad calls and what each is told: the argument, what was expected, what came."""

import math
import re
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from semipyro.distributions import MLP, BernoulliNet, BoundedNormalNet, NormalNet, UniformBox, likelihood_net
from semipyro.guides import M2Guide, VAEGuide
from semipyro.inference import ELBO, SemiSupervisedELBO, accuracy, evaluate, log_likelihood, sample
from semipyro.models import M2, VAE
from semipyro.papers import PAPERS

NAN, INF = math.nan, math.inf
SMALL = {"z_dim": 2, "hidden": (4,)}
X, Y, XU = torch.ones(4, 5), torch.eye(3)[[0, 1, 2, 0]], torch.zeros(6, 5)


def vae() -> ELBO:
    return ELBO(VAE.build(5, **SMALL), VAEGuide.build(5, **SMALL))


def m2(**settings: Any) -> SemiSupervisedELBO:
    return SemiSupervisedELBO(M2.build(5, 3, **SMALL), M2Guide.build(5, 3, **SMALL), **settings)


def broken() -> SemiSupervisedELBO:
    objective = m2()
    for parameter in objective.parameters():
        parameter.data.fill_(NAN)
    return objective


def net(*widths: int | None) -> MLP:
    return MLP(widths, 2, hidden=(4,))


def labels(*values: int) -> torch.Tensor:
    return torch.tensor(values)


def bound(x: Any = None, y: Any = None, x_unlabelled: Any = None) -> Any:
    return m2()(x, y, x_unlabelled)


def likelihood_of(x: Any, **settings: Any) -> Any:
    objective = m2()
    return log_likelihood(objective.model, objective.guide, x, **settings)


def accuracy_of(x: Any, y: Any) -> Any:
    return accuracy(m2().guide.classify, x, y)


def draws(n: Any, *y: Any, **settings: Any) -> Any:
    return sample(m2().model, n, *y, **settings)


DISTRIBUTIONS: dict[str, tuple[Callable[[], Any], str]] = {
    "a wrong width": (
        lambda: net(3, 4)(torch.zeros(2, 3), torch.zeros(2, 3)),
        "input 1 .* shape (..., 4), got shape (2, 3)",
    ),
    "no width": (lambda: net(3)(torch.tensor(1.0)), "input 0 .* shape (..., 3), got shape ()"),
    "nothing to read": (lambda: net(3, 4)(torch.zeros(2, 3), None), "input 1 .* got nothing"),
    "too few inputs": (lambda: net(3, 4)(torch.zeros(2, 3)), "takes 2 inputs, of widths (3, 4), got 1"),
    "too many inputs": (lambda: net(3)(torch.zeros(2, 3), torch.zeros(2, 3)), "takes 1 inputs, of widths (3,), got 2"),
    "no input is read": (lambda: net(None), "at least one of them read: (None,)"),
    "no inputs": (lambda: net(), "at least one of them read: ()"),
    "no output": (lambda: MLP((3,), 0), "positive widths"),
    "an empty layer": (lambda: MLP((3,), 2, hidden=(0,)), "positive widths"),
    "an unknown activation": (lambda: MLP((3,), 2, activation="x"), "activation must be one of .*softplus.*, got 'x'"),
    "an unknown likelihood": (
        lambda: likelihood_net("poisson", (3,), 2),
        "likelihood must be one of bernoulli, normal",
    ),
    "a scale of zero": (lambda: NormalNet((3,), 2, scale=0), "scale must be a positive .*, got 0"),
    "a negative scale": (lambda: NormalNet((3,), 2, scale=-1.0), "scale must be a positive .*, got -1.0"),
    "an empty box": (lambda: UniformBox(2, 1.0, 1.0), "low must be below high, got 1.0 and 1.0"),
    "a box upside down": (lambda: BoundedNormalNet((3,), 2, 2.0, 1.0), "low must be below high, got 2.0 and 1.0"),
    "255 for 1": (
        lambda: BernoulliNet((3,), 2)(torch.zeros(1, 3)).log_prob(torch.full((1, 2), 255.0)),
        "x must lie in [0, 1] .*to 255; rescale x, or choose likelihood='normal'",
    ),
}

MODELS_AND_GUIDES: dict[str, tuple[Callable[[], Any], str]] = {
    "a prior that sums to more": (
        lambda: M2.build(5, 3, y_prior=[0.5, 0.5, 0.5]),
        "y_prior must be 3 prob.*[0.5, 0.5, 0.5]",
    ),
    "a prior of other classes": (lambda: M2.build(5, 3, y_prior=[0.5, 0.5]), "y_prior must be 3 prob.*[0.5, 0.5]"),
    "a negative prior": (lambda: M2.build(5, 2, y_prior=[1.5, -0.5]), "y_prior must be 2 prob"),
    "a prior with NaN": (lambda: M2.build(5, 2, y_prior=[NAN, 1.0]), "y_prior must be 2 prob"),
    "no classes": (lambda: M2.build(5, 0), "positive widths"),
    "no latents": (lambda: VAE.build(5, z_dim=0), "positive widths"),
    "labels for the VAE": (lambda: SemiSupervisedELBO(vae().model, vae().guide)(X, Y, None), "VAE has no label"),
    "another site of VAEGuide": (lambda: vae().guide.encode(X, "a"), "'z', not 'a'"),
    "another site of M2Guide": (lambda: m2().guide.encode(X, site="y"), "'z', not 'y'"),
    "x of another width": (lambda: m2().guide.classify(X[:, :4]), "shape (..., 5), got shape (4, 4)"),
}

OBJECTIVES: dict[str, tuple[Callable[[], Any], str]] = {
    "nothing": (lambda: bound(), "SemiSupervisedELBO has nothing to compute"),
    "nothing for the VAE": (lambda: vae()(X, Y, None), "ELBO has nothing to compute"),
    "rows without labels": (lambda: bound(X, None, XU), "x_labelled and y_labelled go together"),
    "labels without rows": (lambda: bound(None, Y, XU), "x_labelled and y_labelled go together"),
    "rows without labels for the VAE": (lambda: vae()(X, None, XU), "x_labelled and y_labelled go together"),
    "integer labels": (
        lambda: bound(X, labels(0, 1, 2, 0)),
        "y_labelled must be one-hot.*(4,) of torch.int64.*one_hot",
    ),
    "integer one-hot labels": (lambda: bound(X, Y.long()), "y_labelled must be one-hot.*(4, 3) of torch.int64"),
    "fewer labels": (lambda: bound(X, Y[:3]), "y_labelled has 3 rows, expected 4"),
    "labels of other classes": (lambda: bound(X, torch.eye(4)), "y_labelled has 4 classes, but the model has 3"),
    "soft labels": (lambda: bound(X, torch.full((4, 3), 1 / 3)), "y_labelled must be one-hot: a single 1"),
    "two labels": (lambda: bound(X, Y + Y.roll(1, -1)), "y_labelled must be one-hot: a single 1"),
    "no labels": (lambda: bound(X, 0 * Y), "y_labelled must be one-hot: a single 1"),
    "NaN for a label": (lambda: bound(X, NAN * Y), "y_labelled must be one-hot: a single 1"),
    "one row alone": (lambda: bound(x_unlabelled=XU[0]), "x_unlabelled must be a (N, D) .* got shape (5,)"),
    "images": (lambda: bound(X[None], Y), "x_labelled must be a (N, D) .* got shape (1, 4, 5)"),
    "integers": (lambda: bound(x_unlabelled=XU.long()), "x_unlabelled must be .* floats, got .* torch.int64"),
    "another width": (lambda: bound(x_unlabelled=torch.zeros(3, 4)), "shape (..., 5), got shape (3, 4)"),
    "no rows": (lambda: bound(X, Y, XU[:0]), "x_unlabelled has no rows; pass None"),
    "no labelled rows": (lambda: bound(X[:0], Y[:0], XU), "x_labelled has no rows; pass None"),
    "NaN": (
        lambda: bound(x_unlabelled=XU.index_fill(0, labels(2), NAN)),
        "x_unlabelled holds NaN or infinity in 1 of 6 rows",
    ),
    "infinity": (lambda: bound(INF * X, Y), "x_labelled holds NaN or infinity in 4 of 4 rows"),
    "outside [0, 1]": (lambda: bound(x_unlabelled=XU + 1.5), "x must lie in [0, 1].*got values from 1.5 to 1.5"),
    "images of 256 greys": (lambda: bound(255 * X, Y), "site 'x'.*x must lie in [0, 1].*from 255 to 255; rescale x"),
    "float64 rows": (lambda: bound(X.double(), Y.double()), "x_labelled is torch.float64, but the networks are"),
    "an array": (lambda: bound(X.numpy(), Y), "x_labelled must be a (N, D) tensor of floats, got ndarray"),
    "a list of labels": (lambda: bound(X, [0, 1, 2, 0]), "y_labelled must be one-hot.*got list"),
    "a guide of another model": (
        lambda: SemiSupervisedELBO(m2().model, vae().guide)(None, None, XU),
        "do not have the same latent sites.*in model but not guide.*'y'",
    ),
    "nothing to train": (lambda: m2().requires_grad_(False)(X, Y, XU), "no parameter requires a gradient"),
    "no samples": (lambda: m2(num_samples=0), "num_samples must be a positive integer, got 0"),
    "half a sample": (lambda: m2(num_samples=1.5), "num_samples must be a positive integer, got 1.5"),
    "a negative labelled weight": (lambda: m2(labelled_weight=-1), "weights must not be negative, got -1"),
    "a negative classification weight": (lambda: m2(classification_weight=-0.1), "weights must not be negative.*-0.1"),
    "NaN for a weight": (lambda: m2(classification_weight=NAN), "weights must not be negative.*nan"),
}

EVALUATION: dict[str, tuple[Callable[[], Any], str]] = {
    "one row": (lambda: likelihood_of(X[0]), "x must be a (N, D) .* got shape (5,)"),
    "NaN": (lambda: likelihood_of(NAN * X), "x holds NaN or infinity in 4 of 4 rows"),
    "no rows": (lambda: likelihood_of(X[:0]), "x has no rows"),
    "no samples": (lambda: likelihood_of(X, num_samples=0), "num_samples must be a positive integer, got 0"),
    "outside [0, 1]": (lambda: likelihood_of(2 * X), "x must lie in [0, 1]"),
    "one-hot labels": (lambda: accuracy_of(X, Y), "y must be 4 integer labels, got shape (4, 3) of torch.float32"),
    "fewer labels": (lambda: accuracy_of(X, labels(0, 1)), "y must be 4 integer labels, got shape (2,)"),
    "unlabelled rows alone": (lambda: accuracy_of(X, labels(-1, -1, -1, -1)), "y has no label"),
    "a label of no class": (
        lambda: accuracy_of(X, labels(0, 1, 2, 3)),
        "y must hold labels 0 to 2, or -1 where unlabelled, got 0 to 3",
    ),
    "a label below -1": (
        lambda: accuracy_of(X, labels(0, 1, 2, -2)),
        "y must hold labels 0 to 2, or -1 where unlabelled, got -2 to 2",
    ),
    "a label of no class to evaluate": (lambda: evaluate(m2(), X, labels(0, 1, 2, 3)), "labels 0 to 2, or -1"),
    "NaN to evaluate": (lambda: evaluate(m2(), NAN * X), "x holds NaN or infinity in 4 of 4 rows"),
    "a site that is not there": (lambda: draws(4, latents={"a": X}), "the model has no site a, only y, z, x"),
    "classes of a VAE": (lambda: sample(vae().model, 4, Y), "the model has no site y, only z, x"),
    "no draws": (lambda: draws(0), "n must be a positive integer, got 0"),
    "half a draw": (lambda: draws(2.5), "n must be a positive integer, got 2.5"),
    "labels of other draws": (lambda: draws(3, Y), "y has 4 rows, expected 3"),
    "latents of other draws": (lambda: draws(4, latents={"z": torch.zeros(3, 2)}), "z has 3 rows, but n = 4"),
    "latents of another width": (
        lambda: draws(4, latents={"z": torch.zeros(4, 3)}),
        "shape (..., 2), got shape (4, 3)",
    ),
}

TABLES = {
    "distributions": DISTRIBUTIONS,
    "models and guides": MODELS_AND_GUIDES,
    "objectives": OBJECTIVES,
    "evaluation": EVALUATION,
}


def pattern(message: str) -> str:
    """The message as a pattern: everything literal but `.*`."""
    return "(?s)" + ".*".join(re.escape(part.strip()) for part in message.split(".*"))


@pytest.mark.parametrize(
    ("call", "message"),
    [pytest.param(*row, id=f"{table}: {name}") for table, rows in TABLES.items() for name, row in rows.items()],
)
def test_bad_calls(call: Callable[[], Any], message: str) -> None:
    """A `ValueError` that says what was wrong."""
    with pytest.raises(ValueError, match=pattern(message)):
        call()


def test_networks_that_broke_are_no_fault_of_the_call() -> None:
    """A `FloatingPointError` that says in which bound."""
    for rows, kind in (((X, Y, XU), "labelled"), ((None, None, XU), "unlabelled")):
        with pytest.raises(FloatingPointError, match=f"NaN in the {kind} bound: its weights are, or x is too large"):
            broken()(*rows)


@pytest.mark.parametrize("name", PAPERS)
def test_papers_know_their_settings(name: str) -> None:
    """An unknown keyword of `build` is Python's own error, and names the keyword."""
    with pytest.raises(TypeError, match="no_such_setting"):
        PAPERS[name].build(5, 3, no_such_setting=1)
    with pytest.raises(ValueError, match="num_samples"):
        PAPERS[name].build(5, 3, num_samples=0)


def test_unknown_papers() -> None:
    """The table is a dictionary."""
    with pytest.raises(KeyError, match="no-such-paper"):
        PAPERS["no-such-paper"]


def test_values_are_checked_only_while_validation_is_on() -> None:
    """Shapes always; NaN and one-hot only with Pyro's validation, which costs a look at every value."""
    with pyro.validation_enabled(False):
        bound(x_unlabelled=NAN * X)
        bound(X, torch.full((4, 3), 1 / 3))
        with pytest.raises(ValueError, match="one-hot"):
            bound(X, labels(0, 1, 2, 0))
