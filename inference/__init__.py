"""Objectives, `fit` and evaluation: they know model and guide by their contract, never a paper."""

from .checkpoint import load_weights
from .elbo import ELBO
from .evaluation import accuracy, evaluate, log_likelihood, sample
from .fit import check_fit_settings, fit
from .objective import Objective
from .semi_supervised import SemiSupervisedELBO

__all__ = [
    "ELBO",
    "Objective",
    "SemiSupervisedELBO",
    "accuracy",
    "check_fit_settings",
    "evaluate",
    "fit",
    "load_weights",
    "log_likelihood",
    "sample",
]
