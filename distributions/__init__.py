"""Conditional distributions: networks whose output is a Pyro distribution, and the perceptron under them."""

from .conditionals import (
    LIKELIHOODS,
    BernoulliNet,
    BoundedNormalNet,
    CategoricalNet,
    GreyBernoulli,
    LowRankNormalNet,
    NormalNet,
    StandardNormal,
    UniformBox,
    averaged,
    central_value,
    class_probabilities,
    likelihood_net,
    most_probable,
)
from .flows import FLOWS, Flow, FlowNet
from .mlp import ACTIVATIONS, MLP
from .parts import BlockNormalNet, OfFirst, WithFeatures

__all__ = [
    "ACTIVATIONS",
    "FLOWS",
    "LIKELIHOODS",
    "MLP",
    "BernoulliNet",
    "BlockNormalNet",
    "BoundedNormalNet",
    "CategoricalNet",
    "Flow",
    "FlowNet",
    "GreyBernoulli",
    "LowRankNormalNet",
    "NormalNet",
    "OfFirst",
    "StandardNormal",
    "UniformBox",
    "WithFeatures",
    "averaged",
    "central_value",
    "class_probabilities",
    "likelihood_net",
    "most_probable",
]
