"""The estimator: what scikit-learn asks of it. Its networks, labels, settings and files have modules of their own."""

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import Tags
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data
from torch import Tensor

from ..checks import check_counts
from ..data.labels import known_labels
from ..inference import Objective
from ..inference.evaluation.measures import ROWS
from ..inference.evaluation.same_noise import SameNoise
from ..modules import evaluating
from . import files
from .labels import HeldOut, encode_labels, encode_rows, find_classes, hold_out
from .networks import OBJECTIVE, Networks, build, describe_settings
from .randomness import PREDICTION_SEED, kept_apart, seed_from
from .scaling import fit_scaler, is_farthest, least_scales, scaled
from .settings import architecture, check_same_architecture, check_settings

FITTED = "n_iter_"  # the attribute that a fitted estimator has

ONE_CLASS = (
    "one class is left to predict: the labels in y are all {!r}, and {} rows have none. -1 means that a label is "
    "unknown; where it is a class of its own, give it another name, such as with np.where(y == -1, 0, y)"
)


class SemiSupervisedClassifier(ClassNamePrefixFeaturesOutMixin, ClassifierMixin, TransformerMixin, BaseEstimator):
    """Any classifying model of the papers, learnt from rows with and without labels.

    X is (N, D), dense. Where all its values lie in [0, 1], they are taken as probabilities of binary variables; other
    values are standardised, column by column, and modelled as Gaussian. y holds a label for each row, an integer, a
    whole float, a boolean or a string, and -1, None or NaN where the label is unknown ("-1" too, which is what NumPy
    makes of -1 among strings; of NaN it makes the class "nan", unless the array has dtype=object). What a masked array
    hides is unknown. Other labels, such as dates, bytes or tuples, are refused.

    In grids and cross-validation leave `scoring` as it is: `score` leaves the rows without a label out, while
    scikit-learn's own scorers count them as wrong. Calibrate on rows with labels:
    `CalibratedClassifierCV(FrozenEstimator(fitted)).fit(X[y != -1], y[y != -1])`. Threads of one process wait for each
    other, since they share Pyro's handlers; to work at the same time, use processes.

    Args:
        model: a classifying row of `papers.PAPERS`: "m2", "m1-m2", "adgm", "sdgm", "gm-dgm", "cagem",
            "latent-classifier", …
        flow: the name of a normalizing flow (`distributions.FLOWS`) for the posterior of the latents; None for a
            diagonal Gaussian.
        flow_length: the number of the flow's transforms.
        flow_amortised: whether the flow's parameters are functions of x and y.
        z_dim: the width of the latents, and of what `transform` returns.
        hidden: the widths of the hidden layers of all networks.
        likelihood: "bernoulli", "normal", or "auto", which decides by the values of X.
        extra_classes: the number of classes without any label to look for, with "gm-dgm" and "agm-dgm".
        settings: further keywords of the row's `build`, such as {"classification_weight": 10.0}.
        epochs: the number of passes over the rows; None for as many as give 2,000 steps, 20 at least.
        summed_classes: in training, how many classes of an unlabelled row are summed, the most probable ones; a drawn
            one stands for the others, without bias. None for all. It is faster where there are many classes.
        batch_size: the number of rows in a batch. As many labelled rows stand beside them, repeated where there are
            fewer.
        learning_rate: of Adam.
        kl_warmup: the number of epochs over which the weight of the KL terms rises to 1.
        early_stopping: whether a part of the rows is held out, and the training stops when their bound no longer
            rises. With `fit(..., validation=(X, y))` the accuracy on these rows stops the training, whatever stands
            here.
        validation_fraction: the fraction of the unlabelled rows (of all rows, where all have labels) that is held out.
        n_iter_no_change: the number of epochs without a new best, after which the training stops.
        num_draws: the number of draws of the latents that the classifier averages over, in models whose classifier
            draws.
        warm_start: whether a further `fit` goes on from where the last one ended, with the same networks, classes and
            scaling.
        random_state: decides the weights, the batches and the noise. With an int, results can be repeated, those of
            `sample` among them.
        device: "auto", "cpu", "cuda" or "mps", to train on; predictions are made on the CPU, in double precision.
        verbose: whether a progress bar is shown.

    Attributes:
        classes_: the labels, sorted, and after them the extra classes: the next integers from 0 on, or "extra 1", …
        likelihood_: "bernoulli" or "normal".
        objective_: the trained objective, with its model and its guide.
        history_: one mapping per epoch, as `inference.fit` returns them; in nats of standardised rows.
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
        summed_classes: int | None = None,
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
        self.summed_classes = summed_classes
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

        A fit that ends with an error, or with Ctrl-C, leaves the estimator as it was.

        Args:
            X: (N, D).
            y: (N,) integers, whole floats, booleans or strings; -1, None or NaN where the label is unknown.
            validation: further `(X, y)`; the training stops when the accuracy on their labels no longer rises, and
                the weights of the best epoch are kept.

        Raises:
            ValueError: an unknown model or setting, NaN in X, values outside [0, 1] with likelihood="bernoulli", no
                label at all, unless the model can cluster, labels of other types or of several, columns of one name, or
                other networks than those that warm_start goes on with.
            TypeError: X is sparse.

        Warns:
            UserWarning: the labels are all of one class, as where y was -1 and 1 for two classes.
        """
        again = self.warm_start and hasattr(self, FITTED)
        learner = copy.copy(self)
        learnt = [name for name in vars(self) if name.endswith("_") or name == "_n_features_out"]
        for name in learnt:
            if again:
                setattr(learner, name, copy.deepcopy(getattr(self, name)))
            else:
                delattr(learner, name)
        learner._learn(X, y, validation, again)
        self.__dict__ = learner.__dict__
        return self

    def _learn(self, X: ArrayLike, y: ArrayLike, validation: Any, again: bool) -> None:
        check_settings(vars(self))
        rows = self._learning_rows(X, y, reset=not again)
        known, labels = known_labels(y)
        with kept_apart():
            if again:
                check_same_architecture(architecture(vars(self)), self.architecture_)
            else:
                self._begin(rows, labels)
            self._train(self._scaled(rows), encode_rows(known, labels, self.classes_), validation, again)

    def _learning_rows(self, X: ArrayLike, y: ArrayLike, *, reset: bool) -> NDArray[Any]:
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y is None. Pass -1 for "
                "every row without a label"
            )
        rows = self._rows(X, reset=reset, ensure_min_samples=2)
        check_consistent_length(rows, y)
        return rows

    def _rows(self, X: ArrayLike, *, reset: bool = False, **checks: Any) -> NDArray[Any]:
        counts = Counter(getattr(X, "columns", ()))
        if twice := [name for name, count in counts.items() if count > 1]:
            raise ValueError(f"X must have columns of different names, got {twice[0]!r} twice; rename one of them")
        with np.errstate(invalid="ignore"):  # of infinities, which are refused
            rows: NDArray[Any] = validate_data(self, X, dtype=(np.float64, np.float32), reset=reset, **checks)
        return rows

    def _begin(self, rows: NDArray[Any], labels: NDArray[Any]) -> None:
        """What the data and the settings decide before there are networks."""
        self.architecture_ = architecture(vars(self))
        self.classes_ = find_classes(labels, self.extra_classes)
        if len(self.classes_) == 1:
            warnings.warn(ONE_CLASS.format(self.classes_.tolist()[0], len(rows) - len(labels)), stacklevel=4)
        within = bool(rows.min() >= 0 and rows.max() <= 1)
        self.likelihood_ = ("bernoulli" if within else "normal") if self.likelihood == "auto" else self.likelihood
        self._check_range(rows)
        self.scaler_ = fit_scaler(rows) if self.likelihood_ == "normal" else None
        self.seed_ = seed_from(self.random_state)
        self.history_: list[dict[str, float]] = []

    def _check_range(self, X: NDArray[Any]) -> None:
        if self.likelihood_ == "bernoulli" and (X.min() < 0 or X.max() > 1):
            raise ValueError(f"likelihood='bernoulli' needs X in [0, 1], got values from {X.min():g} to {X.max():g}; "
                             "fit with likelihood='normal', or scale X")  # fmt: skip

    def _train(self, x: Tensor, y: Tensor, validation: Any, again: bool) -> None:
        """Builds the networks, or goes on with those that are there, and trains them."""
        seed = self.seed_ + len(self.history_)  # so that a training that goes on draws other numbers
        held_out: HeldOut | None = None
        if validation is not None:
            held_out = self._validation(validation)
        elif self.early_stopping:
            x, y, held_out = hold_out(x, y, self.validation_fraction, seed)
        training = self._training(seed, again)
        torch.manual_seed(seed)
        if not again:
            self.networks_ = self._build(x)
            self.networks_.prepare(x, **training)
        self.objective_.summed_classes = self.summed_classes
        self._finish(self.networks_.learn(x, y, held_out, **training), x)

    def _training(self, seed: int, again: bool) -> dict[str, Any]:
        """The settings that are keywords of `train`."""
        return {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "kl_warmup": 0 if again else self.kl_warmup,  # once risen, the weight of the KL terms stays at 1
            "patience": self.n_iter_no_change,
            "device": self.device,
            "progress": bool(self.verbose),
            "seed": seed,
        }

    def _build(self, x: Tensor) -> Networks:
        description = describe_settings(
            vars(self), x_dim=x.shape[1], y_dim=len(self.classes_), likelihood=self.likelihood_,
            min_scale=None if self.scaler_ is None else least_scales(x),
        )  # fmt: skip
        try:
            return build(description)
        except TypeError as error:
            raise ValueError(f"settings={self.settings!r}: {error}") from error

    def _finish(self, history: list[dict[str, float]], x: Tensor) -> None:
        """Counts the epochs on, and makes the networks ready for predictions."""
        self.history_ += [{**row, "epoch": len(self.history_) + row["epoch"]} for row in history]
        self.n_iter_ = len(self.history_)
        self.networks_.cpu().double()
        with evaluating(self.networks_):
            self._n_features_out = self.networks_.encode(x[:1].double()).shape[1]

    def _validation(self, given: Any) -> HeldOut:
        """Rows to stop by, with their codes if they have labels."""
        if not isinstance(given, tuple | list) or len(given) != 2 or given[1] is None:
            raise ValueError("validation must be a pair (X, y); y may be -1 where a label is unknown")
        X, y = given
        rows = self._rows(X)
        check_consistent_length(rows, y)
        self._check_range(rows)
        known, labels = known_labels(y)
        codes = encode_rows(known, labels, self.classes_, "y of validation")
        return self._scaled(rows), codes if len(labels) else None

    def _scaled(self, X: NDArray[Any]) -> Tensor:
        return scaled(X, self.scaler_)

    # Using

    @property
    def objective_(self) -> Objective:
        """The trained objective, with its model and its guide."""
        return self.networks_.objectives()[OBJECTIVE]

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """The probabilities of the classes, (N, K), in the order of `classes_`."""
        return self._of_rows(X, lambda x: self.networks_.classify(x, self.num_draws))

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
        latents = self._of_rows(X, lambda x: self.networks_.encode(x))
        single = np.asarray(X).dtype == np.float32
        return latents.astype(np.float32) if single else latents

    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """The importance-weighted bound on log p(x) of each row, with 100 draws, in nats, (N,).

        Under a normal likelihood it is the density of X in its own units: log p of a standardised row, less the sum of
        the logarithms of the columns' scales. Under a Bernoulli likelihood it is the logarithm of the probability of a
        binary row; of values between 0 and 1 it is the cross-entropy term that training has, not a density. A row with
        a value 10⁹ standard deviations from the mean, or farther, has −∞.

        "Importance weighted autoencoders" (Burda et al., 2015), arXiv:1509.00519, eq. (8).

        Raises:
            ValueError: values outside [0, 1] with a Bernoulli likelihood.
        """
        check_is_fitted(self, FITTED)

        def log_likelihood(x: Tensor) -> Tensor:
            return self.networks_.log_likelihood(x).masked_fill(is_farthest(x), -np.inf)

        found = self._of_rows(X, log_likelihood, self.networks_.likelihood_rows(), in_range=True)
        return found if self.scaler_ is None else found - np.log(self.scaler_.scale_).sum()

    def sample(self, n: int = 1, y: Any = None) -> NDArray[np.float64]:
        """n rows drawn from the model, (n, D); of zeros and ones under a Bernoulli likelihood.

        With an int `random_state` they are the same at every call.

        Args:
            n: how many.
            y: one class for all of them, or n classes; None to draw the classes too.

        Raises:
            ValueError: n is no count, another number of classes than n, or a class that the model does not know, or
                hardly ever draws.
        """
        check_is_fitted(self, FITTED)
        check_counts(n=n)
        if y is not None and np.shape(y) not in ((), (n,)):
            raise ValueError(f"y must be one class, or n = {n} of them, got the shape {np.shape(y)}")
        codes = None if y is None else self._codes([y] * int(n) if np.shape(y) == () else y)
        with self._predicting():
            torch.manual_seed(seed_from(self.random_state))
            x = self.networks_.sample(n, codes).numpy()
        return x if self.scaler_ is None else self.scaler_.inverse_transform(x)

    def _codes(self, y: ArrayLike) -> Tensor:
        """The codes of labels, none of which is unknown."""
        known, labels = known_labels(y)
        if not known.all():
            raise ValueError(
                "y must name a class for each row, got -1, None or NaN; leave y out to draw the classes too"
            )
        return torch.as_tensor(encode_labels(labels, self.classes_))

    def _of_rows(
        self, X: ArrayLike, function: Callable[[Tensor], Tensor], rows: int = ROWS, *, in_range: bool = False
    ) -> NDArray[Any]:
        """The function's values for all rows, so many rows at a time; the noise is the same for every row and call."""
        check_is_fitted(self, FITTED)
        given = self._rows(X)
        if in_range:
            self._check_range(given)
        found = []
        with self._predicting():
            for x in self._scaled(given).double().split(rows):
                torch.manual_seed(PREDICTION_SEED)
                with SameNoise():
                    found.append(function(x))
        return torch.cat(found).numpy()

    @contextmanager
    def _predicting(self) -> Iterator[None]:
        with kept_apart(), evaluating(self.networks_):
            yield

    # Keeping

    def save(self, path: str | PathLike[str]) -> None:
        """Writes settings and weights to a file, whole or not at all, which `load` reads without pickle.

        Raises:
            ValueError: a setting or a class that cannot be written as text.
        """
        check_is_fitted(self, FITTED)
        files.save(self, path)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "SemiSupervisedClassifier":
        """The estimator that `save` wrote.

        Raises:
            ValueError: the file was not written by `save`, or is damaged.
            OSError: there is no such file.
        """
        loaded: SemiSupervisedClassifier = files.load(cls, path)
        return loaded

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Takes the state of a pickle, also of one that version 0.1 wrote."""
        super().__setstate__(files.current_state(state))

    def __sklearn_tags__(self) -> Tags:
        """Tells scikit-learn that latents come in the type of X."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
