"""What every objective shares: a model, a guide, and the evidence lower bound between them.

    ELBO(x)    = E_q(z|x)   [log p(x, z)    − log q(z | x)]
    ELBO(x, y) = E_q(z|x,y) [log p(x, y, z) − log q(z | x, y)]

Pyro's `TraceEnum_ELBO` computes it from the sites of model and guide: z stands for every continuous latent, drawn by
reparametrisation; a y that is not given is summed out exactly.

Shapes: x (N, D); y one-hot (N, K). Bounds are in nats per data point.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from .batch_norm import normalised_alike
from .checks import check_one_hot, check_rows
from .enumeration import class_weights


class ScaleLatents(Messenger):
    """Multiplies by `weight` the log-probability of the latent sites in `drawn`; those that a guide draws it adds.

    Observed sites keep theirs, and so does a y that the guide leaves to the model: it stands inside a logarithm.
    """

    def __init__(self, weight: Tensor, drawn: set[str], *, guide: bool = False) -> None:
        super().__init__()
        self.weight = weight
        self.drawn = drawn
        self.guide = guide

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["is_observed"]:
            return
        if self.guide:
            self.drawn.add(msg["name"])
        if msg["name"] in self.drawn:
            msg["scale"] = msg["scale"] * self.weight


@contextmanager
def explained(x: Tensor, kind: str) -> Iterator[None]:
    """What Pyro says of sites that do not match, or of parameters that are NaN, in terms of what was passed."""
    try:
        yield
    except UserWarning as warning:
        if "vars in" not in str(warning):
            raise
        raise ValueError(f"model and guide do not have the same latent sites: {warning}") from warning
    except ValueError as error:
        if "Enumeration dim conflict at site" in str(error):
            raise ValueError(
                "the model's p(y | ·) reads a latent that the guide draws after y; ClusterAwareELBO takes such a model"
            ) from error
        if "cannot be differentiated" in str(error):
            raise ValueError("no parameter requires a gradient; evaluate under torch.no_grad()") from error
        what = str(error).split("\nTrace Shapes:")[0]  # the shapes stay in the error that this one comes from
        if "to satisfy the constraint" not in what:
            raise ValueError(what) from error
        scale = f"x lies between {x.min().item():g} and {x.max().item():g}; bring its columns to a scale of about 1"
        raise FloatingPointError(
            f"a network's output is NaN in the {kind} bound: its weights are, or x is too large ({scale})"
        ) from error


class Objective(nn.Module, ABC):
    """Named terms in nats per data point, and the loss that combines them.

    Args:
        model: p, called as `model(x, y=None)`.
        guide: q, called as `guide(x, y=None)`.
        num_samples: S, how many draws of the continuous latents each bound averages over.
        kl_weight: multiplies log p − log q of every latent site that the guide draws. It becomes a buffer, but as a
            setting, and not a weight of a network, it is not in the state.

    Raises:
        ValueError: `num_samples` is not a positive integer, or `kl_weight` negative.
    """

    model: Any  # a module, with its factors as attributes
    guide: Any  # the same, with `classify` where its model has labels, and `encode`
    kl_weight: Tensor

    def __init__(self, model: nn.Module, guide: nn.Module, *, num_samples: int = 1, kl_weight: float = 1.0) -> None:
        super().__init__()
        if not kl_weight >= 0:
            raise ValueError(f"kl_weight must not be negative, got {kl_weight!r}")
        if not isinstance(num_samples, int) or num_samples < 1:
            raise ValueError(f"num_samples must be a positive integer, got {num_samples!r}")
        self.model = model
        self.guide = guide
        self.num_samples = num_samples
        self.register_buffer("kl_weight", torch.tensor(float(kl_weight)), persistent=False)
        self._compared: set[bool] = set()
        self._elbo = TraceEnum_ELBO(
            num_particles=num_samples,
            vectorize_particles=num_samples > 1,
            max_plate_nesting=1,
            strict_enumeration_warning=False,
        )

    def bound(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean over rows of ELBO(x), y summed out, or of ELBO(x, y): a scalar."""
        with explained(x, "unlabelled" if y is None else "labelled"), self._sites_compared(labelled=y is not None):
            model, guide = self._scaled(self.model, self.guide)
            if y is None and getattr(self.guide, "tight", False):
                # y is left to the model: Pyro sums it too, but shifts each factor by its own maximum, and underflows
                return class_weights(model, guide, x, self.num_samples)[0].logsumexp(0).mean()
            return self._mean_elbo(model, guide, x, y)

    def _scaled(self, model: nn.Module, guide: nn.Module) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Model and guide under `kl_weight`; the guide has to run first."""
        drawn: set[str] = set()
        scaled_guide = ScaleLatents(self.kl_weight, drawn, guide=True)(guide)
        return ScaleLatents(self.kl_weight, drawn)(model), scaled_guide

    def _mean_elbo(self, model: Callable[..., Any], guide: Callable[..., Any], *rows: Tensor | None) -> Tensor:
        """Pyro's bound, divided by the number of rows; differentiable where gradients are on."""
        given = next(row for row in rows if row is not None)
        if torch.is_grad_enabled():
            return -self._elbo.differentiable_loss(model, guide, *rows) / len(given)
        return given.new_tensor(-self._elbo.loss(model, guide, *rows) / len(given))

    @contextmanager
    def _sites_compared(self, *, labelled: bool) -> Iterator[None]:
        """In the first call of a kind, makes an error of what Pyro only warns of: sites that do not match."""
        if labelled in self._compared:
            yield
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found .*vars in (model|guide)")
            yield
        self._compared.add(labelled)

    def forward(
        self, x_labelled: Tensor | None, y_labelled: Tensor | None, x_unlabelled: Tensor | None
    ) -> dict[str, Tensor]:
        """The terms and "loss", as differentiable scalars; a side that is None leaves its terms out.

        Args:
            x_labelled: (N_l, D) or None.
            y_labelled: one-hot (N_l, K), None where `x_labelled` is.
            x_unlabelled: (N_u, D) or None.

        Raises:
            ValueError: nothing to compute; labels without rows or rows without labels; a wrong shape; and, while
                Pyro's validation is on, NaN or infinity in x, labels that are not one-hot, or an x outside the
                likelihood's support.
            FloatingPointError: a network's output is NaN.
        """
        if (x_labelled is None) != (y_labelled is None):
            raise ValueError("x_labelled and y_labelled go together: give both, or None for both")
        if x_labelled is not None and y_labelled is not None:
            self._check_rows(x_labelled, "x_labelled")
            check_one_hot(
                y_labelled, "y_labelled", rows=len(x_labelled), num_classes=getattr(self.model, "y_dim", None)
            )
        if x_unlabelled is not None:
            self._check_rows(x_unlabelled, "x_unlabelled")
        with normalised_alike(self, lambda: self._pass_plainly(self.plain_rows(x_labelled, x_unlabelled))):
            terms = self.terms(x_labelled, y_labelled, x_unlabelled)
        if not terms:
            raise ValueError(f"{type(self).__name__} has nothing to compute: the rows that it reads are None")
        return {**terms, "loss": self.loss(terms)}

    def plain_rows(self, x_labelled: Tensor | None, x_unlabelled: Tensor | None) -> Tensor | None:
        """The rows whose statistics batch normalisation goes by in all terms: the unlabelled ones, with y drawn.

        Enumerated rows are K copies of each other under classes that they do not have, and labelled rows are few. Those
        count, without their labels, where there are no others.
        """
        return x_unlabelled if x_unlabelled is not None else x_labelled

    def _pass_plainly(self, x: Tensor | None) -> None:
        """Guide and model once, with y drawn; nothing without rows."""
        if x is not None:
            with explained(x, "unlabelled"):
                poutine.replay(self.model, poutine.trace(self.guide).get_trace(x))(x)

    def _check_rows(self, x: Tensor, name: str) -> None:
        check_rows(x, name)
        dtype = next((p.dtype for p in self.parameters()), x.dtype)
        if x.dtype != dtype:
            raise ValueError(f"{name} is {x.dtype}, but the networks are {dtype}; convert one with .to(...)")

    @abstractmethod
    def terms(
        self, x_labelled: Tensor | None, y_labelled: Tensor | None, x_unlabelled: Tensor | None
    ) -> dict[str, Tensor]:
        """The named terms that can be computed from these rows, in nats per data point."""

    @abstractmethod
    def loss(self, terms: dict[str, Tensor]) -> Tensor:
        """The stated combination of the terms."""
