"""Small estimators for the tests beside, with rows and labels for them."""

import numpy as np
from semipyro.estimator import SemiSupervisedClassifier
from sklearn.preprocessing import MinMaxScaler

SMALL = {"z_dim": 2, "hidden": (16,), "epochs": 10, "batch_size": 30, "learning_rate": 0.01, "random_state": 0}
BINARY = {"untapped"}  # rows of `papers.PAPERS` for values in [0, 1] alone


def small(model="m2", **changed):
    return SemiSupervisedClassifier(model, **{**SMALL, **changed})


def hide(truth, per_class, seed=0):
    """-1 but for some rows of each class."""
    y, random = np.full(len(truth), -1), np.random.default_rng(seed)
    for label in np.unique(truth):
        kept = random.choice(np.flatnonzero(truth == label), per_class, replace=False)
        y[kept] = label
    return y


def binary(X):
    return MinMaxScaler().fit_transform(X).clip(0, 1)


def without_seconds(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]
