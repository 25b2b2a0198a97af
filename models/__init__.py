"""Generative processes p, one file each: a paper's equations as a Pyro model."""

from .m2 import M2
from .vae import VAE

__all__ = ["M2", "VAE"]
