"""The objective of CaGeM.

"Semi-supervised generation with cluster-aware generative models" (Maaløe et al., 2017), arXiv:1704.00637.

    F(x) = E_q(z1|x) Σ_y q(y | z1, x) E_q(z2|x,y,z1) [log p(x, y, z1, z2) − log q(z1 | x) − log q(y | z1, x)
                                                      − log q(z2 | x, y, z1)]
    q(y | x) = E_q(z1|x) q(y | z1, x)
    p(y | x) = E_q(z1|x) Σ_ỹ q(ỹ | z1, x) E_q(z2|x,ỹ,z1) p(y | z2)                the cascade, which the paper reports
    loss     = −(mean_u F + classification_weight · mean_l [log q(y | x) + log p(y | x)])

Labels teach nothing but the two networks p(y | z2) and q(y | z1, x).
Differs from the paper: every sum over rows is a mean, and bounds are maximised.
"""

import math

import torch
from pyro.distributions import OneHotCategorical
from torch import Tensor, nn

from ... import contract
from ...checks import check_not_negative
from ...contract import Guide, Model
from ...distributions import averaged
from .base import Objective, Terms
from .batch_norm import statistics_detached


class ClusterAwareELBO(Objective):
    """Terms: `unlabelled` = F(x), `classification_q` = log q(y | x), `classification_p` = log p(y | x); means in nats.

    There is no labelled bound: pass all rows as unlabelled ones (`batches(..., include_labelled=True)`). No gradient of
    the classification terms passes through z1 and z2, nor through batch normalisation's statistics, which are those of
    the unlabelled rows: the classification terms move p(y | z2) and q(y | z1, x) alone.

    Args:
        model: p, with the conditional `p_y(z2)`.
        guide: q, with the conditionals `q_z1(x)`, `q_y(z1, x)` and `q_z2(x, y, z1)`.
        classification_weight: weight of the two classification terms.
        num_samples: S, draws of the continuous latents.
        kl_weight: of log p − log q of every latent site: the paper's temperature.
        summed_classes: as in `Objective`, for F. The classification terms sum all classes, inside the logarithm.

    Raises:
        ValueError: a negative weight, or another setting that is refused by `Objective`.
    """

    declared_settings = (*Objective.declared_settings, "classification_weight")

    def __init__(
        self,
        model: Model,
        guide: Guide,
        *,
        classification_weight: float = 1.0,
        num_samples: int = 1,
        kl_weight: float = 1.0,
        summed_classes: int | None = None,
    ) -> None:
        super().__init__(model, guide, num_samples=num_samples, kl_weight=kl_weight, summed_classes=summed_classes)
        check_not_negative(classification_weight=classification_weight)
        check_cagem(model, guide, "ClusterAwareELBO")
        self.classification_weight = classification_weight

    def labelled_terms(self, x: Tensor, y: Tensor) -> Terms:
        """`classification_q` and `classification_p`."""
        with statistics_detached(self):
            log_q, log_p = two_classifiers(self.model, self.guide, x, self.num_samples)
        return {
            "classification_q": (log_q * y).sum(-1).mean(),
            "classification_p": (log_p * y).sum(-1).mean(),
        }

    def unlabelled_terms(self, x: Tensor) -> Terms:
        """`unlabelled`."""
        return {"unlabelled": self.bound(x)}

    @property
    def weights(self) -> dict[str, float]:
        """Those of the two classification terms; the unlabelled bound weighs 1."""
        return dict.fromkeys(("classification_q", "classification_p"), self.classification_weight)

    def statistics_rows(self, x_labelled: Tensor | None, x_unlabelled: Tensor | None) -> Tensor | None:
        """The unlabelled rows; labelled ones leave every statistic alone."""
        return x_unlabelled


def two_classifiers(model: Model, guide: Guide, x: Tensor, num_samples: int) -> tuple[Tensor, Tensor]:
    """log q(y | x) and log p(y | x), averaged over S draws, (N, K) each; no gradient passes through z1 and z2."""
    with torch.no_grad():
        z1 = guide.q_z1(x).rsample((num_samples,))  # S, N, L1
    log_q = guide.q_y(z1, x).expand((num_samples, len(x))).logits  # S, N, K
    classes = torch.eye(log_q.shape[-1]).to(x)[:, None, None]  # K, 1, 1, K
    with torch.no_grad():
        z2 = guide.q_z2(x, classes, z1).rsample()  # K, S, N, L2
    log_p = torch.logsumexp(log_q.movedim(-1, 0)[..., None] + model.p_y(z2).logits, 0)  # S, N, K
    average = math.log(num_samples)
    return torch.logsumexp(log_q, 0) - average, torch.logsumexp(log_p, 0) - average


class Cascade(nn.Module):
    """x → p(y | x), averaged over `num_samples` draws of z1 and z2: CaGeM's second classifier."""

    def __init__(self, model: Model, guide: Guide, num_samples: int = 1) -> None:
        super().__init__()
        self.model = model
        self.guide = guide
        self.num_samples = num_samples

    def forward(self, x: Tensor) -> OneHotCategorical:
        """p(y | x) with batch shape (N,)."""
        draws = [two_classifiers(self.model, self.guide, x, 1)[1] for _ in range(self.num_samples)]  # K copies each
        return averaged(OneHotCategorical(logits=torch.stack(draws)))


def check_cagem(model: Model, guide: Guide, user: str) -> None:
    """A ValueError that names the factors of CaGeM that are missing."""
    factors = {"p_y(z2)": model, "q_z1(x)": guide, "q_y(z1, x)": guide, "q_z2(x, y, z1)": guide}
    contract.check_factors(factors, user)


def cascade(model: Model, guide: Guide, num_samples: int = 1) -> Cascade:
    """CaGeM's classifier p(y | x) as a callable x → `OneHotCategorical` of batch shape (N,), for `accuracy` and others.

    Args:
        model: p, with the conditional `p_y(z2)`.
        guide: q, with the conditionals `q_z1(x)`, `q_y(z1, x)` and `q_z2(x, y, z1)`.
        num_samples: S, draws of z1, and of z2 for each of them and each class.

    Raises:
        ValueError: a factor is missing.
    """
    check_cagem(model, guide, "cascade")
    return Cascade(model, guide, num_samples)
