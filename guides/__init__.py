"""Inference networks q, one file each; any guide with a model's sites may be swapped in."""

from .m2 import M2Guide
from .vae import VAEGuide

__all__ = ["M2Guide", "VAEGuide"]
