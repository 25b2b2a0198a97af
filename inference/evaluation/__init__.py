"""Measures of trained models: accuracy, clusters, likelihood, samples, units and features."""

from .clusters import (
    canonical_images,
    classes_used,
    cluster_accuracy,
    cluster_map,
    cross_entropy,
    match_dimensions,
)
from .measures import accuracy, evaluate, log_likelihood
from .sampling import sample
from .units import active_units, component_kl, unit_kl, unit_kl_by_cluster

__all__ = [
    "accuracy",
    "active_units",
    "canonical_images",
    "classes_used",
    "cluster_accuracy",
    "cluster_map",
    "component_kl",
    "cross_entropy",
    "evaluate",
    "log_likelihood",
    "match_dimensions",
    "sample",
    "unit_kl",
    "unit_kl_by_cluster",
]
