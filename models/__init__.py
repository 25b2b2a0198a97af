"""Generative processes p, one file each: a paper's equations as a Pyro model."""

from .adgm import ADGM
from .agmdgm import AGMDGM
from .cagem import CaGeM
from .gmdgm import GMDGM
from .latent_classifier import LatentClassifier
from .m2 import M2
from .reverse import Reverse
from .sdgm import SDGM
from .simplified_latent_classifier import SimplifiedLatentClassifier
from .vae import VAE

__all__ = [
    "ADGM",
    "AGMDGM",
    "GMDGM",
    "M2",
    "SDGM",
    "VAE",
    "CaGeM",
    "LatentClassifier",
    "Reverse",
    "SimplifiedLatentClassifier",
]
