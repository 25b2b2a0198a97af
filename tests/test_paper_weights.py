"""`weights` of every row of `PAPERS`: the weights with which the loss is the sum that the paper maximises."""

import pytest
import torch
from semipyro.papers import PAPERS
from torch import Tensor

from helpers.comparisons import close
from helpers.paper_networks import batch_of, with_fixed_draws

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize(
    ("n_labelled", "relative"),
    [(100, 50.0), (600, 25 / 3), (1000, 5.0), (3000, 5 / 3)],
)
def test_m2_weights_are_the_published_ones(n_labelled: int, relative: float) -> None:
    """Kingma's code, 50 000 images: a labelled bound counts 1 unlabelled one, its classification 0.1 · N / N_l."""
    n_unlabelled = 50_000 - n_labelled
    weights = PAPERS["m2"].weights(n_labelled, n_unlabelled)
    per_example = n_unlabelled / n_labelled
    assert weights["labelled_weight"] * per_example == pytest.approx(1, rel=1e-12)
    assert weights["classification_weight"] * per_example == pytest.approx(relative, rel=1e-12)


N_L, N_U = 6, 7  # as many rows as `rows` has, so that one batch holds them all


def paper_sums(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each paper's J, to be maximised, from means over its N_l labelled and N_u unlabelled rows."""
    n = N_L + N_U
    sums = {k: (N_U if k in ("unlabelled", "surrogate") else N_L) * v for k, v in terms.items() if k != "loss"}
    L, U, log_q = (sums.get(k, torch.tensor(0.0)) for k in ("labelled", "unlabelled", "classification"))
    maaloe = U + L + 0.1 * n / N_L * log_q  # α = β (N_l + N_u) / N_l
    willetts = U + N_U * (L / N_L + 1.1 * log_q / N_L)  # means, and α = 1.1
    means = N_U * L / N_L  # beside U, a sum: the thesis has U + λ L, means
    return {
        "m1": U,
        **dict.fromkeys(["m2", "m1-m2"], U + L + 0.1 * n * log_q / N_L),  # eq. (9), α = 0.1 N on the mean
        **dict.fromkeys(["adgm-workshop", "adgm-deterministic", "adgm", "sdgm"], maaloe),
        **dict.fromkeys(["gm-dgm", "agm-dgm"], willetts),
        "cagem": U + 0.1 * n / N_L * (sums.get("classification_q", 0) + sums.get("classification_p", 0)),
        **dict.fromkeys(["latent-classifier", "latent-classifier-tight"], U + 0.5 * means),
        **dict.fromkeys(["simplified", "appendix-c"], U + 0.001 * means),
        "m2-adversarial": U + means + N_U * log_q / N_L,  # α = 1; the adversary's part has a gradient only
        "untapped": U
        + N_U
        * (
            L / N_L
            + sum(
                w * terms.get(k, 0) for k, w in {"reverse": 1, "discriminative_y": 10, "discriminative_x": 0.1}.items()
            )
        ),
    }


@pytest.mark.parametrize("name", PAPERS)
def test_weights_give_the_papers_sum(name: str) -> None:
    """loss · N_u = −J, with all rows in the batch and every weight from `weights`."""
    weights = PAPERS[name].weights(N_L, N_U)
    terms = with_fixed_draws(name, **weights)(*batch_of(name))
    assert close(terms["loss"] * N_U, -paper_sums(terms)[name])


@pytest.mark.parametrize(
    ("name", "keyword", "weight"),
    [
        ("m2", "alpha", "classification_weight"),
        ("sdgm", "beta", "classification_weight"),
        ("agm-dgm", "alpha", "classification_weight"),
        ("cagem", "beta", "classification_weight"),
        ("simplified", "lam", "labelled_weight"),
    ],
)
def test_the_papers_constants_scale_their_weights(name: str, keyword: str, weight: str) -> None:
    """α, β and λ are keywords, and enter in proportion."""
    one, three = (PAPERS[name].weights(100, 900, **{keyword: value}) for value in (0.2, 0.6))
    assert three[weight] == pytest.approx(3 * one[weight])


@pytest.mark.parametrize("name", PAPERS)
def test_weights_are_settings_of_the_objective(name: str) -> None:
    """What `weights` returns is what `build` takes."""
    weights = PAPERS[name].weights(100, 1000)
    objective = PAPERS[name].build(5, 3, z_dim=2, hidden=(4,), **weights)
    assert {key: getattr(objective, key) for key in weights} == weights
