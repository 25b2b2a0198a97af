"""Training: `fit`, its checkpoints, schedules of the learning rate, and the precision that networks compute in."""

from .checkpoint import load_weights
from .fit import check_fit_settings, fit
from .run import Batch
from .schedules import linear_decay

__all__ = ["Batch", "check_fit_settings", "fit", "linear_decay", "load_weights"]
