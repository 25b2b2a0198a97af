"""Semi-supervised deep generative models in Pyro.

Every paper's generative process is a Pyro ``model``, every inference network a ``guide``; labels are observed where
they are known and summed out exactly where they are not.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["SemiSupervisedClassifier"]


def __getattr__(name: str) -> Any:
    """The estimator, which imports PyTorch, Pyro and scikit-learn, when it is asked for."""
    if name == "SemiSupervisedClassifier":
        from .estimator import SemiSupervisedClassifier

        return SemiSupervisedClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
