"""Training: `fit`, its checkpoints, and the precision that networks compute in."""

from .checkpoint import load_weights
from .fit import Batch, check_fit_settings, fit

__all__ = ["Batch", "check_fit_settings", "fit", "load_weights"]
