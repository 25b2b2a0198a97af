"""What every objective shares: a model, a guide, and the evidence lower bound between them.

    ELBO(x, y) = E_q(z|x,y) [log p(x, y, z) − log q(z | x, y)]
    ELBO(x)    = Σ_y q(y | x) (ELBO(x, y) − log q(y | x))            y summed outside the logarithm
    ELBO(x)    = E_q(z|x) [log Σ_y p(x, y, z) − log q(z | x)]        where the guide leaves y to the model

`SummedELBO`, a kind of Pyro's `TraceEnum_ELBO`, computes the first two from the sites of model and guide, and
`class_weights` the third. Here z stands for every continuous latent, drawn by reparametrisation, and the sum over a y
that is not given is exact, but for a training with `summed_classes`.

Shapes: x (N, D); y one-hot (N, K). Bounds are in nats per data point.
"""

import warnings
from abc import ABC
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from torch import Tensor, nn

from ... import contract
from ...checks import check_counts, check_not_negative
from ...contract import Guide, Model
from .batch_norm import normalised_alike
from .checks import check_one_hot, check_rows, check_sums
from .enumeration import class_weights
from .explained import explained
from .kl_weight import ScaleLatents
from .some_classes import SumsSomeClasses
from .summed import SummedELBO

Terms = dict[str, Tensor]


class Objective(nn.Module, ABC):
    """Named terms in nats per data point, and loss = −Σ weight · term.

    A paper's objective is a subclass that says what its terms are for rows with a label, `labelled_terms`, and without,
    `unlabelled_terms`, and what they weigh, `weights`. This class decides which of them there are to compute, checks
    the rows, makes Pyro's errors readable, and adds the terms up.

    Args:
        model: p, called as `model(x, y=None)`.
        guide: q, called as `guide(x, y=None)`.
        num_samples: S, how many draws of the continuous latents each bound averages over.
        kl_weight: multiplies log p − log q of every latent site that the guide draws. It becomes a buffer, which moves
            with the module and is not in its `state_dict`.
        summed_classes: m. In training, the sum over a y that the guide enumerates is taken over the m most probable
            classes, and over one drawn class in the place of all others (`some_classes.py`): value and gradients keep
            their expectation, and a row costs m + 1 classes in the place of K. In evaluation, and with None, all
            classes are summed.

    Raises:
        ValueError: `num_samples` or `summed_classes` is not a positive integer, or `kl_weight` negative; or
            `summed_classes` is given where there is no y, or where y is summed inside a logarithm.
    """

    declared_settings: ClassVar[tuple[str, ...]] = ("num_samples", "kl_weight", "summed_classes")
    model: Model
    guide: Guide
    kl_weight: Tensor
    _summed_classes: int | None = None  # also of a pickle of version 0.1

    def __init__(
        self,
        model: Model,
        guide: Guide,
        *,
        num_samples: int = 1,
        kl_weight: float = 1.0,
        summed_classes: int | None = None,
    ) -> None:
        super().__init__()
        self._check_terms()
        contract.check_module(model, "model")
        contract.check_module(guide, "guide")
        check_not_negative(kl_weight=kl_weight)
        check_counts(num_samples=num_samples)
        self.model = model
        self.guide = guide
        self.num_samples = num_samples
        self.summed_classes = summed_classes
        self.register_buffer("kl_weight", torch.tensor(float(kl_weight)), persistent=False)
        self._compared: set[bool] = set()
        self._elbo = self._engine()

    @property
    def summed_classes(self) -> int | None:
        """m, or None for all classes; another value is checked as the constructor checks it."""
        return self._summed_classes

    @summed_classes.setter
    def summed_classes(self, summed_classes: int | None) -> None:
        if summed_classes is not None:
            check_sums(summed_classes, self.model, self.guide)
        self._summed_classes = summed_classes

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Takes the state of a pickle, also of version 0.1, which left every sum to Pyro."""
        super().__setstate__(state)
        if not isinstance(self._elbo, SummedELBO):
            self._elbo = self._engine()

    def _engine(self) -> SummedELBO:
        """What computes the bounds of one pair of programs."""
        return SummedELBO(
            num_particles=self.num_samples,
            vectorize_particles=self.num_samples > 1,
            max_plate_nesting=1,
            strict_enumeration_warning=False,
        )

    def _check_terms(self) -> None:
        names = ("labelled_terms", "unlabelled_terms", "terms")
        if all(getattr(type(self), name) is getattr(Objective, name) for name in names):
            raise TypeError(f"{type(self).__name__} has no terms: a subclass of Objective writes labelled_terms(x, y), "
                            f"unlabelled_terms(x), or both; {contract.PAGE} shows one")  # fmt: skip

    def bound(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean over rows of ELBO(x), y summed out, or of ELBO(x, y): a scalar."""
        with explained(x, "unlabelled" if y is None else "labelled"), self._sites_compared(labelled=y is not None):
            model, guide = self.weighted_programs()
            if y is None and contract.leaves_y_to_model(self.guide):
                # the sum inside the logarithm: Pyro would exponentiate factor by factor, which underflows
                return class_weights(model, guide, x, self.num_samples).log_w.logsumexp(0).mean()
            return self.mean_elbo(model, self.summing(guide), x, y)

    def classification(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean of log q(y | x) over rows, and over S draws of the latents that the guide draws before y."""
        classify = contract.classifier(self.guide)
        return torch.stack([classify(x).log_prob(y) for _ in range(self.num_samples)]).mean()

    def weighted_programs(
        self, model: Callable[..., Any] | None = None, guide: Callable[..., Any] | None = None
    ) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Model and guide, or others in their places, under `kl_weight`. The guide runs first, and tells the sites."""
        drawn: set[str] = set()
        scaled_guide = ScaleLatents(self.kl_weight, drawn, guide=True)(guide or self.guide)
        return ScaleLatents(self.kl_weight, drawn)(model or self.model), scaled_guide

    def summing(self, guide: Callable[..., Any], shared: int | None = None) -> Callable[..., Any]:
        """The guide, enumerating the classes that are to be summed; all draws along `shared` have the same ones."""
        if self.summed_classes is None or not self.training:
            return guide
        return SumsSomeClasses(self.summed_classes, shared)(guide)

    def mean_elbo(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *rows: Tensor | None,
        engine: TraceEnum_ELBO | None = None,
    ) -> Tensor:
        """The bound of any two programs, divided by the number of rows; differentiable where gradients are on."""
        given, engine = next(row for row in rows if row is not None), engine or self._elbo
        if torch.is_grad_enabled():
            return -engine.differentiable_loss(model, guide, *rows) / len(given)
        return given.new_tensor(-engine.loss(model, guide, *rows) / len(given))

    @contextmanager
    def _sites_compared(self, *, labelled: bool) -> Iterator[None]:
        """Makes an error of Pyro's warning that sites do not match, in the first call of each kind."""
        if labelled in self._compared:
            yield
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found .*vars in (model|guide)")
            yield
        self._compared.add(labelled)

    def forward(self, x_labelled: Tensor | None, y_labelled: Tensor | None, x_unlabelled: Tensor | None) -> Terms:
        """The terms and "loss", as differentiable scalars; where rows are None, their terms are left out.

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
            num_classes = contract.num_classes(self.model)
            check_one_hot(y_labelled, "y_labelled", rows=len(x_labelled), num_classes=num_classes)
        if x_unlabelled is not None:
            self._check_rows(x_unlabelled, "x_unlabelled")
        with normalised_alike(self, lambda: self._pass_once(self.statistics_rows(x_labelled, x_unlabelled))):
            terms = self.terms(x_labelled, y_labelled, x_unlabelled)
        if not terms:
            raise ValueError(f"{type(self).__name__} has nothing to compute: the rows that it reads are None")
        return {**terms, "loss": self.loss(terms)}

    def statistics_rows(self, x_labelled: Tensor | None, x_unlabelled: Tensor | None) -> Tensor | None:
        """The rows whose statistics batch normalisation uses in all terms: the unlabelled ones, with y drawn.

        Enumerated rows are K copies of each other under classes that they do not have, and labelled rows are few.
        Where there are no unlabelled rows, the labelled ones are used, without their labels.
        """
        return x_unlabelled if x_unlabelled is not None else x_labelled

    def _pass_once(self, x: Tensor | None) -> None:
        """Runs guide and model once, with y drawn; without rows it does nothing."""
        if x is not None:
            with explained(x, "unlabelled"):
                poutine.replay(self.model, poutine.trace(self.guide).get_trace(x))(x)

    def _check_rows(self, x: Tensor, name: str) -> None:
        check_rows(x, name)
        dtype = next((p.dtype for p in self.parameters()), x.dtype)
        if x.dtype != dtype:
            raise ValueError(f"{name} is {x.dtype}, but the networks are {dtype}; convert one with .to(...)")

    def terms(self, x_labelled: Tensor | None, y_labelled: Tensor | None, x_unlabelled: Tensor | None) -> Terms:
        """The named terms that can be computed from these rows, in nats per data point."""
        terms: Terms = {}
        labelled = None if x_labelled is None or y_labelled is None else (x_labelled, y_labelled)
        if labelled is not None:
            terms |= self._explained_terms(self.labelled_terms, "labelled", *labelled)
        if x_unlabelled is not None:
            terms |= self._explained_terms(self.unlabelled_terms, "unlabelled", x_unlabelled)
        if labelled is not None:
            terms |= self._explained_terms(self.further_labelled_terms, "labelled", *labelled)
        return terms

    def _explained_terms(self, compute: Callable[..., Terms], kind: str, *rows: Tensor) -> Terms:
        with explained(rows[0], kind):
            return compute(*rows)

    def labelled_terms(self, x: Tensor, y: Tensor) -> Terms:
        """The terms of rows with a label; none unless a subclass has some."""
        return {}

    def unlabelled_terms(self, x: Tensor) -> Terms:
        """The terms of rows without a label; none unless a subclass has some."""
        return {}

    def further_labelled_terms(self, x: Tensor, y: Tensor) -> Terms:
        """Further terms of rows with a label, which are computed last; none unless a subclass has some."""
        return {}

    @property
    def weights(self) -> Mapping[str, float]:
        """What each term weighs in the loss, where that is not 1."""
        return {}

    def loss(self, terms: Terms) -> Tensor:
        """−Σ weight · term, over the terms that there are."""
        weights = self.weights
        return -torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum()
