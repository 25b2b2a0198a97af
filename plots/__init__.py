"""Figures of training, samples, latent spaces and what their units carry.

Every function returns a `matplotlib.figure.Figure` made without pyplot: it changes no global state, shows itself in
a notebook, and is written with `savefig` or, whole or not at all, with `save`.
"""

from .comparison import compared_guides
from .confusion import confusion_matrix
from .curves import training_curves
from .extraction import digit_extraction
from .files import save
from .grid import image_grid
from .interactive import explore, latent_sliders
from .latent import latent_space
from .mesh import latent_mesh
from .posterior import posterior_2d
from .reconstruction import reconstructions
from .samples import analogies, class_samples
from .units import cluster_kl, component_kl, unit_kl

__all__ = [
    "analogies",
    "class_samples",
    "cluster_kl",
    "compared_guides",
    "component_kl",
    "confusion_matrix",
    "digit_extraction",
    "explore",
    "image_grid",
    "latent_mesh",
    "latent_sliders",
    "latent_space",
    "posterior_2d",
    "reconstructions",
    "save",
    "training_curves",
    "unit_kl",
]
