"""Objectives, `fit` and evaluation: they know model and guide by their contract, never a paper."""

from .adversarial import AdversarialELBO
from .checkpoint import load_weights
from .cluster_aware import ClusterAwareELBO, cascade
from .elbo import ELBO
from .evaluation import accuracy, evaluate, log_likelihood, sample
from .fit import check_fit_settings, fit
from .inverted import InvertedELBO
from .objective import Objective
from .semi_supervised import SemiSupervisedELBO

__all__ = [
    "ELBO",
    "AdversarialELBO",
    "ClusterAwareELBO",
    "InvertedELBO",
    "Objective",
    "SemiSupervisedELBO",
    "accuracy",
    "cascade",
    "check_fit_settings",
    "evaluate",
    "fit",
    "load_weights",
    "log_likelihood",
    "sample",
]
