"""Conditional distributions: networks whose output is a Pyro distribution, and the perceptron under them."""

from .conditionals import (
    LIKELIHOODS,
    BernoulliNet,
    BoundedNormalNet,
    CategoricalNet,
    GreyBernoulli,
    NormalNet,
    StandardNormal,
    UniformBox,
    central_value,
    class_probabilities,
    likelihood_net,
    most_probable,
)
from .mlp import ACTIVATIONS, MLP

__all__ = [
    "ACTIVATIONS",
    "LIKELIHOODS",
    "MLP",
    "BernoulliNet",
    "BoundedNormalNet",
    "CategoricalNet",
    "GreyBernoulli",
    "NormalNet",
    "StandardNormal",
    "UniformBox",
    "central_value",
    "class_probabilities",
    "likelihood_net",
    "most_probable",
]
