"""The one table of papers: each row builds an objective together with its model and guide, with the paper's settings.

The papers weigh sums over rows, an objective here weighs means. Dividing J by N_u, the number of unlabelled rows, turns
the sum over the unlabelled rows into a mean, and the sum over the labelled rows into a weighted mean:

    J = Σ_u U + Σ_l L + α mean_l log q   →   J / N_u = mean_u U + (N_l / N_u) mean_l L + (α / N_u) mean_l log q
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from .checks import check_counts
from .contract import ClassifyingGuide, Model
from .distributions import (
    FLOWS,
    BoundedNormalNet,
    CategoricalNet,
    FlowNet,
    LowRankNormalNet,
    NormalNet,
    UniformBox,
    WithFeatures,
    likelihood_net,
)
from .distributions.mlp import MLP
from .guides import ADGMGuide, CaGeMGuide, LatentClassifierGuide, M2Guide, ReverseGuide, VAEGuide
from .inference import ELBO, AdversarialELBO, ClusterAwareELBO, InvertedELBO, Objective, SemiSupervisedELBO
from .models import (
    ADGM,
    AGMDGM,
    GMDGM,
    M2,
    SDGM,
    VAE,
    CaGeM,
    LatentClassifier,
    Reverse,
    SimplifiedLatentClassifier,
)

# No paper's weights: chosen for M2 on the validation images of MNIST with a hundred labels, at a learning rate of 3e-3.
SEMI_SUPERVISED_WEIGHTS = {"labelled_weight": 0.1, "classification_weight": 50.0}
SEMI_UNSUPERVISED_WEIGHTS = {"labelled_weight": 1.0, "classification_weight": 1.1}  # those of the authors' code
THESIS_SCALE = 0.2  # σ of p(x | ·), which the thesis fixes without saying to what; chosen on the validation digits
AUXILIARY = {"hidden": (500, 500), "activation": "relu", **SEMI_SUPERVISED_WEIGHTS}
MIXTURE = {"hidden": (500, 500), "activation": "relu", **SEMI_UNSUPERVISED_WEIGHTS}
OBJECTIVE = ("labelled_weight", "classification_weight", "num_samples", "averaged_classifier", "summed_classes")
SUMS = ("num_samples", "summed_classes")
LIKELIHOOD = ("likelihood", "scale")
POSTERIOR = ("flow", "flow_length", "flow_amortised", "rank")


@dataclass(frozen=True)
class Paper:
    """A row of the table.

    Attributes:
        name: its key in `PAPERS`.
        title: title, authors and year of the paper.
        arxiv: arXiv number; None for a thesis or a paper that is known by its title.
        classifies: whether the guide has `classify`.
        build: `build(x_dim, y_dim, **settings)` → objective; keywords are those of `Model.build` and of the objective.
        weights: `weights(n_labelled, n_unlabelled, **settings)` → the objective's weights that make its loss the
            paper's, divided by N_u.
    """

    name: str
    title: str
    arxiv: str | None
    classifies: bool
    build: Callable[..., Objective]
    weights: Callable[..., dict[str, float]]


# What each row builds


def build_m1(x_dim: int, y_dim: int | None = None, **settings: Any) -> ELBO:
    """M1: a VAE, whose `guide.encode` gives the features. `y_dim` is not read."""
    sums, networks = _split(settings, *SUMS)
    model_only, guide_only, shared = _parts(networks)
    model = VAE.build(x_dim, **shared, **model_only)
    return ELBO(model, VAEGuide.build(x_dim, **shared, **guide_only), **sums)


def build_m2(x_dim: int, y_dim: int, **settings: Any) -> SemiSupervisedELBO:
    """M2 with its classifier.

    The default weights are `SEMI_SUPERVISED_WEIGHTS`. Jurasiński's thesis has 1 and α = 1 on means over batches of
    100 + 100; `weights_m2` gives those of the paper.
    """
    return _semi_supervised(M2.build, M2Guide.build, x_dim, y_dim, {**SEMI_SUPERVISED_WEIGHTS, **settings})


def build_m1_m2(x_dim: int, y_dim: int, **settings: Any) -> SemiSupervisedELBO:
    """M1+M2's second half: M2 with a Gaussian p(x | y, z) on x_dim features, which are draws of M1's latents."""
    return build_m2(x_dim, y_dim, **{"likelihood": "normal", **settings})


def build_m2_adversarial(x_dim: int, y_dim: int, *, adversary_weight: float = 1.0, **settings: Any) -> AdversarialELBO:
    """M2 whose z has to hide the class from an adversary, a second classifier, which reads z and has M2's layers."""
    m2 = build_m2(x_dim, y_dim, **settings)
    names = ("hidden", "activation")
    adversary = CategoricalNet((m2.model.z_dim,), y_dim, **{name: settings[name] for name in names if name in settings})
    objective = {name: getattr(m2, name) for name in OBJECTIVE}
    return AdversarialELBO(m2.model, m2.guide, adversary, adversary_weight=adversary_weight, **objective)


def build_adgm(x_dim: int, y_dim: int, **settings: Any) -> SemiSupervisedELBO:
    """ADGM in the form of ICML 2016, p(a | x, y, z) and q(z | a, y, x)."""
    return _semi_supervised(ADGM.build, ADGMGuide.build, x_dim, y_dim, {**AUXILIARY, **settings})


def build_adgm_workshop(x_dim: int, y_dim: int, **settings: Any) -> SemiSupervisedELBO:
    """ADGM in the form of the workshop paper, p(a) = N(0, I) and q(z | y, x)."""
    return build_adgm(x_dim, y_dim, workshop=True, **settings)


def build_adgm_deterministic(
    x_dim: int, y_dim: int, *, a_dim: int = 100, z_dim: int = 100, **settings: Any
) -> SemiSupervisedELBO:
    """The workshop paper's comparison (Fig. 4): M2 whose classifier q(y | a(x), x) reads noiseless features a(x)."""
    settings = {**AUXILIARY, **settings}
    objective = build_m2(x_dim, y_dim, z_dim=z_dim, **settings)
    mlp = {name: value for name, value in settings.items() if name in ("hidden", "activation", "batch_norm")}
    objective.guide.q_y = WithFeatures(MLP((x_dim,), a_dim, **mlp), CategoricalNet((a_dim, x_dim), y_dim, **mlp))
    return objective


def build_sdgm(x_dim: int, y_dim: int, **settings: Any) -> SemiSupervisedELBO:
    """SDGM: two stochastic layers with skip connections."""
    return _semi_supervised(SDGM.build, ADGMGuide.build, x_dim, y_dim, {**AUXILIARY, **settings})


def build_gmdgm(x_dim: int, y_dim: int, *, z_dim: int = 200, **settings: Any) -> SemiSupervisedELBO:
    """GM-DGM; y_dim counts the components, those without a label included."""
    return _semi_supervised(GMDGM.build, M2Guide.build, x_dim, y_dim, {**MIXTURE, "z_dim": z_dim, **settings})


def build_agmdgm(x_dim: int, y_dim: int, *, z_dim: int = 200, **settings: Any) -> SemiSupervisedELBO:
    """AGM-DGM; y_dim counts the components, those without a label included."""
    return _semi_supervised(AGMDGM.build, ADGMGuide.build, x_dim, y_dim, {**MIXTURE, "z_dim": z_dim, **settings})


def build_cagem(
    x_dim: int,
    y_dim: int,
    *,
    z_dim: int | None = None,
    hidden: Sequence[int] | None = None,
    classification_weight: float = 0.1,
    **settings: Any,
) -> ClusterAwareELBO:
    """CaGeM. `z_dim` sets the widths of z1 and z2, and `hidden` all hidden layers, where they are given."""
    sums, networks = _split(settings, *SUMS)
    given = {"z1_dim": z_dim, "z2_dim": z_dim, "hidden": hidden, "z2_hidden": hidden}
    networks = {name: value for name, value in given.items() if value is not None} | networks
    model_only, guide_only, shared = _parts({"activation": "relu", "batch_norm": True, **networks})
    return ClusterAwareELBO(
        CaGeM.build(x_dim, y_dim, **shared, **model_only),
        CaGeMGuide.build(x_dim, y_dim, **shared, **guide_only),
        classification_weight=classification_weight,
        **sums,
    )


def build_latent_classifier(
    x_dim: int, y_dim: int, *, tight: bool = False, labelled_weight: float = 0.5, **settings: Any
) -> SemiSupervisedELBO:
    """The thesis' model with its own bound U; `labelled_weight` is its λ. A normal p(x | ·) has a fixed σ, `scale`."""
    sums, networks = _split(settings, *SUMS)
    model_only, guide_only, shared = _parts(_thesis_likelihood(networks))
    model = LatentClassifier.build(x_dim, y_dim, **shared, **model_only)
    guide = LatentClassifierGuide.build(x_dim, model.p_y, tight=tight, **shared, **guide_only)
    return SemiSupervisedELBO(model, guide, labelled_weight=labelled_weight, **sums)


def build_latent_classifier_tight(x_dim: int, y_dim: int, **settings: Any) -> SemiSupervisedELBO:
    """The thesis' model with y summed inside the logarithm: the tight bound."""
    return build_latent_classifier(x_dim, y_dim, tight=True, **settings)


def build_simplified(
    x_dim: int,
    y_dim: int,
    *,
    zy_dim: int | None = None,
    labelled_weight: float = 0.1,
    **settings: Any,
) -> SemiSupervisedELBO:
    """The thesis' simplified model. An unknown y sums to one, since x does not depend on it."""
    sums, networks = _split(settings, *SUMS)
    model_only, guide_only, shared = _parts(_thesis_likelihood(networks))
    model = SimplifiedLatentClassifier.build(x_dim, y_dim, zy_dim=zy_dim, **shared, **model_only)
    guide = LatentClassifierGuide.build(x_dim, model.p_y, zy_dim=zy_dim, tight=True, **shared, **guide_only)
    return SemiSupervisedELBO(model, guide, labelled_weight=labelled_weight, **sums)


def _thesis_likelihood(networks: dict[str, Any]) -> dict[str, Any]:
    """The keywords, with the fixed σ added where the likelihood is normal and no σ is given."""
    normal = networks.get("likelihood", "normal") == "normal"
    return {"scale": THESIS_SCALE, **networks} if normal else networks


def build_appendix_c(
    x_dim: int, y_dim: int, *, z_dim: int = 50, zy_dim: int | None = None, **settings: Any
) -> SemiSupervisedELBO:
    """The simplified model's special case: p(y | z_y) and q(z_u | z_y, x) q(z_y | x).

    The width of z_y is a fifth of that of z unless given.
    """
    return build_simplified(
        x_dim, y_dim, z_dim=z_dim, zy_dim=max(1, z_dim // 5) if zy_dim is None else zy_dim, **settings
    )


def build_untapped(
    x_dim: int,
    y_dim: int,
    *,
    z_dim: int = 2,
    half_width: float = 1.5,
    hidden: Sequence[int] | None = None,
    activation: str = "tanh",
    likelihood: str = "bernoulli",
    y_prior: Any = None,
    **objective: Any,
) -> InvertedELBO:
    """Untapped: M2 with z in a box, and the reverse process, of the same networks. `hidden` sets all hidden layers.

    Raises:
        ValueError: a likelihood other than "bernoulli", as the reverse process has a binary x, or a flow without an
            inverse, as it has an observed z.
    """
    if likelihood != "bernoulli":
        raise ValueError(
            f"likelihood must be 'bernoulli' for untapped, got {likelihood!r}; its reverse process has a binary x"
        )
    box = (z_dim, -half_width, half_width)
    chosen, objective = _split(objective, *POSTERIOR)
    flow = chosen.get("flow")
    if flow in FLOWS and not FLOWS[flow].invertible:
        others = ", ".join(name for name, family in FLOWS.items() if family.invertible)
        raise ValueError(f"flow must have an inverse for untapped, which scores values of z that it did not draw, got "
                         f"{flow!r}; choose one of {others}")  # fmt: skip

    def layers(*widths: int) -> dict[str, Any]:
        return {"hidden": widths if hidden is None else hidden, "activation": activation}

    p_x = likelihood_net(likelihood, (y_dim, z_dim), x_dim, **layers(250, 500))
    q_y = CategoricalNet((x_dim,), y_dim, **layers(50, 50))
    q_z = BoundedNormalNet((x_dim, y_dim), *box, unbounded=posterior(**chosen), **layers(10, 10))
    return InvertedELBO(
        M2(p_x=p_x, y_dim=y_dim, z_dim=z_dim, y_prior=y_prior, p_z=UniformBox(*box)),
        M2Guide(q_y=q_y, q_z=q_z),
        reverse_model=Reverse(q_y=q_y, q_z=q_z, x_dim=x_dim),
        reverse_guide=ReverseGuide(p_x=p_x),
        **objective,
    )


def _semi_supervised(
    build_model: Callable[..., Model],
    build_guide: Callable[..., ClassifyingGuide],
    x_dim: int,
    y_dim: int,
    settings: dict[str, Any],
) -> SemiSupervisedELBO:
    """Model and guide with the same networks under a semi-supervised bound."""
    objective, networks = _split(settings, *OBJECTIVE)
    model_only, guide_only, shared = _parts(networks, "y_prior", "a_reads_x")
    model = build_model(x_dim, y_dim, **shared, **model_only)
    return SemiSupervisedELBO(model, build_guide(x_dim, y_dim, **shared, **guide_only), **objective)


def _parts(networks: dict[str, Any], *model_only: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Keywords of the model's `build` alone, of the guide's alone, and of both."""
    chosen, networks = _split(networks, *POSTERIOR)
    model, both = _split(networks, *LIKELIHOOD, *model_only)
    return model, {"posterior": posterior(**chosen)}, both


def posterior(
    flow: str | Callable[[int], nn.Module] | None = None,
    flow_length: int = 2,
    flow_amortised: bool = False,
    rank: int | None = None,
) -> Callable[..., nn.Module]:
    """The constructor of the continuous latents' q: `NormalNet`, `LowRankNormalNet` of a rank, or `FlowNet` of a flow.

    Raises:
        ValueError: a flow and a rank.
    """
    if flow is not None and rank is not None:
        raise ValueError(f"flow or rank must be None, got flow={flow!r} and rank={rank!r}; leave one out")
    if flow is not None:
        return partial(FlowNet, flow=flow, length=flow_length, amortised=flow_amortised)
    return NormalNet if rank is None else partial(LowRankNormalNet, rank=rank)


# The papers' weights, as weights of means


def weights_m1(n_labelled: int, n_unlabelled: int) -> dict[str, float]:
    """No weight, since there is one term only."""
    return {}


def weights_m2(n_labelled: int, n_unlabelled: int, *, alpha: float = 0.1) -> dict[str, float]:
    """J = Σ_u U + Σ_l L + alpha · N · mean_l log q(y | x), N = N_l + N_u, with the paper's alpha = 0.1 (eq. 9).

    labelled_weight = N_l / N_u, classification_weight = alpha · (N_l + N_u) / N_u. A mean over a batch estimates the
    mean over all rows whatever the batch's size.
    """
    _check_rows(n_labelled, n_unlabelled)
    n = n_labelled + n_unlabelled
    return {"labelled_weight": n_labelled / n_unlabelled, "classification_weight": alpha * n / n_unlabelled}


def weights_adgm(n_labelled: int, n_unlabelled: int, *, beta: float = 0.1) -> dict[str, float]:
    """J = Σ_u U + Σ_l L + α Σ_l log q(y | x), α = beta · (N_l + N_u) / N_l (arXiv:1704.00637, section 4).

    As α Σ_l = beta · N · mean_l, this is M2's formula. The papers do not give beta; 0.1 is that of the authors' SDGM
    code. (That code has means over batches of 100 + 100 instead, which are labelled_weight = 1 and
    classification_weight = beta · N / N_l = 60.)
    """
    return weights_m2(n_labelled, n_unlabelled, alpha=beta)


def weights_gmdgm(n_labelled: int, n_unlabelled: int, *, alpha: float = 1.1) -> dict[str, float]:
    """J = mean_u U + mean_l L + alpha · mean_l log q(y | x), with the alpha = 1.1 of the authors' code.

    These are means already. The paper writes sums and gives no alpha.
    """
    return {"labelled_weight": 1.0, "classification_weight": alpha}


def weights_latent_classifier(n_labelled: int, n_unlabelled: int, *, lam: float = 0.5) -> dict[str, float]:
    """J = mean_u U + lam · mean_l L, λ = lam; 0.5 is the best of the thesis' Table 1 for this model.

    The thesis writes sets for sums or means; means over batches of 100 + 100 agree with its Appendix B.
    """
    return {"labelled_weight": lam}


def weights_simplified(n_labelled: int, n_unlabelled: int, *, lam: float = 0.001) -> dict[str, float]:
    """As `weights_latent_classifier`, with the λ that is best in the thesis' Table 1 for the simplified model.

    The thesis gives no λ for Appendix C, which has the same here.
    """
    return {"labelled_weight": lam}


def weights_m2_adversarial(n_labelled: int, n_unlabelled: int, *, alpha: float = 1.0) -> dict[str, float]:
    """J = mean_u U + mean_l L + alpha · mean_l log q(y | x) + mean_l E[−log f(y | z)], the thesis' alpha = 1.

    The thesis writes sets for sums or means; means over batches of 100 + 100 agree with its Appendix B.
    """
    return {"labelled_weight": 1.0, "classification_weight": alpha, "adversary_weight": 1.0}


def weights_cagem(n_labelled: int, n_unlabelled: int, *, beta: float = 0.1) -> dict[str, float]:
    """I = Σ_u F + α Σ_l [log q(y | x) + log p(y | x)], α = beta · (N_l + N_u) / N_l (section 4; beta is not given).

    As α Σ_l = beta · N · mean_l, dividing by N_u gives classification_weight = beta · (N_l + N_u) / N_u.
    """
    _check_rows(n_labelled, n_unlabelled)
    return {"classification_weight": beta * (n_labelled + n_unlabelled) / n_unlabelled}


def weights_untapped(n_labelled: int, n_unlabelled: int) -> dict[str, float]:
    """J_f + J_r − 10 L_y − 0.1 L_x (Appendix D), all of them means in the authors' code."""
    return {"reverse_weight": 1.0, "discriminative_y_weight": 10.0, "discriminative_x_weight": 0.1}


def semi_unsupervised_prior(num_classes: int, hidden_classes: Collection[int], extra_classes: int) -> list[float]:
    """p(y) of Willetts et al., eqs. (34)-(35), normalised: num_classes + extra_classes probabilities.

        1 / N_gt                           for each class with labels, N_gt = num_classes
        N_mask / (N_gt (N_aug + N_mask))   for each of the N_mask hidden classes and the N_aug extra ones

    The classes come first, in their order, then the extra components. The printed eq. (35) has two signs flipped, and a
    total mass of 2 where half of the classes are hidden; the authors' code has this form.

    Args:
        num_classes: how many true classes the data have.
        hidden_classes: the true classes that have no label.
        extra_classes: how many components there are beyond the true classes.

    Raises:
        ValueError: a hidden class that is not a class, or a negative number of extra ones.
    """
    hidden = set(hidden_classes)
    check_counts(0, extra_classes=extra_classes)
    if not hidden <= set(range(num_classes)):
        raise ValueError(f"hidden_classes must be among 0 to {num_classes - 1}, got {sorted(hidden)}")
    if extra_classes and not hidden:
        raise ValueError(
            f"extra_classes must be 0 without hidden classes, as they would have no mass, got {extra_classes!r}; leave "
            "the prior uniform"
        )
    others = len(hidden) / (num_classes * (extra_classes + len(hidden))) if hidden else 0.0
    known = [others if k in hidden else 1 / num_classes for k in range(num_classes)]
    return known + [others] * extra_classes


def _check_rows(n_labelled: int, n_unlabelled: int) -> None:
    check_counts(0, n_labelled=n_labelled)
    if n_unlabelled < 1:
        raise ValueError(f"n_unlabelled must be at least 1, got {n_unlabelled!r}; the weights need unlabelled rows")


def _split(settings: dict[str, Any], *names: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings with these names, and the others."""
    chosen = {name: value for name, value in settings.items() if name in names}
    return chosen, {name: value for name, value in settings.items() if name not in names}


_KINGMA_2014 = "Semi-supervised learning with deep generative models (Kingma, Rezende, Mohamed, Welling, 2014)"
_MAALOE_2015 = "Improving semi-supervised learning with auxiliary deep generative models (Maaløe et al., 2015)"
_MAALOE_2016 = "Auxiliary deep generative models (Maaløe, Sønderby, Sønderby, Winther, 2016)"
_MAALOE_2017 = "Semi-supervised generation with cluster-aware generative models (Maaløe, Fraccaro, Winther, 2017)"
_WILLETTS_2019 = "Semi-unsupervised learning with deep generative models (Willetts, Roberts, Holmes, 2019)"
_JURASINSKI_2019 = (
    "Towards deeper understanding of semi-supervised learning with variational autoencoders (Jurasiński, 2019)"
)
_GEMP_2017 = "Inverting VAEs for Improved Generative Accuracy (Gemp, Parente, Mahadevan, 2017)"

PAPERS: dict[str, Paper] = {
    row.name: row
    for row in (
        Paper("m1", _KINGMA_2014, "1406.5298", False, build_m1, weights_m1),
        Paper("m2", _KINGMA_2014, "1406.5298", True, build_m2, weights_m2),
        Paper("m1-m2", _KINGMA_2014, "1406.5298", True, build_m1_m2, weights_m2),
        Paper("adgm-workshop", _MAALOE_2015, None, True, build_adgm_workshop, weights_adgm),
        Paper("adgm-deterministic", _MAALOE_2015, None, True, build_adgm_deterministic, weights_adgm),
        Paper("adgm", _MAALOE_2016, "1602.05473", True, build_adgm, weights_adgm),
        Paper("sdgm", _MAALOE_2016, "1602.05473", True, build_sdgm, weights_adgm),
        Paper("gm-dgm", _WILLETTS_2019, "1901.08560", True, build_gmdgm, weights_gmdgm),
        Paper("agm-dgm", _WILLETTS_2019, "1901.08560", True, build_agmdgm, weights_gmdgm),
        Paper("cagem", _MAALOE_2017, "1704.00637", True, build_cagem, weights_cagem),
        Paper("latent-classifier", _JURASINSKI_2019, None, True, build_latent_classifier, weights_latent_classifier),
        Paper(
            "latent-classifier-tight",
            _JURASINSKI_2019,
            None,
            True,
            build_latent_classifier_tight,
            weights_latent_classifier,
        ),
        Paper("simplified", _JURASINSKI_2019, None, True, build_simplified, weights_simplified),
        Paper("appendix-c", _JURASINSKI_2019, None, True, build_appendix_c, weights_simplified),
        Paper("m2-adversarial", _JURASINSKI_2019, None, True, build_m2_adversarial, weights_m2_adversarial),
        Paper("untapped", _GEMP_2017, None, True, build_untapped, weights_untapped),
    )
}

CLASSIFYING = [name for name, paper in PAPERS.items() if paper.classifies]
