"""The estimator: its settings, and what scikit-learn asks of it."""

import copy
import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data
from torch import Tensor

from ..data import Batches, batches
from ..data.labels import known_labels
from ..files import write_whole
from ..inference import Objective, check_fit_settings, fit, log_likelihood, sample
from ..inference.evaluation.features import draw_features, features
from ..inference.evaluation.measures import DRAWS, ROWS
from ..inference.evaluation.same_noise import SameNoise
from ..inference.evaluation.sampling import sample_classes
from ..modules import evaluating
from ..papers import CLASSIFYING, PAPERS

CLUSTERING = ("gm-dgm", "agm-dgm")  # rows that find classes without any label
STACKED = "m1-m2"  # the row that learns from M1's latents
STEPS, LEAST_EPOCHS = 2000, 20  # of a training whose `epochs` is None
LIKELIHOOD_DRAWS = 100  # of the importance-weighted likelihood
SEED = 0  # of what predictions draw
FORMAT = "semipyro.SemiSupervisedClassifier, version 1"
KEPT = ("likelihood_", "history_", "n_iter_", "seed_", "n_features_in_", "_n_features_out", "architecture_")
NAMES = "feature_names_in_"  # kept where there are some
COUNTS = {  # settings that are integers, and the least that each may be
    "flow_length": 1, "z_dim": 1, "extra_classes": 0, "batch_size": 1, "n_iter_no_change": 1, "num_draws": 1,
}  # fmt: skip
ARCHITECTURE = (
    "model", "flow", "flow_length", "flow_amortised", "z_dim", "hidden", "likelihood", "extra_classes", "settings",
)  # fmt: skip
ONE_AT_A_TIME = threading.RLock()  # the threads of a process share Pyro's handlers and PyTorch's random numbers


class SemiSupervisedClassifier(ClassNamePrefixFeaturesOutMixin, ClassifierMixin, TransformerMixin, BaseEstimator):
    """Any classifying model of the papers, learnt from rows with and without labels.

    X is (N, D), dense. Where all its values lie in [0, 1], they are taken as probabilities of binary variables; other
    values are standardised, column by column, and modelled as Gaussian. y holds a label for each row, of any type,
    and -1, None or NaN where the label is unknown ("-1" too, which is what NumPy makes of -1 among strings).

    In grids and cross-validation leave `scoring` as it is: `score` leaves the rows without a label out, while
    scikit-learn's own scorers count them as wrong. Calibrate on rows with labels:
    `CalibratedClassifierCV(FrozenEstimator(fitted)).fit(X[y != -1], y[y != -1])`. Threads take turns, as they share
    Pyro's handlers; processes do not.

    Args:
        model: a classifying row of `papers.PAPERS`: "m2", "m1-m2", "adgm", "sdgm", "gm-dgm", "cagem",
            "latent-classifier", …
        flow: the name of a normalizing flow (`distributions.FLOWS`) for the posterior of the latents; None for a
            diagonal Gaussian.
        flow_length: how many transforms the flow has.
        flow_amortised: the flow's parameters are functions of x and y.
        z_dim: width of the latents, and of what `transform` returns.
        hidden: widths of the hidden layers of all networks.
        likelihood: "bernoulli", "normal", or "auto", which looks at X.
        extra_classes: how many classes without any label to look for, with "gm-dgm" and "agm-dgm".
        settings: further keywords of the row's `build`, such as {"classification_weight": 10.0}.
        epochs: passes over the rows; None for as many as give 2,000 steps, 20 at least.
        batch_size: rows in a batch; as many labelled rows stand beside them, repeated where there are fewer.
        learning_rate: of Adam.
        kl_warmup: epochs over which the weight of the KL terms rises to 1.
        early_stopping: hold out a part of the rows and stop when their bound no longer rises. With
            `fit(..., validation=(X, y))` it is the accuracy on these that stops the training, whatever stands here.
        validation_fraction: how much of the unlabelled rows (of all rows, where all have labels) is held out.
        n_iter_no_change: epochs without a new best, before the training stops.
        num_draws: of the latents that the classifier averages over, in models whose classifier draws.
        warm_start: a further `fit` goes on from where the last one ended, with the same networks, classes and scaling.
        random_state: of the weights, the batches and the noise; an int for results that can be repeated, those of
            `sample` among them.
        device: "auto", "cpu", "cuda" or "mps", to train on; predictions are made on the CPU, in double precision.
        verbose: show a progress bar.

    Attributes:
        classes_: the labels, sorted, and after them the extra classes: the next integers from 0 on, or "extra 1", …
        likelihood_: "bernoulli" or "normal".
        objective_: the trained objective, with its model and its guide.
        history_: one mapping per epoch, as `inference.training.fit` returns them; in nats of standardised rows.
        n_iter_: the number of epochs.
        n_features_in_, feature_names_in_: as everywhere in scikit-learn.

    Example:
        >>> import numpy as np
        >>> X = np.concatenate([np.random.default_rng(0).normal(c, 1, (50, 2)) for c in (-3, 3)])
        >>> y = np.full(100, "?", dtype=object)
        >>> y[:] = None
        >>> y[[0, 99]] = ["left", "right"]
        >>> classifier = SemiSupervisedClassifier(z_dim=2, hidden=(20,), epochs=20, random_state=0).fit(X, y)
        >>> classifier.predict([[-3.0, -3.0], [3.0, 3.0]])
        array(['left', 'right'], dtype='<U5')
    """

    def __init__(
        self,
        model: str = "m2",
        *,
        flow: str | None = None,
        flow_length: int = 2,
        flow_amortised: bool = False,
        z_dim: int = 20,
        hidden: Sequence[int] = (200,),
        likelihood: str = "auto",
        extra_classes: int = 0,
        settings: Mapping[str, Any] | None = None,
        epochs: int | None = None,
        batch_size: int = 100,
        learning_rate: float = 3e-3,
        kl_warmup: int = 0,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        num_draws: int = 20,
        warm_start: bool = False,
        random_state: Any = None,
        device: str = "auto",
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.flow = flow
        self.flow_length = flow_length
        self.flow_amortised = flow_amortised
        self.z_dim = z_dim
        self.hidden = hidden
        self.likelihood = likelihood
        self.extra_classes = extra_classes
        self.settings = settings
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.kl_warmup = kl_warmup
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.num_draws = num_draws
        self.warm_start = warm_start
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    # Learning

    def fit(
        self, X: ArrayLike, y: ArrayLike, *, validation: tuple[ArrayLike, ArrayLike] | None = None
    ) -> "SemiSupervisedClassifier":
        """Learns from all rows, and from the labels of those that have one.

        Args:
            X: (N, D).
            y: (N,) labels; -1, None or NaN where unknown.
            validation: further `(X, y)`; the training stops when the accuracy on their labels no longer rises, and
                the best epoch's weights are kept.

        Raises:
            ValueError: an unknown model or setting, NaN in X, values outside [0, 1] with likelihood="bernoulli", no
                label at all, unless the model can cluster, or other networks than those that warm_start goes on with.
            TypeError: X is sparse.

        A fit that ends with an error, or with Ctrl-C, leaves the estimator as it was.
        """
        again = self.warm_start and hasattr(self, "n_iter_")
        learner = copy.copy(self)
        for name in [name for name in vars(self) if name.endswith("_") or name in KEPT]:
            if again:
                setattr(learner, name, copy.deepcopy(getattr(self, name)))
            else:
                delattr(learner, name)
        learner._learn(X, y, validation, again)
        self.__dict__ = learner.__dict__
        return self

    def _learn(self, X: ArrayLike, y: ArrayLike, validation: Any, again: bool) -> None:
        self._check_settings()
        rows = self._validated(X, y, reset=not again)
        known, labels = known_labels(y)
        with ONE_AT_A_TIME, torch.random.fork_rng():
            if again:
                self._check_architecture()
            else:
                self.architecture_ = self._architecture()
                self.classes_ = self._classes(labels)
                self._look_at(rows)
                self.seed_ = _seed(self.random_state)
                self.history_: list[dict[str, float]] = []
            codes = np.full(len(rows), -1)
            codes[known] = self._codes(labels)
            self._train(self._scaled(rows), torch.as_tensor(codes), validation, again)

    def _architecture(self) -> dict[str, Any]:
        """The settings that the networks are made of, as JSON has them."""
        given = {name: getattr(self, name) for name in ARCHITECTURE}
        return dict(json.loads(json.dumps(given, default=lambda value: getattr(value, "tolist", value.__repr__)())))

    def _check_architecture(self) -> None:
        now = self._architecture()
        if changed := [name for name in ARCHITECTURE if now[name] != self.architecture_[name]]:
            told = ", ".join(f"{name}={self.architecture_[name]!r} (now {now[name]!r})" for name in changed)
            raise ValueError(f"warm_start goes on with {told}; set warm_start=False to fit with other networks")

    def _validated(self, X: ArrayLike, y: ArrayLike, *, reset: bool) -> NDArray[Any]:
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y is None. Pass -1 for "
                "every row without a label"
            )
        rows: NDArray[Any] = validate_data(self, X, dtype=(np.float64, np.float32), reset=reset, ensure_min_samples=2)
        check_consistent_length(rows, y)
        return rows

    def _check_settings(self) -> None:
        if self.model not in CLASSIFYING:
            raise ValueError(f"model must be one of {', '.join(CLASSIFYING)}, got {self.model!r}")
        check_fit_settings(
            epochs=LEAST_EPOCHS if self.epochs is None else self.epochs, learning_rate=self.learning_rate,
            kl_warmup=self.kl_warmup, device=self.device,
        )  # fmt: skip
        for name, least in COUNTS.items():
            value = getattr(self, name)
            if not (isinstance(value, Integral) and int(value) >= least):
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        widths = list(self.hidden) if np.iterable(self.hidden) else [None]
        if not all(isinstance(width, Integral) and width >= 1 for width in widths):
            raise ValueError(f"hidden must be a sequence of widths, such as (200,), got {self.hidden!r}")
        if taken := sorted({"x_dim", "y_dim", *ARCHITECTURE} & {*(self.settings or {})}):
            raise ValueError(f"settings has {taken[0]}, which is an argument of its own, or follows from the data")
        if isinstance(self.random_state, Integral) and not 0 <= int(self.random_state) < 2**32:
            raise ValueError(f"random_state must lie between 0 and 2**32 - 1, got {self.random_state!r}")
        if self.likelihood not in ("auto", "bernoulli", "normal"):
            raise ValueError(f"likelihood must be 'auto', 'bernoulli' or 'normal', got {self.likelihood!r}")
        if self.extra_classes and self.model not in CLUSTERING:
            raise ValueError(f"extra_classes needs a model that finds classes nobody labelled, model='gm-dgm' or "
                             f"model='agm-dgm', got model={self.model!r}")  # fmt: skip
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction must lie between 0 and 1, got {self.validation_fraction!r}")

    def _classes(self, labels: NDArray[Any]) -> NDArray[Any]:
        """The labels that occur, sorted, and names for the extra classes."""
        if not len(labels) and self.extra_classes < 2:
            raise ValueError("y has no label: every row is -1, None or NaN. Give some rows their class, or let "
                             "model='gm-dgm' find clusters, with extra_classes=K for K of them")  # fmt: skip
        classes = np.unique(labels)
        if not self.extra_classes:
            return classes
        if not len(classes) or classes.dtype.kind in "iufb":
            first = max(int(classes.max()) + 1, 0) if len(classes) else 0  # never -1
            return np.concatenate([classes.astype(int), np.arange(first, first + self.extra_classes)])
        names = (f"extra {n + 1}" for n in range(self.extra_classes + len(classes)))
        return np.concatenate([classes, [name for name in names if name not in classes][: self.extra_classes]])

    def _codes(self, labels: NDArray[Any], name: str = "y") -> NDArray[Any]:
        """The places of labels in `classes_`."""
        places = {label: place for place, label in enumerate(self.classes_.tolist())}
        try:
            return np.array([places[label] for label in labels.tolist()], dtype=int)
        except KeyError as error:
            raise ValueError(f"{name} has the label {error.args[0]!r}, which is not among classes_, "
                             f"{self.classes_.tolist()}") from error  # fmt: skip

    def _look_at(self, X: NDArray[Any]) -> None:
        """Decides the likelihood, and finds the scale of the columns."""
        within = bool(X.min() >= 0 and X.max() <= 1)
        self.likelihood_ = ("bernoulli" if within else "normal") if self.likelihood == "auto" else self.likelihood
        self._check_range(X)
        self.scaler_ = StandardScaler().fit(X) if self.likelihood_ == "normal" else None

    def _check_range(self, X: NDArray[Any]) -> None:
        if self.likelihood_ == "bernoulli" and (X.min() < 0 or X.max() > 1):
            raise ValueError(f"likelihood='bernoulli' needs X in [0, 1], got values from {X.min():g} to {X.max():g}; "
                             "fit with likelihood='normal', or scale X")  # fmt: skip

    def _train(self, x: Tensor, y: Tensor, validation: Any, again: bool) -> None:
        """Builds the objective, or goes on with the one that is there, and fits it."""
        seed = self.seed_ + len(self.history_)
        held_out: tuple[Tensor, Tensor | None] | None = None
        if validation is not None:
            held_out = self._validation(validation)
        elif self.early_stopping:
            x, y, held_out = _hold_out(x, y, self.validation_fraction, seed)
        torch.manual_seed(seed)
        if not again:
            self._build(x.shape[1])
        rows, transform = x, None
        if self.features_ is not None:
            if not again:
                self._fit(self.features_, self._batches(x, None, seed), None)
            rows, transform = features(self.features_, x), draw_features
            held_out = held_out and (features(self.features_, held_out[0]).chunk(2, 1)[0], held_out[1])
        history = self._fit(self.objective_.float(), self._batches(rows, y, seed, transform), held_out, again)
        self.history_ += [{**row, "epoch": len(self.history_) + row["epoch"]} for row in history]
        self.n_iter_ = len(self.history_)
        for objective in filter(None, (self.features_, self.objective_)):
            objective.cpu().double()
        with evaluating(self.objective_):
            self._n_features_out = self.objective_.guide.encode(self._seen(x[:1].double())).shape[1]

    def _build(self, x_dim: int) -> None:
        """The objective, and M1 before it where there are two stages."""
        networks = {"z_dim": int(self.z_dim), "hidden": tuple(map(int, self.hidden))}
        flow = {"flow": self.flow, "flow_length": self.flow_length, "flow_amortised": self.flow_amortised}
        own = {**networks, **(flow if self.flow is not None else {}), **(self.settings or {})}
        seen = {"likelihood": self.likelihood_}
        if self.model == STACKED:
            self.build_ = {"features_": ("m1", {"x_dim": x_dim, **networks, **seen})}
            x_dim, seen = self.z_dim, {}
        else:
            self.build_ = {}
        self.build_["objective_"] = (self.model, {"x_dim": x_dim, "y_dim": len(self.classes_), **seen, **own})
        try:
            self._make()
        except TypeError as error:
            raise ValueError(f"settings={self.settings!r}: {error}") from error

    def _make(self) -> None:
        """The objectives that `build_` describes."""
        made = {name: PAPERS[row].build(**settings).float() for name, (row, settings) in self.build_.items()}
        self.features_, self.objective_ = made.get("features_"), made["objective_"]

    def _batches(
        self, x: Tensor, y: Tensor | None, seed: int, transform: Callable[[Tensor], Tensor] | None = None
    ) -> Batches:
        """Every row is learnt from without its label too."""
        labelled = y is not None and bool((y >= 0).any())
        missing = sorted(set(range(len(self.classes_))) - set(y.tolist())) if y is not None and labelled else ()
        return batches(
            x, y if labelled else None, labelled_batch_size=self.batch_size if labelled else 0,
            unlabelled_batch_size=self.batch_size, include_labelled=True, transform=transform, seed=seed,
            num_classes=len(self.classes_) if labelled else None, hidden_classes=missing,
        )  # fmt: skip

    def _fit(
        self, objective: Objective, rows: Batches, held_out: tuple[Tensor, Tensor | None] | None, again: bool = False
    ) -> list[dict[str, float]]:
        epochs = max(LEAST_EPOCHS, math.ceil(STEPS / len(rows))) if self.epochs is None else self.epochs
        stopping: dict[str, Any] = {}
        if held_out is not None:
            monitor = "unlabelled" if held_out[1] is None else "accuracy"
            stopping = {"monitor": monitor, "patience": self.n_iter_no_change, "restore_best": True}
        return fit(
            objective, rows, epochs=epochs, learning_rate=self.learning_rate, kl_warmup=0 if again else self.kl_warmup,
            device=self.device, progress=bool(self.verbose), validation=held_out, **stopping,
        )  # fmt: skip

    def _validation(self, given: Any) -> tuple[Tensor, Tensor | None]:
        """Rows to stop by, with their labels if there are any."""
        if not isinstance(given, tuple | list) or len(given) != 2 or given[1] is None:
            raise ValueError("validation must be a pair (X, y); y may be -1 where a label is unknown")
        X, y = given
        rows: NDArray[Any] = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        check_consistent_length(rows, y)
        self._check_range(rows)
        known, labels = known_labels(y)
        codes = np.full(len(rows), -1)
        codes[known] = self._codes(labels, "y of validation")
        return self._scaled(rows), torch.as_tensor(codes) if len(labels) else None

    def _scaled(self, X: NDArray[Any]) -> Tensor:
        """X as the networks see it, in single precision."""
        return torch.tensor(np.asarray(X if self.scaler_ is None else self.scaler_.transform(X), dtype=np.float32))

    def _seen(self, x: Tensor) -> Tensor:
        """What the objective reads of scaled rows: themselves, or M1's posterior means."""
        return x if self.features_ is None else self.features_.guide.encode(x)

    # Using

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """The probabilities of the classes, (N, K), in the order of `classes_`."""
        return self._of_rows(
            X, lambda x: self.objective_.guide.classify(self._seen(x), num_samples=self.num_draws).probs
        )

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The most probable class of each row, (N,)."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Accuracy on the rows that have a label, so that grid searches and cross-validation leave the others out.

        Raises:
            ValueError: no row has one.
        """
        check_consistent_length(X, y, sample_weight)
        known, labels = known_labels(y)
        if not len(labels):
            raise ValueError("y has no label: accuracy needs at least one row whose class is known")
        weights = None if sample_weight is None else np.asarray(sample_weight)[known]
        return float(accuracy_score(labels, self.predict(X)[known], sample_weight=weights))

    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """The posterior mean of the latent at the most probable class, (N, z_dim), in the type of X."""
        latents = self._of_rows(X, lambda x: self.objective_.guide.encode(self._seen(x)))
        single = np.asarray(X).dtype == np.float32
        return latents.astype(np.float32) if single else latents

    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """The importance-weighted bound on log p(x) of each row, with 100 draws, in nats, (N,).

        Under a normal likelihood it is the density of X in its own units: log p of a standardised row, less the sum of
        the logarithms of the columns' scales. Under a Bernoulli likelihood it is the logarithm of the probability of a
        binary row; of values between 0 and 1 it is the cross-entropy term that training has, not a density.

        "Importance weighted autoencoders" (Burda et al., 2015), arXiv:1509.00519, eq. (8).

        Raises:
            ValueError: values outside [0, 1] with a Bernoulli likelihood.
        """
        rows = max(1, DRAWS // len(self.classes_) // LIKELIHOOD_DRAWS) if hasattr(self, "classes_") else ROWS
        found = self._of_rows(X, self._log_likelihood, rows, in_range=True)
        return found if self.scaler_ is None else found - np.log(self.scaler_.scale_).sum()

    def sample(self, n: int = 1, y: Any = None) -> NDArray[np.float64]:
        """n rows drawn from the model, (n, D); of zeros and ones under a Bernoulli likelihood.

        With an int `random_state` they are the same at every call.

        Args:
            n: how many.
            y: one class for all of them, or n classes; None to draw the classes too.

        Raises:
            ValueError: another number of classes than n, or a class that the model does not know, or hardly ever draws.
        """
        check_is_fitted(self, "n_iter_")
        if y is not None and np.shape(y) not in ((), (n,)):
            raise ValueError(f"y must be one class, or n = {n} of them, got the shape {np.shape(y)}")
        codes = None if y is None else torch.as_tensor(self._codes(np.broadcast_to(np.asarray(y), (n,))))
        with _alone(self.objective_), evaluating(self.features_):
            torch.manual_seed(_seed(self.random_state))
            model = self.objective_.model
            x = sample(model, n) if codes is None else sample_classes(model, codes, len(self.classes_))
            x = x if self.features_ is None else self.features_.model.p_x(x).sample()
        return x.numpy() if self.scaler_ is None else self.scaler_.inverse_transform(x.numpy())

    def _log_likelihood(self, x: Tensor) -> Tensor:
        model, guide = self.objective_.model, self.objective_.guide
        if self.features_ is None:
            return log_likelihood(model, guide, x, num_samples=LIKELIHOOD_DRAWS)
        q_z = self.features_.guide.q_z(x)  # p(x | z) p(z) / q(z | x), where M2 is the prior of M1's z
        z = q_z.rsample((LIKELIHOOD_DRAWS,))
        log_p_z = log_likelihood(model, guide, z.flatten(0, 1), num_samples=1).view(len(z), len(x))
        log_weights = self.features_.model.p_x(z).log_prob(x) + log_p_z - q_z.log_prob(z)
        return log_weights.logsumexp(0) - math.log(LIKELIHOOD_DRAWS)

    def _of_rows(
        self, X: ArrayLike, function: Callable[[Tensor], Tensor], rows: int = ROWS, *, in_range: bool = False
    ) -> NDArray[Any]:
        """The function of every row, part by part; the noise is the same for every row and every call."""
        check_is_fitted(self, "n_iter_")
        given: NDArray[Any] = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        if in_range:
            self._check_range(given)
        found = []
        with _alone(self.objective_), evaluating(self.features_):
            for x in self._scaled(given).double().split(rows):
                torch.manual_seed(SEED)
                with SameNoise():
                    found.append(function(x))
        return torch.cat(found).numpy()

    # Keeping

    def save(self, path: str | PathLike[str]) -> None:
        """Writes settings and weights to a file, whole or not at all, which `load` reads without pickle.

        Raises:
            ValueError: a setting or a class that plain text cannot hold.
        """
        check_is_fitted(self, "n_iter_")
        kept = {name: getattr(self, name) for name in (*KEPT, NAMES) if hasattr(self, name)}
        content = {"format": FORMAT, "params": self.get_params(deep=False), "kept": kept, "build": self.build_}
        try:
            text = json.dumps(content, default=_plain)
        except TypeError as error:
            raise ValueError(f"a setting cannot be saved as plain text ({error}); change it with set_params, or pickle "
                             "the estimator") from error  # fmt: skip
        if self.classes_.dtype.kind not in "iufbU":
            raise ValueError(f"classes_ of type {self.classes_.dtype} cannot be saved; pickle the estimator")
        arrays: dict[str, Any] = {"content": np.array(text), "classes": self.classes_}
        if self.scaler_ is not None:
            arrays |= {"scaler/mean": self.scaler_.mean_, "scaler/scale": self.scaler_.scale_}
        for name in self.build_:
            weights = getattr(self, name).state_dict()
            arrays |= {f"{name}/{key}": _single(value).numpy() for key, value in weights.items()}

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez(file, **arrays)

        write_whole(path, write)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "SemiSupervisedClassifier":
        """The estimator that `save` wrote.

        Raises:
            ValueError: the file was not written by `save`, or is damaged.
            OSError: there is no such file.
        """
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                return cls._restored({name: arrays[name] for name in arrays.files})
        except (FileNotFoundError, PermissionError, IsADirectoryError):
            raise
        except Exception as error:  # a damaged file can end in any
            raise ValueError(
                f"{path} was not written by SemiSupervisedClassifier.save, or is damaged: {error}"
            ) from error

    @classmethod
    def _restored(cls, arrays: dict[str, NDArray[Any]]) -> "SemiSupervisedClassifier":
        content = json.loads(str(arrays["content"]))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, not {FORMAT!r}")
        self, kept = cls(**_settings(content["params"])), content["kept"]
        for name in KEPT:
            setattr(self, name, kept[name])
        if NAMES in kept:
            self.feature_names_in_ = np.array(kept[NAMES], dtype=object)
        self.classes_, self.build_ = arrays["classes"], content["build"]
        if self.classes_.shape != (self.build_["objective_"][1]["y_dim"],):
            raise ValueError(f"it has {self.classes_.shape} classes for a model of other classes")
        self.scaler_ = _scaler(arrays, self.n_features_in_) if self.likelihood_ == "normal" else None
        with _alone():
            self._make()
        for name in self.build_:
            prefix = f"{name}/"
            weights = {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
            if not all(np.isfinite(value).all() for value in weights.values()):
                raise ValueError("a weight is NaN or infinite")
            getattr(self, name).double().load_state_dict({key: torch.as_tensor(v) for key, v in weights.items()})
            getattr(self, name).eval()
        return self

    def __sklearn_tags__(self) -> Tags:
        """Latents come in the type of X."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _hold_out(x: Tensor, y: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor, tuple[Tensor, None]]:
    """Rows to learn from with their labels, and rows to stop by; never the first labelled row of a class."""
    free = (y < 0).nonzero().flatten()
    if not len(free):
        first = {int(label): row for row, label in reversed(list(enumerate(y.tolist())))}
        free = torch.tensor(sorted(set(range(len(y))) - set(first.values())), dtype=torch.long)
    if not len(free):
        raise ValueError("early_stopping has no row to hold out; leave it out, or give more rows than classes")
    order = torch.as_tensor(np.random.RandomState(seed % 2**32).permutation(len(free)))
    held = torch.zeros(len(x), dtype=torch.bool)
    held[free[order[: math.ceil(fraction * len(free))]]] = True
    return x[~held], y[~held], (x[held], None)


@contextmanager
def _alone(*evaluated: Objective) -> Iterator[None]:
    """No other thread of this process, modules in evaluation mode, and PyTorch's random numbers restored."""
    with ONE_AT_A_TIME, torch.random.fork_rng(), evaluating(*evaluated):
        yield


def _seed(random_state: Any) -> int:
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def _scaler(arrays: Mapping[str, NDArray[Any]], num_features: int) -> StandardScaler:
    scaler = StandardScaler()
    scaler.mean_, scaler.scale_ = arrays["scaler/mean"], arrays["scaler/scale"]
    if not scaler.mean_.shape == scaler.scale_.shape == (num_features,):
        raise ValueError(f"it scales {scaler.mean_.shape} columns of {num_features}")
    scaler.var_, scaler.n_features_in_ = scaler.scale_**2, num_features
    return scaler


def _settings(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Settings from JSON, which has no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()}


def _single(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's, for JSON."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{value!r:.60} of type {type(value).__name__}")
