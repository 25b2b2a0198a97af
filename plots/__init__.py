"""Figures of training, samples and latent spaces.

Every function returns a `matplotlib.figure.Figure` made without pyplot: it changes no global state, shows itself in
a notebook, and is written with `savefig` or, whole or not at all, with `save`.
"""

from .confusion import confusion_matrix
from .curves import training_curves
from .files import save
from .grid import image_grid
from .latent import latent_space
from .samples import analogies, class_samples

__all__ = [
    "analogies",
    "class_samples",
    "confusion_matrix",
    "image_grid",
    "latent_space",
    "save",
    "training_curves",
]
