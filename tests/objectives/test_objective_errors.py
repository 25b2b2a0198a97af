"""Wrong calls of objectives, and what each is told: the argument, what was expected, what came."""

from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from semipyro.guides import CaGeMGuide
from semipyro.inference import ELBO, ClusterAwareELBO, Objective, SemiSupervisedELBO
from semipyro.papers import PAPERS

from helpers.bad_calls import INF, NAN, XU, X, Y, as_parameters, built, labels, m2, pattern, vae


def broken() -> SemiSupervisedELBO:
    objective = m2()
    for parameter in objective.parameters():
        parameter.data.fill_(NAN)
    return objective


class CaGeMGuideWithoutZ2(CaGeMGuide):
    """A guide that forgets z2: the model would draw z2 from p(z2), and the bound would look plausible."""

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", self.q_z1(x))
            if y is None:
                pyro.sample("y", self.q_y(z1, x), infer={"enumerate": "parallel"})


def cagem_without_z2(*rows: Any) -> Any:
    right = built("cagem")
    guide = CaGeMGuideWithoutZ2(q_z1=right.guide.q_z1, q_y=right.guide.q_y, q_z2=right.guide.q_z2)
    return ClusterAwareELBO(right.model, guide)(*rows)


def under(objective: Callable[..., Objective], name: str, **settings: Any) -> Objective:
    """Another objective with the model and the guide of a row of `PAPERS`."""
    row = built(name)
    return objective(row.model, row.guide, **settings)


def bound(x: Any = None, y: Any = None, x_unlabelled: Any = None) -> Any:
    return m2()(x, y, x_unlabelled)


BAD_CALLS: dict[str, tuple[Callable[[], Any], str]] = {
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
    "a guide of CaGeM without z2": (
        lambda: cagem_without_z2(None, None, XU),
        "model and guide do not have the same latent sites; .*: {'z2'}",
    ),
    "another guide for CaGeM": (
        lambda: ClusterAwareELBO(built("cagem").model, m2().guide),
        "ClusterAwareELBO needs these factors as attributes, but M2Guide has no q_z1(x) and M2Guide has no q_z2(",
    ),
    "averages of a classifier that is not drawn": (
        lambda: under(SemiSupervisedELBO, "latent-classifier-tight", averaged_classifier=True)(None, None, XU),
        "averaged_classifier needs a guide that draws y",
    ),
    "averages of no classifier": (
        lambda: under(SemiSupervisedELBO, "m1", averaged_classifier=True)(None, None, XU),
        "averaged_classifier needs a guide that draws y",
    ),
    "nothing for CaGeM": (lambda: built("cagem")(None, None, None), "ClusterAwareELBO has nothing to compute"),
    "nothing for untapped": (lambda: built("untapped")(None, None, None), "InvertedELBO has nothing to compute"),
    "a negative weight of M2's": (
        lambda: built("m2-adversarial", labelled_weight=-1),
        "labelled_weight must not be negative",
    ),
    "a negative weight of the adversary": (
        lambda: built("m2-adversarial", adversary_weight=-0.5),
        "adversary_weight must not be negative, got -0.5",
    ),
    "NaN for the adversary's weight": (
        lambda: built("m2-adversarial", adversary_weight=NAN),
        "adversary_weight must not be negative, got nan",
    ),
    "a negative weight of CaGeM's classifiers": (
        lambda: built("cagem", classification_weight=-0.5),
        "classification_weight must not be negative, got -0.5",
    ),
    "NaN for the weight of CaGeM's classifiers": (
        lambda: built("cagem", classification_weight=NAN),
        "classification_weight must not be negative, got nan",
    ),
    **{
        f"a negative {weight}": (
            lambda weight=weight: built("untapped", **{weight: -0.5}),
            f"{weight} must not be negative, got -0.5",
        )
        for weight in ("reverse_weight", "discriminative_y_weight", "discriminative_x_weight")
    },
    "NaN for the reverse weight": (
        lambda: built("untapped", reverse_weight=NAN),
        "reverse_weight must not be negative",
    ),
    "an unknown gradient": (
        lambda: built("untapped", gradient="straight"),
        "gradient must be one of detached, score, relaxed, got 'straight'",
    ),
    **{
        f"a temperature of {temperature}": (
            lambda temperature=temperature: built("untapped", temperature=temperature),
            f"temperature must be positive, or None for exact sums, got {temperature}",
        )
        for temperature in (0, -1.0, NAN)
    },
    **{
        f"a smoothing of {smoothing}": (
            lambda smoothing=smoothing: built("untapped", smoothing=smoothing),
            f"smoothing must be between 0 and 1, got {smoothing}",
        )
        for smoothing in (0, 1, -0.1, 1.5, NAN)
    },
    **{
        f"a negative kl_weight for {objective.__name__}": (
            lambda objective=objective: under(objective, "m2", kl_weight=-0.5),
            "kl_weight must not be negative, got -0.5",
        )
        for objective in (ELBO, SemiSupervisedELBO, ClusterAwareELBO)
    },
    "a negative kl_weight for untapped": (lambda: built("untapped", kl_weight=-1), "kl_weight must not be negative"),
    "nothing to train": (lambda: m2().requires_grad_(False)(X, Y, XU), "no parameter requires a gradient"),
    "no samples": (lambda: m2(num_samples=0), "num_samples must be an integer of at least 1, got 0"),
    "half a sample": (lambda: m2(num_samples=1.5), "num_samples must be an integer of at least 1, got 1.5"),
    "a negative labelled weight": (lambda: m2(labelled_weight=-1), "labelled_weight must not be negative, got -1"),
    "a negative classification weight": (
        lambda: m2(classification_weight=-0.1),
        "classification_weight must not be negative, got -0.1",
    ),
    "NaN for a weight": (lambda: m2(classification_weight=NAN), "classification_weight must not be negative, got nan"),
}


@pytest.mark.parametrize(("call", "message"), as_parameters("objectives", BAD_CALLS))
def test_bad_calls(call: Callable[[], Any], message: str) -> None:
    """A `ValueError` that says what was wrong."""
    with pytest.raises(ValueError, match=pattern(message)):
        call()


@pytest.mark.parametrize("name", [name for name in PAPERS if PAPERS[name].classifies])
def test_labels_of_other_classes(name: str) -> None:
    """One-hot labels that are too wide, too narrow, or of one class: how many there are, and how many the model has."""
    for K in (4, 2, 1):
        with pytest.raises(ValueError, match=f"y_labelled has {K} classes, but the model has 3"):
            built(name)(X, torch.eye(K)[torch.arange(4) % K], XU)


@pytest.mark.parametrize("name", [name for name in PAPERS if PAPERS[name].classifies])
def test_every_paper_checks_its_rows(name: str) -> None:
    """What `Objective` asks of rows and labels holds for every objective."""
    objective = built(name)
    for rows, message in (
        ((X, None, XU), "x_labelled and y_labelled go together"),
        ((X, Y[:3], XU), "y_labelled has 3 rows, expected 4"),
        ((X, labels(0, 1, 2, 0), XU), "y_labelled must be one-hot"),
        ((X, torch.full((4, 3), 1 / 3), XU), "y_labelled must be one-hot: a single 1"),
        ((X[:, :4], Y, None), "got shape (4, 4)"),
        ((None, None, XU[:, :4]), "got shape (6, 4)"),
        ((None, None, XU[:0]), "x_unlabelled has no rows"),
        ((NAN * X, Y, None), "x_labelled holds NaN or infinity in 4 of 4 rows"),
        ((X.double(), Y.double(), None), "x_labelled is torch.float64, but the networks are torch.float32"),
        ((None, None, None), "has nothing to compute"),
    ):
        with pytest.raises(ValueError, match=pattern(message)):
            objective(*rows)


def test_networks_that_broke_are_no_fault_of_the_call() -> None:
    """A `FloatingPointError` that says in which bound."""
    for rows, kind in (((X, Y, XU), "labelled"), ((None, None, XU), "unlabelled")):
        with pytest.raises(FloatingPointError, match=f"NaN in the {kind} bound: its weights are, or x is too large"):
            broken()(*rows)


def test_values_are_checked_only_while_validation_is_on() -> None:
    """Shapes always; NaN and one-hot only with Pyro's validation, which costs a look at every value."""
    with pyro.validation_enabled(False):
        bound(x_unlabelled=NAN * X)
        bound(X, torch.full((4, 3), 1 / 3))
        with pytest.raises(ValueError, match="one-hot"):
            bound(X, labels(0, 1, 2, 0))
