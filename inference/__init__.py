"""Objectives, evaluation and training: they know model and guide by their contract, never a paper."""

import sys

from .comparison import Comparison, compare_guides, compare_objectives
from .evaluation import (
    accuracy,
    active_units,
    canonical_images,
    classes_used,
    cluster_accuracy,
    cluster_map,
    component_kl,
    cross_entropy,
    evaluate,
    log_likelihood,
    match_dimensions,
    sample,
    unit_kl,
    unit_kl_by_cluster,
)
from .objectives import (
    ELBO,
    AdversarialELBO,
    ClusterAwareELBO,
    InvertedELBO,
    Objective,
    SemiSupervisedELBO,
    adversarial,
    cascade,
    cluster_aware,
    elbo,
    inverted,
    semi_supervised,
)
from .training import check_fit_settings, fit, linear_decay, load_weights

for _objective in (adversarial, cluster_aware, elbo, inverted, semi_supervised):  # pickles of 0.1 name these modules
    sys.modules[_objective.__name__.replace(".objectives", "")] = _objective

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
    "linear_decay",
    "load_weights",
    "log_likelihood",
    "match_dimensions",
    "sample",
    "unit_kl",
    "unit_kl_by_cluster",
]
