"""Bad calls and what each is told: the argument, what was expected, what came."""

import math
import re
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from semipyro.distributions import MLP, BernoulliNet, BoundedNormalNet, NormalNet, UniformBox, likelihood_net
from semipyro.guides import ADGMGuide, CaGeMGuide, LatentClassifierGuide, M2Guide, VAEGuide
from semipyro.inference import (
    ELBO,
    ClusterAwareELBO,
    Objective,
    SemiSupervisedELBO,
    accuracy,
    cascade,
    evaluate,
    log_likelihood,
    sample,
)
from semipyro.models import ADGM, AGMDGM, GMDGM, M2, SDGM, VAE, SimplifiedLatentClassifier
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


def built(name: str, **settings: Any) -> Objective:
    """A row of the table, small."""
    return PAPERS[name].build(5, 3, **{**SMALL, **settings})


class CaGeMGuideWithoutZ2(CaGeMGuide):
    """Its model would draw z2 from p(z2), and the bound look plausible."""

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
    """Another objective with a row's model and guide."""
    row = built(name)
    return objective(row.model, row.guide, **settings)


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
    "too few inputs": (lambda: net(3, 4)(torch.zeros(2, 3)), "inputs must be 2, of widths (3, 4), got 1"),
    "too many inputs": (
        lambda: net(3)(torch.zeros(2, 3), torch.zeros(2, 3)),
        "inputs must be 1, of widths (3,), got 2",
    ),
    "no input is read": (lambda: net(None), "at least one of them read, got (None,)"),
    "no inputs": (lambda: net(), "at least one of them read, got ()"),
    "no output": (lambda: MLP((3,), 0), "positive widths"),
    "an empty layer": (lambda: MLP((3,), 2, hidden=(0,)), "positive widths"),
    "an unknown activation": (lambda: MLP((3,), 2, activation="x"), "activation must be one of .*softplus.*, got 'x'"),
    "an unknown likelihood": (
        lambda: likelihood_net("poisson", (3,), 2),
        "likelihood must be one of bernoulli, normal",
    ),
    "a scale of zero": (lambda: NormalNet((3,), 2, scale=0), "scale must be positive and finite, got 0"),
    "a negative scale": (lambda: NormalNet((3,), 2, scale=-1.0), "scale must be positive and finite, got -1.0"),
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
    **{
        f"a prior of other classes of {model.__name__}": (
            lambda model=model: model.build(5, 3, **SMALL, y_prior=[0.5, 0.5]),
            "y_prior must be 3 probabilities that sum to one, got [0.5, 0.5]",
        )
        for model in (ADGM, SDGM, GMDGM, AGMDGM)
    },
    **{
        f"a prior that sums to less, of {model.__name__} itself": (
            lambda model=model, parts=parts: model(**dict.fromkeys(parts, net(1)), y_dim=2, y_prior=[0.5, 0.4]),
            "y_prior must be 2 probabilities that sum to one",
        )
        for model, parts in {GMDGM: ("p_x", "p_z"), AGMDGM: ("p_x", "p_z", "p_a")}.items()
    },
    **{
        f"a negative prior of {model.__name__} itself": (
            lambda model=model: model(p_x=net(1), p_a=net(1), y_dim=2, z_dim=1, y_prior=[1.5, -0.5]),
            "y_prior must be 2 probabilities that sum to one, got [1.5, -0.5]",
        )
        for model in (ADGM, SDGM)
    },
    "z_y as wide as z": (
        lambda: SimplifiedLatentClassifier.build(5, 3, z_dim=4, zy_dim=4),
        "zy_dim must be from 1 to z_dim - 1 = 3, or None, got 4",
    ),
    "z_y of nothing": (
        lambda: SimplifiedLatentClassifier.build(5, 3, z_dim=4, zy_dim=0),
        "zy_dim must be from 1 to z_dim - 1 = 3, or None, got 0",
    ),
    "z_y wider than z in Appendix C": (lambda: built("appendix-c", zy_dim=3), "zy_dim must be from 1 to .* got 3"),
    "a z of one dimension in Appendix C": (lambda: built("appendix-c", z_dim=1), "zy_dim must be from 1 to .* got 1"),
    "a box of nothing": (lambda: built("untapped", half_width=0.0), "low must be below high, got"),
    "untapped with real x": (
        lambda: built("untapped", likelihood="normal"),
        "likelihood must be 'bernoulli' for untapped, got 'normal'; its reverse process has a binary x",
    ),
    "labels for the VAE itself": (
        lambda: vae().model(X, Y),
        "y must be None, since the VAE has no label, got one; call it with x alone",
    ),
    "another site of ADGMGuide": (lambda: ADGMGuide.build(5, 3).encode(X, "y"), "site must be one of z, a, got 'y'"),
    "another site of CaGeMGuide": (
        lambda: CaGeMGuide.build(5, 3).encode(X, "z"),
        "site must be one of z2, z1, got 'z'",
    ),
    "another site of LatentClassifierGuide": (
        lambda: LatentClassifierGuide.build(5, net(50)).encode(X, site="a"),
        "site must be one of z, got 'a'",
    ),
    **{
        f"a site of no guide of {name}": (
            lambda name=name: built(name).guide.encode(X, "x"),
            "site must be one of .*, got 'x'",
        )
        for name in PAPERS
    },
    "labels for the VAE": (lambda: SemiSupervisedELBO(vae().model, vae().guide)(X, Y, None), "VAE has no label"),
    "another site of VAEGuide": (lambda: vae().guide.encode(X, "a"), "site must be one of z, got 'a'"),
    "another site of M2Guide": (lambda: m2().guide.encode(X, site="y"), "site must be one of z, got 'y'"),
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
    "CaGeM under ELBO": (lambda: under(ELBO, "cagem")(None, None, XU), "ClusterAwareELBO takes such a model"),
    "CaGeM under SemiSupervisedELBO": (
        lambda: under(SemiSupervisedELBO, "cagem")(X, Y, XU),
        "reads a latent that the guide draws after y; ClusterAwareELBO takes such a model",
    ),
    "a guide of CaGeM without z2": (
        lambda: cagem_without_z2(None, None, XU),
        "model and guide do not have the same latent sites: .*'z1', 'z2'] and .*'z1']",
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

EVALUATION: dict[str, tuple[Callable[[], Any], str]] = {
    "one row": (lambda: likelihood_of(X[0]), "x must be a (N, D) .* got shape (5,)"),
    "NaN": (lambda: likelihood_of(NAN * X), "x holds NaN or infinity in 4 of 4 rows"),
    "no rows": (lambda: likelihood_of(X[:0]), "x has no rows"),
    "no samples": (lambda: likelihood_of(X, num_samples=0), "num_samples must be an integer of at least 1, got 0"),
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
    "one-hot labels for a cascade": (
        lambda: accuracy(cascade(built("cagem").model, built("cagem").guide), X, Y),
        "y must be 4 integer labels, got shape (4, 3)",
    ),
    "NaN to evaluate": (lambda: evaluate(m2(), NAN * X), "x holds NaN or infinity in 4 of 4 rows"),
    "a site that is not there": (lambda: draws(4, latents={"a": X}), "the model has no site a, only y, z, x"),
    "classes of a VAE": (lambda: sample(vae().model, 4, Y), "the model has no site y, only z, x"),
    "no draws": (lambda: draws(0), "n must be an integer of at least 1, got 0"),
    "half a draw": (lambda: draws(2.5), "n must be an integer of at least 1, got 2.5"),
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
