"""The objective of "Inverting VAEs for Improved Generative Accuracy" (Gemp et al., 2017), "untapped".

    J_f^l(x, y) = E_q(z|x,y) [log p(x | y, z) + log p(y) + log p(z) − log q(z | x, y)]                        eq. (3)
    J_f^u(x)    = Σ_y q(y | x) (J_f^l(x, y) − log q(y | x))                                                    eq. (4)
    J_r(y, z)   = E_p(x|y,z) [log q(x) + log q(y | x) + log q(z | x, y) − log p(x | y, z)]                     eq. (17)
    L_y = −log q(y | x)      L_x = ‖x − E[x | y, z]‖₂,  z ~ q(z | x, y)                                        eq. (7)
    loss = −(mean_u J_f^u + mean_l J_f^l + w_r · mean J_r − w_y · mean_l L_y − w_x · mean_l L_x)               eq. (8)

J_r is the bound on log q(y, z) of the reverse process, whose data are labels and styles without images: y ~ p(y) and
z ~ p(z), drawn anew at each call. Bounds are in nats per data point.
Differs from the paper: y is summed out exactly, unless `temperature` is given; every sum is a mean (as in the authors'
code); log q(z | x, y), which the authors' code leaves out of J_r, is in it.
"""

from typing import Any

import torch
from pyro.distributions import OneHotCategorical
from torch import Tensor, nn

from ... import contract
from ...checks import check_choice, check_not_negative
from ...contract import ClassifyingGuide, Model
from .base import Objective, Terms
from .explained import explained
from .relaxation import RelaxLabels, StraightThrough, smoothed

GRADIENTS = ("detached", "score", "relaxed")


class InvertedELBO(Objective):
    """Terms: `labelled` = J_f^l, `unlabelled` = J_f^u, `reverse` = J_r, and the discriminative ones.

    `discriminative_y` = −L_y and `discriminative_x` = −L_x.

    Args:
        model: the forward p(x, y, z), with `p_x(y, z)`, `p_z()` and the buffer `y_prior`.
        guide: its q(y, z | x), with `q_z(x, y)` and `classify`.
        reverse_model: the reverse process, called as `reverse_model(y, z)`, of the guide's own conditionals.
        reverse_guide: its inference network, called as `reverse_guide(y, z)`, of the model's own p(x | y, z).
        reverse_weight: w_r.
        discriminative_y_weight: w_y.
        discriminative_x_weight: w_x.
        gradient: how the draw of x in J_r is differentiated. "detached" (the authors' code): not at all, so that J_r
            moves only q(y | x) and q(z | x, y). "score": the score-function estimator. "relaxed": the draw stays
            binary and has the gradient of a Concrete draw. All three give the same value of J_r.
        temperature: where given, and in training mode, y in J_f^u is drawn from a Concrete distribution of this
            temperature, under a prior of the same kind, and the term is called `relaxed`: a bound for another model,
            whose y lies inside the simplex, which may lie above or below J_f^u; and J_r scores smoothed
            one-hot labels by their Concrete density. None, and evaluation mode: one-hot labels, summed out
            exactly.
        smoothing: a smoothed label is 1 − smoothing at its class, and shares the rest among the others.
        num_samples: S, draws of z (and x) that each bound averages over.
        kl_weight: of log p − log q of every latent site.
        summed_classes: as in `Objective`.

    Raises:
        ValueError: a negative weight, an unknown gradient, a temperature that is not positive, or a smoothing outside
            (0, 1).
    """

    declared_settings = (
        *Objective.declared_settings, "reverse_weight", "discriminative_y_weight", "discriminative_x_weight",
        "gradient", "temperature", "smoothing",
    )  # fmt: skip

    def __init__(
        self,
        model: Model,
        guide: ClassifyingGuide,
        *,
        reverse_model: nn.Module,
        reverse_guide: nn.Module,
        reverse_weight: float = 1.0,
        discriminative_y_weight: float = 10.0,
        discriminative_x_weight: float = 0.1,
        gradient: str = "detached",
        temperature: float | None = None,
        smoothing: float = 0.05,
        num_samples: int = 1,
        kl_weight: float = 1.0,
        summed_classes: int | None = None,
    ) -> None:
        super().__init__(model, guide, num_samples=num_samples, kl_weight=kl_weight, summed_classes=summed_classes)
        contract.check_module(reverse_model, "reverse_model", "(y, z)")
        contract.check_module(reverse_guide, "reverse_guide", "(y, z)")
        factors = {"p_x(y, z)": model, "p_z()": model, "y_prior": model, "q_z(x, y)": guide}
        contract.check_factors(factors, "InvertedELBO")
        self.reverse_model = reverse_model
        self.reverse_guide = reverse_guide
        self.reverse_weight = reverse_weight
        self.discriminative_y_weight, self.discriminative_x_weight = discriminative_y_weight, discriminative_x_weight
        check_not_negative(
            reverse_weight=reverse_weight, discriminative_y_weight=discriminative_y_weight,
            discriminative_x_weight=discriminative_x_weight,
        )  # fmt: skip
        check_choice(GRADIENTS, gradient=gradient)
        if temperature is not None and not temperature > 0:
            raise ValueError(f"temperature must be positive, or None for exact sums, got {temperature}")
        if temperature is not None and summed_classes is not None:
            raise ValueError("summed_classes must be None where y is drawn at a temperature, and not summed")
        if not 0 < smoothing < 1:
            raise ValueError(f"smoothing must be between 0 and 1, got {smoothing}")
        self.gradient, self.temperature, self.smoothing = gradient, temperature, smoothing
        self._reverse_elbo = self._engine()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Takes the state of a pickle, also of version 0.1."""
        super().__setstate__(state)
        if "_reverse_elbo" not in state:
            self._reverse_elbo = self._engine()

    def labelled_terms(self, x: Tensor, y: Tensor) -> Terms:
        """`labelled` and the two discriminative terms."""
        return {
            "labelled": self.bound(x, y),
            "discriminative_y": contract.classifier(self.guide)(x).log_prob(y).mean(),
            "discriminative_x": -self.distance(x, y),
        }

    def unlabelled_terms(self, x: Tensor) -> Terms:
        """`unlabelled`, or `relaxed` in its place, and `reverse` of as many rows, which are drawn from the priors."""
        temperature = self.relaxing
        if temperature is None:
            bound = {"unlabelled": self.bound(x)}
        else:
            bound = {"relaxed": self.relaxed_bound(x, temperature)}
        return {**bound, "reverse": self.reverse_bound(*self.draw_unfeatured(len(x)))}

    @property
    def weights(self) -> dict[str, float]:
        """Those of the reverse and the discriminative terms; the two bounds of the forward process weigh 1."""
        return {
            "reverse": self.reverse_weight,
            "discriminative_y": self.discriminative_y_weight,
            "discriminative_x": self.discriminative_x_weight,
        }

    @property
    def relaxing(self) -> float | None:
        """The temperature in training mode, else None."""
        return self.temperature if self.training else None

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """L_x, the mean over rows and draws of ‖x − E[x | y, z]‖₂."""
        z = self.guide.q_z(x, y).rsample((self.num_samples,))  # S, N, L
        return (x - self.model.p_x(y, z).mean).norm(dim=-1).mean()

    def relaxed_bound(self, x: Tensor, temperature: float) -> Tensor:
        """The mean over rows of J_f^u with a y on the simplex, drawn by reparametrisation."""
        relax = RelaxLabels(temperature)
        model, guide = self.weighted_programs()
        return self.mean_elbo(relax(model), relax(guide), x)

    def draw_unfeatured(self, n: int) -> tuple[Tensor, Tensor]:
        """y ~ p(y), one-hot (n, K), and z ~ p(z), (n, L): data of the reverse process."""
        return OneHotCategorical(self.model.y_prior).sample((n,)), self.model.p_z().expand([n]).sample()

    def reverse_bound(self, y: Tensor, z: Tensor) -> Tensor:
        """The mean over rows of J_r(y, z): a bound on log q(y, z)."""
        model, guide = self.weighted_programs(self.reverse_model, self.reverse_guide)
        if self.gradient == "detached":
            guide = torch.no_grad()(guide)
        elif self.gradient == "relaxed":
            guide = StraightThrough()(guide)
        if self.relaxing is not None:
            model, y = RelaxLabels(self.relaxing)(model), smoothed(y, self.smoothing)
        with explained(z, "reverse"):
            return self.mean_elbo(model, guide, y, z, engine=self._reverse_elbo)
