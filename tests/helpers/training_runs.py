"""What the tests of `fit` train.

`Line` is an objective without noise, so that two ways of minimising it can be compared exactly. `Scripted` has the
validation bounds with which early stopping is tested. `m2_run` is a small M2 on the digits, with everything that it
takes to fit it.
"""

import torch
from semipyro.data import batches, load, mask_labels
from semipyro.inference import Objective
from semipyro.papers import PAPERS
from torch import nn

X = torch.linspace(-1, 1, 60).reshape(20, 3).sin()


class Line(Objective):
    """The loss mean (w·tanh(Vx) − 1)², in which nothing is drawn."""

    def __init__(self):
        super().__init__(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), nn.Identity())

    def terms(self, x_labelled, y_labelled, x_unlabelled):
        return {"unlabelled": -self.kl_weight * (self.model(x_unlabelled) - 1).square().mean()}

    def loss(self, terms):
        return -terms["unlabelled"]


class Scripted(Line):
    """A `Line` whose validation bounds are `scores`: they rise twice, and then fall for good.

    `fit` looks at two rows before the first epoch; that is not counted.
    """

    scores = (0.0, 1.0, 2.0, 0.5, 0.4, 0.3, 0.2, 0.1)

    def __init__(self):
        super().__init__()
        self.register_buffer("epoch", torch.zeros((), dtype=torch.long))

    def terms(self, x_labelled, y_labelled, x_unlabelled):
        if self.training:
            return super().terms(x_labelled, y_labelled, x_unlabelled)
        self.epoch += len(x_unlabelled) > 2
        return {"unlabelled": torch.tensor(self.scores[int(self.epoch)])}


class Batches(list):
    """A list of batches that declares its attribute `size`, which a checkpoint compares."""

    declared_settings = ("size",)

    def __init__(self, *batches):
        super().__init__(batches)
        self.size = 10


def line_batches():
    """Two batches of ten rows without labels."""
    return Batches((None, None, X[:10]), (None, None, X[10:]))


def weights(objective):
    """All parameters in one vector."""
    return torch.cat([p.detach().flatten() for p in objective.parameters()])


def m2_run(**settings):
    """A small M2 on the digits and everything to fit it."""
    torch.manual_seed(3)
    digits = load("digits")
    y = mask_labels(digits.train.y, per_class=5)
    rows = batches(digits.train.x, y, labelled_batch_size=50, unlabelled_batch_size=200, binarize=True)
    objective = PAPERS["m2"].build(64, 10, hidden=(16,), z_dim=3, **settings)
    return objective, rows, (digits.validation.x, digits.validation.y)


def comparable(history):
    """A history without its seconds, which no run repeats."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]
