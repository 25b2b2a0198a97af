"""Inference networks q, one file each; any guide with a model's sites may be swapped in."""

from .adgm import ADGMGuide
from .cagem import CaGeMGuide
from .latent_classifier import LatentClassifierGuide
from .m2 import M2Guide
from .reverse import ReverseGuide
from .vae import VAEGuide

__all__ = ["ADGMGuide", "CaGeMGuide", "LatentClassifierGuide", "M2Guide", "ReverseGuide", "VAEGuide"]
