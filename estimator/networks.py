"""The estimator's networks as one object, which learns and predicts in one stage or in two.

With one stage the objective reads the scaled rows. With two, "m1-m2", it reads M1's latents: M1 is trained first, the
second stage learns from draws of q(z | x), it classifies and encodes the mean of q(z | x), and it is the prior of z:

    p(x) = ∫ p(x | z) p(z) dz        p(x | z) of M1, p(z) of the second stage

Both kinds of networks have the same methods, so that only this file knows which of them it is.

Shapes: x (N, D), scaled; y (N,) codes of classes, -1 where unknown; z (N, L).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn

from ..distributions import NormalNet
from ..inference import Objective, log_likelihood, sample
from ..inference.evaluation.features import draw_features, features
from ..inference.evaluation.measures import DRAWS
from ..inference.evaluation.sampling import sample_classes
from ..papers import PAPERS
from .labels import HeldOut
from .training import History, train

M1, STACKED = "m1", "m1-m2"  # the rows of `papers.PAPERS` that make the first and the second of two stages
FEATURES, OBJECTIVE = "features_", "objective_"  # what descriptions and files call the two stages
MIN_SCALE = "min_scale"  # what descriptions call the least σ of each column
LIKELIHOOD_DRAWS = 100  # of the latents, for the importance-weighted likelihood

Description: TypeAlias = Mapping[str, Sequence[Any]]  # stage → (row of `papers.PAPERS`, keywords of its `build`)


class Networks(nn.Module, ABC):
    """What the estimator asks of its networks.

    Attributes:
        description: the row and the settings of every stage, from which `build` makes the same networks again.
    """

    description: Description

    @abstractmethod
    def objectives(self) -> dict[str, Objective]:
        """The objectives by the names of their stages; the one that has classes is called `OBJECTIVE`."""

    @abstractmethod
    def prepare(self, x: Tensor, **training: Any) -> None:
        """Trains what the objective with classes reads; keywords are those of `train`."""

    @abstractmethod
    def learn(self, x: Tensor, y: Tensor, held_out: HeldOut | None, **training: Any) -> History:
        """Trains the objective with classes; keywords are those of `train`. A second call goes on."""

    @abstractmethod
    def classify(self, x: Tensor, num_draws: int) -> Tensor:
        """The probabilities of the classes, (N, K); the classifier averages over `num_draws` draws of latents."""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """The posterior mean of the latent at the most probable class, (N, L)."""

    @abstractmethod
    def log_likelihood(self, x: Tensor) -> Tensor:
        """The importance-weighted bound on log p(x), in nats, (N,)."""

    @abstractmethod
    def likelihood_rows(self) -> int:
        """How many rows `log_likelihood` can take at a time, so that their draws fit into memory."""

    @abstractmethod
    def sample(self, n: int, y: Tensor | None = None) -> Tensor:
        """n draws of x, (n, D), of the classes y, (n,), where these are given."""


class OneStage(Networks):
    """A single objective, which reads the rows themselves.

    Args:
        description: as in `Networks`.
        objectives: by the names of the stages.
    """

    def __init__(self, description: Description, objectives: Mapping[str, Objective]) -> None:
        super().__init__()
        self.description = description
        self.objective = objectives[OBJECTIVE]
        self.num_classes: int = description[OBJECTIVE][1]["y_dim"]

    def objectives(self) -> dict[str, Objective]:
        return {OBJECTIVE: self.objective}

    def prepare(self, x: Tensor, **training: Any) -> None:
        """Nothing, as the rows are there."""

    def learn(self, x: Tensor, y: Tensor, held_out: HeldOut | None, **training: Any) -> History:
        return train(self.objective.float(), x, y, held_out, num_classes=self.num_classes, **training)

    def classify(self, x: Tensor, num_draws: int) -> Tensor:
        return self.objective.guide.classify(x, num_samples=num_draws).probs

    def encode(self, x: Tensor) -> Tensor:
        return self.objective.guide.encode(x)

    def log_likelihood(self, x: Tensor, num_samples: int = LIKELIHOOD_DRAWS) -> Tensor:
        return log_likelihood(self.objective.model, self.objective.guide, x, num_samples=num_samples)

    def likelihood_rows(self) -> int:
        return max(1, DRAWS // self.num_classes // LIKELIHOOD_DRAWS)

    def sample(self, n: int, y: Tensor | None = None) -> Tensor:
        if y is None:
            return sample(self.objective.model, n)
        return sample_classes(self.objective.model, y, self.num_classes)


class TwoStages(Networks):
    """M1, and one stage more, which reads M1's latents: M1+M2.

    "Semi-supervised learning with deep generative models" (Kingma et al., 2014), arXiv:1406.5298.

    Args:
        description: as in `Networks`.
        objectives: by the names of the stages.
    """

    def __init__(self, description: Description, objectives: Mapping[str, Objective]) -> None:
        super().__init__()
        self.description = description
        self.m1 = objectives[FEATURES]
        self.second = OneStage(description, objectives)

    def objectives(self) -> dict[str, Objective]:
        return {FEATURES: self.m1, **self.second.objectives()}

    def prepare(self, x: Tensor, **training: Any) -> None:
        """Trains M1, which needs no labels."""
        train(self.m1, x, None, None, num_classes=self.second.num_classes, **training)

    def learn(self, x: Tensor, y: Tensor, held_out: HeldOut | None, **training: Any) -> History:
        """In each batch the second stage sees a new draw of a row's latent, of the rows held out it sees the mean."""
        if held_out is not None:
            mean, _ = features(self.m1, held_out[0]).chunk(2, 1)
            held_out = mean, held_out[1]
        return self.second.learn(features(self.m1, x), y, held_out, transform=draw_features, **training)

    def classify(self, x: Tensor, num_draws: int) -> Tensor:
        return self.second.classify(self.m1.guide.encode(x), num_draws)

    def encode(self, x: Tensor) -> Tensor:
        """The latent is that of the second stage."""
        return self.second.encode(self.m1.guide.encode(x))

    def log_likelihood(self, x: Tensor) -> Tensor:
        """log 1/S Σ_s p(x | z_s) p(z_s) / q(z_s | x), z_s ~ q(z | x), with the second stage's bound for log p(z_s)."""
        q_z = self.m1.guide.q_z(x)
        z = q_z.rsample((LIKELIHOOD_DRAWS,))  # (S, N, L)
        log_p_z = self.second.log_likelihood(z.flatten(0, 1), num_samples=1).view(len(z), len(x))  # (S, N)
        log_weights = self.m1.model.p_x(z).log_prob(x) + log_p_z - q_z.log_prob(z)
        return log_weights.logsumexp(0) - math.log(LIKELIHOOD_DRAWS)

    def likelihood_rows(self) -> int:
        return self.second.likelihood_rows()

    def sample(self, n: int, y: Tensor | None = None) -> Tensor:
        return self.m1.model.p_x(self.second.sample(n, y)).sample()


def describe(
    row: str,
    *,
    x_dim: int,
    y_dim: int,
    likelihood: str,
    shape: Mapping[str, Any],
    further: Mapping[str, Any],
    min_scale: Sequence[float] | None = None,
) -> Description:
    """The rows of `papers.PAPERS` that networks are made of, with the keywords of their `build`.

    Args:
        row: of the objective that has classes.
        x_dim: D.
        y_dim: K.
        likelihood: of x given the latents.
        shape: `z_dim` and `hidden`, of every stage.
        further: keywords of `row` alone.
        min_scale: the least σ of each column of x, where p(x | ·) is normal and its σ is learnt.
    """
    data = {"x_dim": x_dim, "likelihood": likelihood, **({} if min_scale is None else {MIN_SCALE: list(min_scale)})}
    if row != STACKED:
        return {OBJECTIVE: (row, {**data, "y_dim": y_dim, **shape, **further})}
    return {
        FEATURES: (M1, {**data, **shape}),
        OBJECTIVE: (row, {"x_dim": shape["z_dim"], "y_dim": y_dim, **shape, **further}),
    }


def describe_settings(
    settings: Mapping[str, Any], *, x_dim: int, y_dim: int, likelihood: str, min_scale: Sequence[float] | None = None
) -> Description:
    """`describe` for the settings of an estimator."""
    flow = {name: settings[name] for name in ("flow", "flow_length", "flow_amortised")}
    return describe(
        settings["model"], x_dim=x_dim, y_dim=y_dim, likelihood=likelihood, min_scale=min_scale,
        shape={"z_dim": int(settings["z_dim"]), "hidden": tuple(map(int, settings["hidden"]))},
        further={**(flow if settings["flow"] is not None else {}), **(settings["settings"] or {})},
    )  # fmt: skip


def build(description: Description) -> Networks:
    """Untrained networks, in single precision."""
    return assemble(description, {name: _objective(*stage) for name, stage in description.items()})


def _objective(row: str, settings: Mapping[str, Any]) -> Objective:
    networks = {name: value for name, value in settings.items() if name != MIN_SCALE}
    objective = PAPERS[row].build(**networks).float()
    if MIN_SCALE in settings and isinstance(objective.model.p_x, NormalNet):
        objective.model.p_x.bound_below(settings[MIN_SCALE])
    return objective


def assemble(description: Description, objectives: Mapping[str, Objective]) -> Networks:
    """Networks of objectives that are there already, by the names of their stages."""
    kind = TwoStages if FEATURES in description else OneStage
    return kind(description, objectives)
