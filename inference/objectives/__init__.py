"""Objectives: a bound in each file, over one base. They know model and guide by their contract, never a paper."""

from .adversarial import AdversarialELBO
from .base import Objective
from .cluster_aware import ClusterAwareELBO, cascade
from .elbo import ELBO
from .inverted import InvertedELBO
from .semi_supervised import SemiSupervisedELBO

__all__ = [
    "ELBO",
    "AdversarialELBO",
    "ClusterAwareELBO",
    "InvertedELBO",
    "Objective",
    "SemiSupervisedELBO",
    "cascade",
]
