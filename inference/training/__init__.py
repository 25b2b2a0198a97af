"""Training: `fit`, its checkpoints, and the precision that networks compute in."""

from .checkpoint import load_weights
from .fit import check_fit_settings, fit
from .run import Batch

__all__ = ["Batch", "check_fit_settings", "fit", "load_weights"]
