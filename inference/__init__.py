"""Objectives, `fit` and evaluation: they know model and guide by their contract, never a paper."""

from .adversarial import AdversarialELBO
from .checkpoint import load_weights
from .cluster_aware import ClusterAwareELBO, cascade
from .clusters import (
    canonical_images,
    classes_used,
    cluster_accuracy,
    cluster_map,
    cross_entropy,
    match_dimensions,
)
from .comparison import Comparison, compare_guides, compare_objectives
from .elbo import ELBO
from .evaluation import accuracy, evaluate, log_likelihood, sample
from .fit import check_fit_settings, fit
from .inverted import InvertedELBO
from .objective import Objective
from .semi_supervised import SemiSupervisedELBO
from .units import active_units, component_kl, unit_kl, unit_kl_by_cluster

__all__ = [
    "ELBO",
    "AdversarialELBO",
    "ClusterAwareELBO",
    "Comparison",
    "InvertedELBO",
    "Objective",
    "SemiSupervisedELBO",
    "accuracy",
    "active_units",
    "canonical_images",
    "cascade",
    "check_fit_settings",
    "classes_used",
    "cluster_accuracy",
    "cluster_map",
    "compare_guides",
    "compare_objectives",
    "component_kl",
    "cross_entropy",
    "evaluate",
    "fit",
    "load_weights",
    "log_likelihood",
    "match_dimensions",
    "sample",
    "unit_kl",
    "unit_kl_by_cluster",
]
